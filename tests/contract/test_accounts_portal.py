"""What this service takes for granted of an accounts portal. It only asks; nothing at the portal is changed.

Without anything said it is the stand-in of the scenarios that is asked. A real portal is named by the environment:
ACCOUNTS_PORTAL_URL, ACCOUNTS_PORTAL_CLIENT_ID, ACCOUNTS_PORTAL_CLIENT_SECRET_FILE, ACCOUNTS_PORTAL_HOLDER (somebody who
holds the service there), and where it differs ACCOUNTS_PORTAL_CA, _SCOPE, _CATEGORY and _SERVICE:

    python -m pytest tests/contract
"""

import secrets
from datetime import UTC, date, datetime, timedelta

import pytest


def nobody() -> str:
    """A name that no portal knows."""
    return f"nobody{secrets.token_hex(6)}"


def test_a_token_is_had_with_the_clients_id_and_secret(portal):
    answer = portal.token()
    assert answer.status_code == 200
    body = answer.json()
    assert isinstance(body["access_token"], str)
    assert body["access_token"]
    assert body["expires_in"] > 60
    assert body["token_type"].lower() == "bearer"


def test_a_wrong_secret_is_refused_as_invalid_client(portal):
    answer = portal.token(client_secret="wrong")
    assert answer.status_code in (400, 401)
    assert answer.json()["error"] == "invalid_client"


def test_a_scope_that_the_client_may_not_have_is_refused_as_invalid_scope(portal):
    answer = portal.token(scope="no.such.scope:read")
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_scope")


def test_the_grants_of_a_holder_are_an_array_with_what_is_judged(portal, token):
    answer = portal.grants(portal.holder, token)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("application/json")
    grants = answer.json()
    assert isinstance(grants, list)
    wanted = [
        grant
        for grant in grants
        if (grant["service"]["category"]["name"], grant["service"]["name"], grant["role"]["name"])
        == (portal.category, portal.service, "USER")
    ]
    assert wanted
    for grant in wanted:
        assert isinstance(grant["id"], int)
        assert grant["revoked"] is False
        assert date.fromisoformat(grant["expires"]) >= date.today() - timedelta(days=1)
        assert datetime.fromisoformat(grant["granted_at"]) <= datetime.now(UTC) + timedelta(minutes=1)


def test_neither_revoked_nor_expired_grants_are_listed(portal, token):
    for grant in portal.grants(portal.holder, token).json():
        assert grant["revoked"] is False
        assert date.fromisoformat(grant["expires"]) >= date.today() - timedelta(days=1)


def test_a_filter_on_what_is_held_finds_it(portal, token):
    answer = portal.grants(portal.holder, token, category=portal.category, service=portal.service, role="USER")
    assert {grant["service"]["name"] for grant in answer.json()} == {portal.service}


def test_a_filter_on_what_nobody_has_held_is_an_error(portal, token):
    service = nobody()
    answer = portal.grants(portal.holder, token, service=service)
    assert answer.status_code == 400
    assert service in answer.json()["service"][0]


def test_an_unknown_user_holds_nothing(portal, token):
    answer = portal.grants(nobody(), token)
    assert (answer.status_code, answer.json()) == (200, [])


def test_capitals_are_another_user(portal, token):
    answer = portal.grants(portal.holder.upper(), token)
    assert (answer.status_code, answer.json()) == (200, [])


def test_a_name_with_an_encoded_slash_is_no_address(portal, token):
    assert portal.grants(f"{portal.holder}%2F{portal.holder}", token).status_code == 404


def test_a_name_of_300_characters_holds_nothing(portal, token):
    answer = portal.grants("a" * 300, token)
    assert (answer.status_code, answer.json()) == (200, [])


@pytest.mark.parametrize("wrong", [None, "wrong"])
def test_without_a_good_token_the_answer_is_401_with_a_detail(portal, wrong):
    answer = portal.grants(portal.holder, wrong)
    assert answer.status_code == 401
    assert answer.json()["detail"]
