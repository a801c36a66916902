"""The Hub's database: an earlier JupyterHub's is migrated and goes back; a backup knows what in it is newer."""

from __future__ import annotations

import importlib
import logging
import sqlite3
import sys
from pathlib import Path
from types import ModuleType

import alembic.command
import alembic.config
import alembic.script
import ansible.module_utils
import pytest
import yaml
from jupyterhub import dbutil, orm

ROLE = Path(__file__).parents[2] / "roles/backup"
ansible.module_utils.__path__.append(str(ROLE / "module_utils"))
archive: ModuleType = importlib.import_module("ansible.module_utils.archive")

# JupyterHub 5.0's, two years before this release's
EARLIER = "4621fec11365"
MIGRATIONS = alembic.script.ScriptDirectory(dbutil.ALEMBIC_DIR)
HEAD = MIGRATIONS.get_current_head()


@pytest.fixture(autouse=True)
def alembic_on_the_path(monkeypatch):
    """As the Hub's unit has it: migrations are done by a program beside Python."""
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=":")


@pytest.fixture
def database(tmp_path) -> Path:
    """As an earlier JupyterHub left it, with alice and her token."""
    path = tmp_path / "jupyterhub.sqlite"
    session = orm.new_session_factory(url(path))()
    alice = orm.User(name="alice")
    # The Hub itself, whose tokens they are
    session.add_all([alice, orm.OAuthClient(identifier="jupyterhub")])
    session.commit()
    alice.new_api_token("a token that alice goes on with", generated=False)
    session.close()
    with dbutil._temp_alembic_ini(url(path)) as ini:
        alembic.command.downgrade(alembic.config.Config(ini), EARLIER)
    return path


def url(path: Path) -> str:
    return f"sqlite:///{path}"


def migrate(path: Path) -> None:
    """What the Hub does at its start, with upgrade_db."""
    dbutil.upgrade_if_needed(url(path), log=logging.getLogger("hub"))


def revision(path: Path) -> str:
    return ask(path, "SELECT version_num FROM alembic_version")


def ask(path: Path, question: str) -> str:
    connection = sqlite3.connect(path)
    try:
        return connection.execute(question).fetchone()[0]
    finally:
        connection.close()


def knows_alice(path: Path) -> bool:
    session = orm.new_session_factory(url(path))()
    try:
        token = orm.APIToken.find(session, "a token that alice goes on with")
        return token is not None and token.user.name == "alice"
    finally:
        session.close()


def part_of(database: Path) -> dict:
    return {"name": "hub", "databases": [str(database)], "files": [], "links": [], "mysql": ""}


def rolled_back(kept: Path) -> list[str]:
    """What playbooks/rollback.yml puts back of the databases."""
    with archive.opened(kept, "") as (work, manifest):
        return archive.put_back(work, manifest, ["databases_of_another_schema"], {})


def test_an_earlier_schema_is_migrated_with_what_is_in_it_and_goes_back_by_a_rollback(database, tmp_path):
    assert revision(database) == EARLIER
    kept = tmp_path / "releases/20260101T000000Z/hub.tar.gz"
    archive.create(kept, part_of(database), [], {})

    migrate(database)
    assert revision(database) == HEAD
    assert knows_alice(database)
    [beside] = tmp_path.glob("jupyterhub.sqlite.*")
    assert revision(beside) == EARLIER, "the Hub's own copy is from before"

    assert rolled_back(kept) == [str(database)]
    assert revision(database) == EARLIER
    assert ask(database, "SELECT count(*) FROM api_tokens") == 1


def test_a_database_whose_schema_has_not_changed_keeps_what_users_have_done_since(database, tmp_path):
    migrate(database)
    kept = tmp_path / "releases/20260101T000000Z/hub.tar.gz"
    archive.create(kept, part_of(database), [], {})
    session = orm.new_session_factory(url(database))()
    session.add(orm.User(name="bob"))
    session.commit()
    session.close()

    assert rolled_back(kept) == []
    assert ask(database, "SELECT count(*) FROM users") == 2


def test_an_admin_of_the_configuration_whom_an_empty_hub_has_made_is_nothing_newer_than_a_backup(tmp_path):
    """As on a host that was installed a moment ago, to have a backup of yesterday."""
    hub = yaml.safe_load((ROLE / "vars/main.yml").read_text())["_backup_parts"]["hub"]
    [questions] = hub["newer"].values()
    path = tmp_path / "jupyterhub.sqlite"
    session = orm.new_session_factory(url(path))()
    session.add(orm.User(name="carol", admin=True))
    session.commit()
    assert archive.newest(path, questions) == 0

    session.add(orm.User(name="alice"))
    session.commit()
    session.close()
    assert archive.newest(path, questions) > 0, "somebody else is"


def test_a_session_that_was_ended_since_the_backup_does_not_come_back_and_a_token_does(database, tmp_path):
    migrate(database)
    session = orm.new_session_factory(url(database))()
    alice = orm.User.find(session, "alice")
    orm.APIToken.new(user=alice, note="a browser at the gateway", session_id="5e55", scopes=[])
    cookie = alice.cookie_id
    session.close()
    kept = tmp_path / "backups/20260101T000000Z/hub.tar.gz"
    archive.create(kept, part_of(database), [], {})

    hub = yaml.safe_load((ROLE / "vars/main.yml").read_text())["_backup_parts"]["hub"]
    [statements] = hub["after"].values()
    with archive.opened(kept, "") as (work, manifest):
        assert archive.put_back(work, manifest, ["databases"], {str(database): statements}) == [str(database)]
    assert knows_alice(database)
    assert ask(database, "SELECT count(*) FROM api_tokens") == 1
    assert ask(database, "SELECT cookie_id FROM users") not in (cookie, "")
