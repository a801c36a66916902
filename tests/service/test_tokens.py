"""What a user's token at the Hub is good for, and for how long."""

from datetime import UTC, datetime, timedelta

import pytest
import scenario
import yaml
from hub_client import trusting

DEFAULTS = yaml.safe_load((scenario.REPOSITORY / "roles/jupyterhub/defaults/main.yml").read_text())
MAXIMUM = timedelta(days=DEFAULTS["jupyterhub_token_maximum_days"])
GATEWAY = "access:services!service=dask-gateway"


@pytest.fixture
def tokens(alice):
    """Alice's own tokens at the Hub's API; those that a test makes end with it."""
    url = f"{alice.url}/hub/api/users/alice/tokens"

    def listed() -> dict[str, dict]:
        answer = alice.api.get(url, timeout=30)
        answer.raise_for_status()
        return {token["id"]: token for token in answer.json()["api_tokens"]}

    before = listed().keys()
    yield lambda **asked: alice.api.post(url, json=asked, timeout=30), listed
    for token in listed().keys() - before:
        alice.api.delete(f"{url}/{token}", timeout=30).raise_for_status()


def test_a_token_without_an_expiry_has_the_sites_longest(tokens):
    make, _ = tokens
    began = datetime.now(UTC)
    answer = make(note="for ever")
    assert answer.status_code == 201, answer.text
    expires = datetime.fromisoformat(answer.json()["expires_at"])
    assert began + MAXIMUM - timedelta(minutes=1) < expires <= datetime.now(UTC) + MAXIMUM


def test_a_token_for_longer_than_the_site_permits_is_not_made(tokens):
    make, listed = tokens
    before = listed().keys()
    answer = make(note="too long", expires_in=int((MAXIMUM + timedelta(days=1)).total_seconds()))
    assert answer.status_code == 400
    assert "must not exceed" in answer.json()["message"]
    assert listed().keys() == before
    assert make(note="as long as may be", expires_in=int(MAXIMUM.total_seconds())).status_code == 201


def test_a_token_for_the_gateway_is_good_for_clusters_and_for_nothing_else(tokens, alice):
    make, _ = tokens
    narrow = trusting(scenario.ca())
    narrow.headers["Authorization"] = f"token {make(note='narrow', scopes=[GATEWAY]).json()['token']}"
    listed = narrow.get(f"{scenario.published_url('gateway')}/api/v1/clusters/", timeout=30)
    assert (listed.status_code, listed.json()) == (200, {})
    user = f"{alice.url}/hub/api/users/alice"
    for method, path in (("POST", "/server"), ("DELETE", "/server"), ("POST", "/tokens"), ("GET", "/tokens")):
        assert narrow.request(method, user + path, timeout=60).status_code == 403, (method, path)
        assert alice.api.get(user, timeout=30).json().get("pending") is None
