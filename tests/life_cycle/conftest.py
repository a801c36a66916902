"""Fixtures of the scenario life-cycle: those of the service's other tests."""

import pytest
from computation import Computation
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


@pytest.fixture
def computation(request, token_file, no_clusters_left):  # noqa: F811
    """Alice's running computation: the COMPUTATION of the test's module."""
    token_file("alice")
    running = Computation("alice", request.module.COMPUTATION, timeout=1200)
    yield running
    running.end()
