"""A portal for the tests of what asks it."""

from collections.abc import Iterator

import pytest
from stand_in import StandIn


@pytest.fixture(scope="session")
def running_portal(tmp_path_factory) -> Iterator[StandIn]:
    portal = StandIn(tmp_path_factory.mktemp("portal"))
    portal.start()
    yield portal
    portal.stop()


@pytest.fixture
def portal(running_portal) -> StandIn:
    """The portal as its site's file says: alice is granted the service, mary manages it."""
    if running_portal.process is None:
        running_portal.start()
    running_portal.control.reset()
    return running_portal
