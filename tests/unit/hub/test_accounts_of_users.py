"""Who can have a notebook server, and what everybody else reads."""

import pwd

import pytest

from notebook_service import account
from notebook_service.account import AccountError, usable_account


@pytest.fixture
def known(monkeypatch, tmp_path):
    """``known(pw_shell="…")``: the host knows alice, with these fields and otherwise a usable account."""

    def know(fault="", **fields):
        monkeypatch.setattr(account, "account_fault", lambda name, service: fault)
        home = tmp_path / "alice"
        home.mkdir(exist_ok=True)
        values = {"pw_uid": home.stat().st_uid, "pw_dir": str(home), "pw_shell": "/bin/bash"} | fields
        entry = pwd.struct_passwd(("alice", "x", values["pw_uid"], 27000, "", values["pw_dir"], values["pw_shell"]))

        def getpwnam(name):
            if name != "alice":
                raise KeyError(name)
            return entry

        monkeypatch.setattr(account.pwd, "getpwnam", getpwnam)
        return entry

    return know


def test_a_user_with_a_home_of_her_own_can_have_a_server(known):
    entry = known()
    assert usable_account("alice", 0, "jupyterhub") is entry


@pytest.mark.parametrize(
    ("name", "fields", "sentence"),
    [
        ("mallory", {}, "knows no account named mallory"),
        ("alice", {"pw_uid": 33}, "account of the system"),
        ("alice", {"pw_uid": 26001, "pw_shell": "/usr/sbin/nologin"}, "login shell is /usr/sbin/nologin"),
        ("alice", {"pw_uid": 26001, "pw_shell": "/bin/false"}, "not for interactive use"),
        (
            "alice",
            {"pw_uid": 26001, "pw_dir": "/no/such/home", "fault": "User account has expired"},
            r"can't be used at present \(User account has expired\)",
        ),
        ("alice", {"pw_uid": 26001, "pw_dir": "/no/such/home"}, "home folder /no/such/home does not exist"),
        ("alice", {"pw_uid": 26001, "pw_dir": "/etc/passwd/alice"}, "does not exist"),
        ("alice", {"pw_uid": 26001, "pw_dir": "/etc/passwd"}, "is no folder"),
        ("alice", {"pw_uid": 26001, "pw_dir": "/etc"}, "belongs to somebody else"),
    ],
)
def test_everybody_else_is_told_why_not(known, name, fields, sentence):
    known(**fields)
    with pytest.raises(AccountError, match=sentence):
        usable_account(name, 1000, "jupyterhub")


def test_a_home_that_does_not_answer_is_not_called_missing(known, monkeypatch):
    known(pw_uid=26001)

    def stale(self):
        raise OSError(116, "Stale file handle")

    monkeypatch.setattr(account.Path, "stat", stale)
    with pytest.raises(AccountError, match=r"cannot be reached .* \(Stale file handle\)"):
        usable_account("alice", 1000, "jupyterhub")
