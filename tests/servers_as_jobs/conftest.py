"""Fixtures of the scenario servers-as-jobs: those of the service's other tests."""

from service.conftest import (  # noqa: F401
    alice,
    alice_and_her_server,
    alices_server,
    hub_url,
    hub_user,
    pytest_runtest_makereport,
)
