"""Fixtures of the scenario life-cycle: those of the service's other tests."""

from service.conftest import (  # noqa: F401
    alice,
    alice_and_her_server,
    alices_server,
    hub_url,
    hub_user,
    key,
    login_python,
    no_clusters_left,
    pytest_runtest_makereport,
    release,
    token_file,
)
