"""The stand-in portal behaves like a portal, and misbehaves when told to. Its contract is tested in tests/contract."""

import base64
import hashlib
import re
import time
from datetime import date, timedelta
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
from stand_in import CLIENT, SCOPE, SIGN_IN_CLIENT

TODAY = date.today()


@pytest.fixture
def session(portal) -> requests.Session:
    session = requests.Session()
    session.trust_env = False  # or REQUESTS_CA_BUNDLE stands before what is said next
    session.verify = portal.ca
    return session


@pytest.fixture
def token(portal, session) -> str:
    return ask_token(portal, session).json()["access_token"]


def ask_token(portal, session) -> requests.Response:
    form = {
        "grant_type": "client_credentials",
        "scope": SCOPE,
        "client_id": CLIENT["id"],
        "client_secret": CLIENT["secret"],
    }
    return session.post(f"{portal.url}/oauth/token/", data=form, timeout=10)


@pytest.fixture
def ask(portal, session, token):
    """``ask("alice")``: the answer about her grants."""

    def ask(user: str) -> requests.Response:
        headers = {"Authorization": f"Bearer {token}"}
        url = f"{portal.url}/api/v1/users/{user}/grants/"
        return session.get(url, headers=headers, timeout=5, allow_redirects=False)

    return ask


def expiries(answer: requests.Response) -> list[str]:
    return [grant["expires"] for grant in answer.json()]


def test_a_grant_that_expires_today_is_listed_and_yesterdays_is_not(portal, ask):
    portal.control.expire("alice", TODAY)
    assert expiries(ask("alice")) == [str(TODAY)]
    portal.control.expire("alice", TODAY - timedelta(days=1))
    assert expiries(ask("alice")) == []


def test_a_revoked_grant_is_not_listed(portal, ask):
    portal.control.revoke("alice")
    assert ask("alice").json() == []


def test_a_superseded_grant_is_listed_beside_the_newer_one(portal, ask):
    later = TODAY + timedelta(days=400)
    portal.control.grant("alice", expires=later, supersede=True)
    assert expiries(ask("alice")) == [str(TODAY + timedelta(days=365)), str(later)]


def test_nothing_listens_to_the_control_from_outside(portal, session):
    assert session.post(f"{portal.url}/control/reset/", timeout=10).status_code == 404


def test_requests_are_counted_by_user(portal, ask):
    portal.control.count_from_zero()
    ask("alice")
    ask("bob")
    ask("bob")
    assert portal.control.requests() == {"token": 0, "grants": 3, "users": {"alice": 1, "bob": 2}}


def test_a_fault_ends_after_its_times(portal, ask):
    portal.control.fault("grants", "status", code=503, times=2)
    assert [ask("alice").status_code for _ in range(3)] == [503, 503, 200]


@pytest.mark.parametrize("code", [400, 429, 500])
def test_it_answers_a_status_on_demand(portal, ask, code):
    portal.control.fault("grants", "status", code=code, retry_after=3)
    answer = ask("alice")
    assert (answer.status_code, answer.headers["Retry-After"]) == (code, "3")
    portal.control.behave()
    assert ask("alice").status_code == 200


def test_it_answers_html_or_sends_to_the_page_for_signing_in(portal, ask):
    portal.control.fault("grants", "html")
    assert ask("alice").headers["Content-Type"].startswith("text/html")
    portal.control.fault("grants", "redirect")
    assert ask("alice").headers["Location"].startswith("/accounts/login/")


def test_it_answers_what_is_no_json_or_no_array(portal, ask):
    portal.control.fault("grants", "rubbish")
    with pytest.raises(requests.JSONDecodeError):
        ask("alice").json()
    portal.control.fault("grants", "object")
    assert isinstance(ask("alice").json(), dict)


def test_it_answers_100_megabytes(portal, ask):
    portal.control.fault("grants", "huge", size=5_000_000)
    assert len(ask("alice").content) > 4_900_000


@pytest.mark.parametrize("kind", ["close", "cut"])
def test_it_closes_the_connection(portal, ask, kind):
    portal.control.fault("grants", kind)
    with pytest.raises((requests.ConnectionError, requests.exceptions.ChunkedEncodingError)):
        ask("alice")


def test_it_is_slow(portal, ask):
    portal.control.fault("grants", "slow", seconds=0.5)
    started = time.monotonic()
    assert ask("alice").status_code == 200
    assert time.monotonic() - started >= 0.5


def test_it_issues_a_token_that_is_refused(portal, session, ask):
    portal.control.fault("token", "refused_token")
    token = ask_token(portal, session).json()["access_token"]
    answer = session.get(
        f"{portal.url}/api/v1/users/alice/grants/", headers={"Authorization": f"Bearer {token}"}, timeout=10
    )
    assert answer.status_code == 401


def test_its_tokens_can_be_revoked_and_be_short_lived(portal, session, ask):
    portal.control.forget_tokens()
    assert ask("alice").status_code == 401
    portal.control.client(token_lifetime=7)
    assert ask_token(portal, session).json()["expires_in"] == 7


def test_what_was_granted_outlives_a_restart(portal, session):
    portal.control.grant("bob")
    portal.stop()
    portal.start()
    token = ask_token(portal, session).json()["access_token"]
    answer = session.get(
        f"{portal.url}/api/v1/users/bob/grants/", headers={"Authorization": f"Bearer {token}"}, timeout=10
    )
    assert len(answer.json()) == 1


class Person:
    """Somebody at a browser."""

    def __init__(self, portal, name: str):
        self.url = portal.url
        self.browser = requests.Session()
        self.browser.trust_env = False
        self.browser.verify = portal.ca
        self.fill_in("/accounts/login/?next=/services/", username=name, password=f"{name}'s password")

    def read(self, path: str) -> str:
        answer = self.browser.get(self.url + path, timeout=10)
        answer.raise_for_status()
        return answer.text

    def fill_in(self, page: str, action: str | None = None, **form: str) -> str:
        text = self.read(page)
        csrf = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', text)[1]
        answer = self.browser.post(
            self.url + (action or page),
            data=form | {"csrfmiddlewaretoken": csrf},
            headers={"Referer": self.url + page},
            timeout=10,
        )
        answer.raise_for_status()
        return answer.text


def test_bob_applies_on_the_page_that_a_refusal_names_and_mary_grants(portal, ask):
    page = "/services/additional_services/dask/"
    bob = Person(portal, "bob")
    assert "You hold no service yet" in bob.read("/services/")
    assert "You do not hold this service" in bob.read(page)
    assert "have not decided yet" in bob.fill_in(page, reason="Ocean models")

    mary = Person(portal, "mary")
    assert "Applications that wait for you" in mary.read("/services/")
    assert "Ocean models" in mary.read(page)
    number = re.search(r"/requests/(\d+)/", mary.read(page))[1]
    until = TODAY + timedelta(days=30)
    assert "bob was granted" in mary.fill_in(page, f"/requests/{number}/", grant="", expires=str(until))

    assert "You hold this service as USER" in bob.read(page)
    assert expiries(ask("bob")) == [str(until)]


def test_bob_cannot_grant_it_to_himself(portal, ask):
    page = "/services/additional_services/dask/"
    bob = Person(portal, "bob")
    bob.fill_in(page, reason="Mine")
    number = re.search(r"/requests/(\d+)/", Person(portal, "mary").read(page))[1]
    with pytest.raises(requests.HTTPError, match="403"):
        bob.fill_in("/services/", f"/requests/{number}/", grant="", expires=str(TODAY))
    assert ask("bob").json() == []


VERIFIER = "a verifier of the length that it must have, which is 43 to 128"
CHALLENGE = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).decode().rstrip("=")


def authorize(person: Person, **changes: str | None) -> requests.Response:
    """Be sent by a service to the page that signs people in."""
    asked = {
        "response_type": "code",
        "client_id": SIGN_IN_CLIENT["id"],
        "redirect_uri": SIGN_IN_CLIENT["redirect_uris"][0],
        "scope": "openid profile groups",
        "state": "the-state",
        "code_challenge": CHALLENGE,
        "code_challenge_method": "S256",
    }
    url = f"{person.url}/oauth/authorize/"
    return person.browser.get(url, params=asked | changes, timeout=10, allow_redirects=False)


def exchange(portal, session, answer: requests.Response, **changes: str) -> requests.Response:
    """Be the service, and give the code for a token."""
    returned = parse_qs(urlsplit(answer.headers["Location"]).query)
    assert returned["state"] == ["the-state"]
    form = {
        "grant_type": "authorization_code",
        "code": returned["code"][0],
        "redirect_uri": SIGN_IN_CLIENT["redirect_uris"][0],
        "client_id": SIGN_IN_CLIENT["id"],
        "client_secret": SIGN_IN_CLIENT["secret"],
        "code_verifier": VERIFIER,
    }
    return session.post(f"{portal.url}/oauth/token/", data=form | changes, timeout=10)


def claims(portal, session, token: requests.Response) -> dict:
    headers = {"Authorization": f"Bearer {token.json()['access_token']}"}
    answer = session.get(f"{portal.url}/oauth/userinfo/", headers=headers, timeout=10)
    answer.raise_for_status()
    return answer.json()


def test_alice_signs_in_for_a_service_which_learns_her_name_and_the_services_she_holds(portal, session):
    token = exchange(portal, session, authorize(Person(portal, "alice")))
    said = claims(portal, session, token)
    assert (said["preferred_username"], said["groups"]) == ("alice", ["dask"])
    portal.control.claim("alice", preferred_username="root")
    assert claims(portal, session, token)["preferred_username"] == "root"


def test_the_portal_tells_its_addresses_as_providers_of_openid_connect_do(portal, session):
    said = session.get(f"{portal.url}/oauth/.well-known/openid-configuration", timeout=10).json()
    names = {"authorization": "authorize", "token": "token", "userinfo": "userinfo", "end_session": "logout"}
    assert {name: said[f"{name}_endpoint"] for name in names} == {
        name: f"{portal.url}/oauth/{path}/" for name, path in names.items()
    }


def test_who_is_not_signed_in_is_asked_to_and_comes_back(portal):
    person = Person(portal, "alice")
    person.browser.cookies.clear()
    form = authorize(person)
    assert form.headers["Location"].startswith("/accounts/login/?next=/oauth/authorize/")


@pytest.mark.parametrize(
    "address", ["https://notebooks.lotus.test/hub/elsewhere", "https://evil.test/hub/oauth_callback"]
)
def test_nobody_is_sent_to_an_address_that_is_not_the_services(portal, address):
    answer = authorize(Person(portal, "alice"), redirect_uri=address)
    assert (answer.status_code, answer.headers.get("Location")) == (400, None)


def test_a_service_must_prove_that_it_is_the_one_that_asked(portal, session):
    alice = Person(portal, "alice")
    refused = authorize(alice, code_challenge=None, code_challenge_method=None)
    assert "error=invalid_request" in refused.headers["Location"]
    for changes in (
        {"code_verifier": VERIFIER[::-1]},
        {"client_secret": "wrong"},
        {"redirect_uri": "https://evil.test/"},
    ):
        answer = exchange(portal, session, authorize(alice), **changes)
        assert answer.status_code in (400, 401), changes
    code = authorize(alice)
    assert exchange(portal, session, code).status_code == 200
    assert exchange(portal, session, code).status_code == 400, "a code is good once"


def test_signing_out_of_a_service_ends_the_session_here_when_its_user_says_so(portal):
    alice = Person(portal, "alice")
    back = SIGN_IN_CLIENT["post_logout_redirect_uris"][0]
    page = f"/oauth/logout/?client_id={SIGN_IN_CLIENT['id']}&post_logout_redirect_uri={back}"
    csrf = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', alice.read(page))[1]
    assert authorize(alice).headers["Location"].startswith(SIGN_IN_CLIENT["redirect_uris"][0]), "nothing has ended yet"
    form = {
        "allow": "yes",
        "client_id": SIGN_IN_CLIENT["id"],
        "post_logout_redirect_uri": back,
        "csrfmiddlewaretoken": csrf,
    }
    headers = {"Referer": alice.url + page}
    answer = alice.browser.post(alice.url + page, form, headers=headers, timeout=10, allow_redirects=False)
    assert answer.headers["Location"] == back
    assert authorize(alice).headers["Location"].startswith("/accounts/login/")
