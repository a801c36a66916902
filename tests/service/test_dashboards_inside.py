"""A site keeps dashboards inside its network, and everybody reads where to open them."""

import json

import pytest
import scenario
from browser import Person, chromium, screenshot

DESKTOP = "desktop.lotus.test"
# Docker's own networks; the browser comes by a bridge of theirs
HERE, ELSEWHERE = "172.16.0.0/12", "192.0.2.0/24"


def kept_inside(*networks: str) -> None:
    values = {"dask_gateway_dashboards_inside": {"networks": networks, "remote_desktop": DESKTOP} if networks else {}}
    for book in ("gateway", "hub"):
        done = scenario.playbook(book, "-e", json.dumps(values))
        assert done.returncode == 0, done.stdout[-5000:]


@pytest.fixture
def settings():
    """``settings("192.0.2.0/24")``: dashboards open there alone; after the test everywhere again."""
    yield kept_inside
    kept_inside()


@pytest.mark.long
def test_a_dashboard_opens_inside_the_sites_network_and_says_so_elsewhere(settings, new_cluster):
    cluster = new_cluster("alice")
    settings(ELSEWHERE)
    guide = " ".join(scenario.get("hub", "/services/docs/").text.split())
    assert f"from elsewhere, use a browser on {DESKTOP}" in guide
    with chromium() as chrome:
        alice = Person(chrome, "alice")
        page = alice.open(f"{alice.gateway}/clusters/{cluster}/status")
        alice.fill_in(page)
        page.get_by_text(f"Open this address in a browser on {DESKTOP}.").wait_for()
        screenshot(page, "kept-inside")
        assert alice.status(page, f"/clusters/{cluster}/status") == 403
        assert alice.websocket(page, f"/clusters/{cluster}/status/ws") == "refused"
        listed = alice.open(f"{alice.gateway}/")
        listed.get_by_text(f"such as in a browser on {DESKTOP}").wait_for()

        settings(HERE)
        assert alice.status(page, f"/clusters/{cluster}/status") == 200
        alice.context.close()
