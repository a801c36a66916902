"""Who is let in of those that a provider of OAuth has signed in, and what everybody else reads."""

import asyncio
import pwd
from types import SimpleNamespace

import pytest
from oauthenticator.generic import GenericOAuthenticator
from tornado.httpclient import HTTPClientError
from tornado.web import HTTPError
from traitlets.config import Config

from notebook_service import account, oauth
from notebook_service.oauth import NotebookOAuthenticator

UIDS = {"alice": 26001, "bob": 26002, "root": 0, "daemon": 1, "locked": 26009, "o'neill": 26010}
GROUPS = {"alice": {27000: "users", 27001: "climate"}, "bob": {27000: "users", 27999: None}}


@pytest.fixture(autouse=True)
def host(monkeypatch):
    """A host that knows these accounts, one of them by another spelling too."""

    def getpwnam(name):
        known = name.lower()
        if known not in UIDS:
            raise KeyError(name)
        return pwd.struct_passwd((known, "x", UIDS[known], 27000, "", f"/home/{known}", "/bin/bash"))

    def getgrgid(number):
        name = next(groups[number] for groups in GROUPS.values() if number in groups)
        if name is None:
            raise KeyError(number)
        return SimpleNamespace(gr_name=name)

    monkeypatch.setattr(account.pwd, "getpwnam", getpwnam)
    monkeypatch.setattr(oauth.os, "getgrouplist", lambda name, gid: list(GROUPS.get(name, {27000: "users"})))
    monkeypatch.setattr(oauth.grp, "getgrgid", getgrgid)
    monkeypatch.setattr(oauth, "keep_modules", lambda service: service)
    faults = {"locked": "User account has expired"}
    monkeypatch.setattr(oauth, "account_fault", lambda name, service: faults.get(name, ""))


@pytest.fixture
def sign_in(monkeypatch):
    """``sign_in({"preferred_username": "alice"})``: what becomes of somebody of whom the provider says that."""

    def sign_in(claims, failure=None, **settings) -> dict | str:
        async def get_token_info(self, handler, parameters):
            if failure:
                raise failure
            return {"access_token": "t", "scope": "openid"}

        async def token_to_user(self, token_info):
            return claims

        monkeypatch.setattr(GenericOAuthenticator, "build_access_tokens_request_params", lambda *arguments: {})
        monkeypatch.setattr(GenericOAuthenticator, "get_token_info", get_token_info)
        monkeypatch.setattr(GenericOAuthenticator, "token_to_user", token_to_user)
        config = Config()
        config.OAuthenticator.username_claim = "preferred_username"
        config.OAuthenticator.login_service = "the portal"
        config.Authenticator.username_pattern = r"^[a-z0-9_][a-z0-9_.-]*$"
        config.Authenticator.manage_groups = True
        for name, value in {"allow_all": True, "support_address": "help@site.test", **settings}.items():
            config.NotebookOAuthenticator[name] = value
        authenticator = NotebookOAuthenticator(config=config)
        try:
            return asyncio.run(authenticator.get_authenticated_user(None, None))
        except HTTPError as error:
            return f"{error.status_code} {error.log_message}"

    return sign_in


def test_a_user_whom_the_directory_knows_is_let_in_and_is_no_admin(sign_in):
    user = sign_in({"preferred_username": "alice"})
    assert (user["name"], user["admin"]) == ("alice", False)


@pytest.mark.parametrize(
    ("claimed", "sentence"),
    [
        ("mallory", "403 The notebook service knows no account named mallory. If it should, write to help@site.test."),
        ("Alice", "403 The notebook service knows no account named Alice."),
        ("alice\n", r"403 The notebook service knows no account named 'alice\n'."),
        ("alice\0", r"403 The notebook service knows no account named 'alice\x00'."),
        ("x" * 9000, "403 The notebook service knows no account named 'xxxx"),
        ("root", "403 root is an account of the system"),
        ("daemon", "403 daemon is an account of the system"),
        ("o'neill", "403 The notebook service can't have a user named o'neill."),
        ("locked", "403 The account locked can't be used at present (User account has expired):"),
        ("", "403 the portal does not say who you are (the claim preferred_username)."),
        (None, "403 the portal does not say who you are"),
        (26001, "403 the portal does not say who you are"),
        (["alice"], "403 the portal does not say who you are"),
        ({"name": "alice"}, "403 the portal does not say who you are"),
    ],
)
def test_everybody_else_reads_why_not(sign_in, claimed, sentence):
    answer = sign_in({"preferred_username": claimed, "email": "alice@site.test"})
    assert isinstance(answer, str)
    assert answer.startswith(sentence)
    assert len(answer) < 300


@pytest.mark.parametrize("claims", [{}, [], None, "alice"])
def test_a_provider_that_says_nothing_lets_nobody_in(sign_in, claims):
    assert sign_in(claims).startswith("403 the portal does not say who you are")


@pytest.mark.parametrize(
    "failure", [HTTPClientError(500), HTTPClientError(599), ConnectionRefusedError("no"), ValueError("no JSON")]
)
def test_a_provider_that_gives_no_answer_is_no_error_of_ours(sign_in, failure):
    answer = sign_in({"preferred_username": "alice"}, failure=failure)
    assert answer == "503 the portal gives no answer at the moment. Try again in a few minutes."


def test_groups_are_those_of_the_directory_where_no_claim_names_them(sign_in):
    only = {"allow_all": False, "allowed_groups": {"climate"}}
    claims = {"groups": ["climate", "operators"], "groups_of_the_directory": ["climate"]}
    assert sign_in(claims | {"preferred_username": "alice"}, **only)["groups"] == ["climate", "users"]
    assert sign_in(claims | {"preferred_username": "bob"}, **only).startswith(
        "403 The account bob may not use the notebook service. If it should"
    )


@pytest.mark.parametrize("groups", [["climate"], ["climate", "other"]])
def test_groups_are_those_of_the_claim_where_there_is_one(sign_in, groups):
    only = {"allow_all": False, "allowed_groups": {"climate"}, "groups_claim": "groups"}
    assert sign_in({"preferred_username": "bob", "groups": groups}, **only)["groups"] == groups


@pytest.mark.parametrize("groups", [[], None, "climate", 7, {"climates": True}])
def test_a_claim_that_does_not_list_the_group_lets_nobody_in(sign_in, groups):
    only = {"allow_all": False, "allowed_groups": {"climate"}, "groups_claim": "groups"}
    assert sign_in({"preferred_username": "alice", "groups": groups}, **only).startswith(
        "403 The account alice may not"
    )


@pytest.mark.parametrize(("group", "admin"), [("climate", True), ("operators", False)])
def test_admins_are_who_is_in_their_groups_now(sign_in, group, admin):
    user = sign_in({"preferred_username": "alice"}, admin_groups={group})
    assert user["admin"] is admin


def test_the_required_service_is_asked_for_as_with_passwords(sign_in):
    assert sign_in({"preferred_username": "alice"}, required_service_command=["/no/such/command"]).startswith(
        "403 It can't be found out at the moment"
    )
