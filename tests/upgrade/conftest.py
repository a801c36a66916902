"""Fixtures of the scenario upgrade: those of the service's other tests, and what its playbooks are given."""

import json
import shutil

import pytest
import scenario
from service.conftest import (  # noqa: F401
    alice,
    hub_url,
    hub_user,
    login_python,
    pytest_runtest_makereport,
    token_file,
)


# Not for the session, at whose end its host is another one
@pytest.fixture
def alices_server(alice):  # noqa: F811
    """Alice with a running notebook server."""
    alice.start_server()
    yield alice
    alice.stop_server()


@pytest.fixture
def canary(hub_user, tmp_path):  # noqa: F811
    """A file of extra variables: the canary is carol."""
    path = tmp_path / "canary.json"
    token = hub_user("carol").new_token(note="canary")
    path.write_text(json.dumps({"dask_gateway_canary_user": "carol", "dask_gateway_canary_token": token}))
    path.chmod(0o600)
    return path


@pytest.fixture
def backup_variables(tmp_path):
    """A file of extra variables: a pair of keys, and a folder on this machine to which backups are brought."""
    fetched = tmp_path / "fetched"
    path = tmp_path / "backup.json"
    path.write_text(json.dumps(scenario.backup_keys(tmp_path) | {"backup_fetch_directory": str(fetched)}))
    path.chmod(0o600)
    yield path
    shutil.rmtree(fetched, ignore_errors=True)
