"""Another cookie secret ends the sessions of browsers, and nothing else."""

import hashlib
import sqlite3
from contextlib import closing

import pytest
from jupyterhub import orm

from notebook_service.sessions import end_sessions_of_another_secret

SECRET, ANOTHER = "ab" * 32, "cd" * 32
DIGEST, OTHER_DIGEST = (f"{hashlib.sha256(secret.encode()).hexdigest()}\n" for secret in (SECRET, ANOTHER))
# Of the tokens in the Hub's database: what they are for, and the session that they are of
TOKENS = {
    "made at /hub/token": None,
    "of a running server": "",
    "a browser at the gateway": "5e55",
    "a browser at a server": "10af",
}
NO_SESSIONS = {"made at /hub/token", "of a running server"}


@pytest.fixture
def database(tmp_path):
    """The Hub's database, as the Hub makes it."""
    path = tmp_path / "jupyterhub.sqlite"
    session = orm.new_session_factory(f"sqlite:///{path}")()
    session.add(orm.OAuthClient(identifier="jupyterhub"))
    user = orm.User(name="alice")
    session.add(user)
    session.commit()
    for note, session_id in TOKENS.items():
        orm.APIToken.new(user=user, note=note, session_id=session_id, scopes=[])
    session.close()
    session.get_bind().dispose()
    return path


@pytest.fixture
def start(tmp_path):
    """``start(secret)``: what the Hub does at its start; the number of sessions that it has ended."""

    def end(secret):
        return end_sessions_of_another_secret(secret, remembered(tmp_path), tmp_path / "jupyterhub.sqlite")

    return end


def remembered(folder):
    return folder / "cookie-secret.sha256"


def tokens(database) -> set[str]:
    with closing(sqlite3.connect(database)) as connection:
        return {note for (note,) in connection.execute("SELECT note FROM api_tokens")}


def test_the_first_start_remembers_the_secrets_digest_and_ends_nothing(start, database, tmp_path, capsys):
    assert start(SECRET) == 0
    assert remembered(tmp_path).read_text() == DIGEST
    assert remembered(tmp_path).stat().st_mode & 0o777 == 0o600
    assert {path.name for path in tmp_path.iterdir()} == {"jupyterhub.sqlite", "cookie-secret.sha256"}
    assert tokens(database) == set(TOKENS)
    assert capsys.readouterr().out == ""


def test_a_start_with_the_same_secret_ends_nothing(start, database, capsys):
    start(SECRET)
    assert start(SECRET) == 0
    assert tokens(database) == set(TOKENS)
    assert capsys.readouterr().out == ""


def test_another_secret_ends_the_sessions_once_and_no_other_token(start, database, tmp_path, capsys):
    start(SECRET)
    assert start(ANOTHER) == 2
    assert tokens(database) == NO_SESSIONS
    assert remembered(tmp_path).read_text() == OTHER_DIGEST
    assert remembered(tmp_path).stat().st_mode & 0o777 == 0o600
    said = capsys.readouterr().out
    assert said == "Another cookie secret: 2 sessions of browsers at servers and services have ended\n"
    assert start(ANOTHER) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("there", [None, b""], ids=["no file", "no table"])
def test_a_database_that_the_hub_has_not_made_yet_has_no_sessions(start, tmp_path, there):
    path = tmp_path / "jupyterhub.sqlite"
    if there is not None:
        path.write_bytes(there)
    start(SECRET)
    assert start(ANOTHER) == 0
    assert remembered(tmp_path).read_text() == OTHER_DIGEST
    assert path.exists() == (there is not None), "the Hub makes it, with its own mode"


def test_what_fails_is_done_again_at_the_next_start(start, database, tmp_path):
    start(SECRET)
    good = database.read_bytes()
    database.write_bytes(b"no database" * 1000)
    with pytest.raises(sqlite3.DatabaseError):
        start(ANOTHER)
    assert remembered(tmp_path).read_text() == DIGEST
    database.write_bytes(good)
    assert start(ANOTHER) == 2


def test_who_reads_the_configuration_without_the_secret_changes_nothing(start, database, tmp_path):
    assert start(None) == 0
    assert not remembered(tmp_path).exists()
    start(SECRET)
    assert start(None) == 0
    assert tokens(database) == set(TOKENS)
    assert remembered(tmp_path).read_text() == DIGEST
