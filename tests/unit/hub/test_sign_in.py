"""Sign-in through PAM: whose password is right reads why the account may not be used, and nobody else does."""

import asyncio
from types import SimpleNamespace

import pamela
import pytest
from tornado.web import HTTPError

from notebook_service import authenticator, pam
from notebook_service.authenticator import NotebookAuthenticator

EXPIRED = "User account has expired"


@pytest.fixture
def sign_in(monkeypatch):
    """``sign_in("alice", "right", fault="")``: the name that PAM lets in, or None."""
    monkeypatch.setattr(authenticator, "keep_modules", lambda service: None)

    def asked(name, password, fault=""):
        checked = []

        def authenticate(username, word, check=True, **options):
            assert not check, "the account is asked for by itself"
            if word != "right":
                raise pamela.PAMError(errno=7)

        def check_account(username, service):
            checked.append(username)
            if fault:
                error = pamela.PAMError(errno=13)
                error.message = fault
                raise error

        monkeypatch.setattr(pamela, "authenticate", authenticate)
        monkeypatch.setattr(pam.pamela, "check_account", check_account)
        handler = SimpleNamespace(request=SimpleNamespace(remote_ip="192.0.2.1"))

        async def ask():
            one = NotebookAuthenticator(support_address="help@site.test")
            return await one.authenticate(handler, {"username": name, "password": password})

        return asyncio.run(ask()), checked

    return asked


def test_the_right_password_of_a_usable_account_is_let_in(sign_in):
    assert sign_in("alice", "right") == ("alice", ["alice"])


@pytest.mark.parametrize("fault", ["", EXPIRED])
def test_a_wrong_password_learns_nothing_of_the_account(sign_in, fault):
    assert sign_in("alice", "wrong", fault) == (None, [])


def test_the_right_password_of_an_account_that_may_not_be_used_reads_why(sign_in):
    with pytest.raises(HTTPError) as refused:
        sign_in("alice", "right", EXPIRED)
    assert refused.value.status_code == 403
    assert refused.value.log_message.startswith(f"The account alice can't be used at present ({EXPIRED}):")
