"""Fixtures of the scenario servers-as-jobs: those of the service's other tests."""

import scenario
from service.conftest import (  # noqa: F401
    alice,
    alice_and_her_server,
    alices_server,
    hub_url,
    hub_user,
    pytest_runtest_makereport,
)

# Playbooks that tests run are for this scenario's hosts
scenario.INVENTORY = scenario.REPOSITORY / "molecule/servers-as-jobs/inventory"
