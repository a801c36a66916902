"""What users had under the release before is theirs after an upgrade."""

import json
import os
import subprocess
from datetime import UTC, datetime
from itertools import pairwise

import pytest
import scenario
from computation import Computation
from upgrade.found_again import FIND

COMPUTATION = """
kept = client.submit(lambda: 6 * 7)
assert kept.result() == 42
client.publish_dataset(kept=kept)
time.sleep(3600)
"""
ASK = """
import sqlite3, sys
database, question = sys.argv[1:]
print(sqlite3.connect(f"file:{database}?mode=ro", uri=True).execute(question).fetchone()[0])
"""
# Both releases have the same JupyterHub: the database goes back to the schema of the one before that, by four revisions
JUPYTERHUB_5 = """
systemctl stop jupyterhub && cd /var/lib/jupyterhub && export PATH=/opt/jupyterhub/bin:$PATH &&
python -m jupyterhub.dbutil alembic downgrade 4621fec11365
"""
# Both releases have the same JupyterHub: this is one more migration, such as the next one may bring
MIGRATION = """
import sqlalchemy
from alembic import op

revision, down_revision = "{}", "{}"


def upgrade():
    op.add_column("users", sqlalchemy.Column("next_releases", sqlalchemy.Unicode(255)))
"""
NEXT_SCHEMA = "0123456789ab"
# The release before passes over this table, which the way back has left
FIRST_GATEWAYS_TABLES = """
systemctl stop dask-gateway && /usr/bin/python3 -c '
import sqlite3
sqlite3.connect("/var/lib/dask-gateway/dask_gateway.sqlite").execute("DROP TABLE service_facts")
' && systemctl start dask-gateway
"""


@pytest.fixture
def computation(token_file):
    token_file("alice")
    running = Computation("alice", COMPUTATION, timeout=3000)
    yield running
    running.end()


def playbook(name: str, *arguments: str) -> None:
    done = run(name, *arguments)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr


def run(name: str, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        ["ansible-playbook", "--inventory", scenario.INVENTORY, f"playbooks/{name}.yml", *arguments],
        cwd=scenario.REPOSITORY, env=os.environ | scenario.PLAIN_OUTPUT, capture_output=True, text=True, timeout=3000,
    )  # fmt: skip


def ask(host: str, database: str, question: str) -> str:
    return scenario.host(host).check_output("/usr/bin/python3 -c %s %s %s", ASK, database, question)


HUBS_DATABASE = "/var/lib/jupyterhub/jupyterhub.sqlite"


def hubs_schema(database: str = HUBS_DATABASE) -> str:
    return ask("hub", database, "SELECT version_num FROM alembic_version")


def gateway_has_facts() -> bool:
    """Whether the gateway's database has the table that releases after the first one add."""
    question = "SELECT count(*) FROM sqlite_master WHERE name = 'service_facts'"
    return ask("gateway", "/var/lib/dask-gateway/dask_gateway.sqlite", question) == "1"


RELEASE = "readlink /opt/jupyterhub /opt/jupyterhub-notebook"
PARTS = {"hub": "jupyterhub*.service nginx.service", "gateway": "dask-gateway*.service nginx.service"}
AWAY = "systemctl show --timestamp=us+utc -p Id,Type,ActiveExitTimestamp,ActiveEnterTimestamp {}"


def times_away(host: str, since: datetime) -> dict[str, tuple[datetime, datetime]]:
    """When the parts on a host left since then, and when they were back, the last time each."""

    def time(value: str) -> datetime:
        return datetime.strptime(value, "%a %Y-%m-%d %H:%M:%S.%f %Z").replace(tzinfo=UTC)

    units = scenario.host(host).check_output(AWAY.format(PARTS[host])).split("\n\n")
    shown = [dict(line.split("=", 1) for line in unit.splitlines()) for unit in units]
    return {
        f"{unit['Id']} on {host}": (time(unit["ActiveExitTimestamp"]), time(unit["ActiveEnterTimestamp"]))
        for unit in shown
        if unit["Type"] != "oneshot" and unit["ActiveExitTimestamp"] and time(unit["ActiveExitTimestamp"]) > since
    }


def test_the_way_back_to_the_release_before_loses_nothing(computation, alices_server, login_python, canary):
    """First, as the next test changes the schema of the Hub's database, which the release before could not do."""
    hub, before, server = scenario.host("hub"), scenario.host("hub").check_output(RELEASE), alices_server.server_pid()
    since = datetime.now(UTC)
    playbook("upgrade", "-e", f"@{canary}")
    assert hub.check_output(RELEASE) != before
    away = times_away("hub", since) | times_away("gateway", since)
    assert {"jupyterhub.service on hub", "dask-gateway.service on gateway"} <= away.keys()
    one_after_another = sorted(away.items(), key=lambda part: part[1])
    for (first, (_, back)), (second, (gone, _)) in pairwise(one_after_another):
        assert back <= gone, f"{second} left before {first} was back: {one_after_another}"
    made_since = alices_server.new_token(note="made under the new release")

    playbook("rollback")

    assert hub.check_output(RELEASE) == before
    assert alices_server.holds(made_since)
    assert alices_server.server_pid() == server
    found = login_python("alice", FIND.format(computation.cluster))
    assert found.stdout.splitlines()[-3:] == [f"['{computation.cluster}']", "42", "shut down"], found.stderr
    scenario.wait_until("no job is left", lambda: not scenario.jobs_of("alice"))


@pytest.fixture
def a_newer_jupyterhub():
    """The Hub that an upgrade installs has one more migration of its database, and the release before does not know it.

    Its environment is there, as the test of the way back has left it.
    """
    hub = scenario.host("hub")
    (build,) = set(hub.check_output("ls -d /opt/jupyterhub-[0-9a-f]*").split()) - {hub.check_output(RELEASE).split()[0]}
    migrations = f"{build}/lib/python3.11/site-packages/jupyterhub/alembic/versions"
    scenario.put_file("hub", "root", f"{migrations}/next.py", MIGRATION.format(NEXT_SCHEMA, hubs_schema()))
    yield
    hub.check_output("rm %s/next.py", migrations)


def test_an_upgrade_whose_canary_fails_leaves_the_database_that_it_has_migrated_behind(
    computation, a_newer_jupyterhub, alices_server, login_python, tmp_path
):
    token = alices_server.new_token(note="made under the release before")
    hub, schema, server = scenario.host("hub"), hubs_schema(), alices_server.server_pid()
    release = hub.check_output(RELEASE)
    canary = tmp_path / "unknown.json"
    canary.write_text(json.dumps({"dask_gateway_canary_user": "carol", "dask_gateway_canary_token": "no-such-token"}))

    failed = run("upgrade", "-e", f"@{canary}")

    assert failed.returncode != 0
    assert "The canary failed, as said above, so the release before is back" in " ".join(failed.stdout.split())
    left_behind = hub.check_output(f"ls -t {HUBS_DATABASE}.before-restore-*").split()[0]
    assert (hubs_schema(left_behind), hubs_schema()) == (NEXT_SCHEMA, schema)
    assert hub.check_output(RELEASE) == release
    alices_server.sign_in()
    assert alices_server.holds(token)
    assert alices_server.server_pid() == server
    assert alices_server.server_answers()
    found = login_python("alice", FIND.format(computation.cluster))
    assert found.stdout.splitlines()[-3:] == [f"['{computation.cluster}']", "42", "shut down"], found.stderr
    scenario.wait_until("no job is left", lambda: not scenario.jobs_of("alice"))


def test_what_users_had_lives_through_the_upgrade_and_its_migrations(computation, alices_server, login_python, canary):
    assert login_python("alice", "").returncode == 0  # with the token that she goes on with
    controller = scenario.host("controller")
    jobs = set(controller.check_output("squeue -h -u alice -o %i").split())
    server = alices_server.server_pid()
    newest = hubs_schema()
    scenario.host("hub").check_output(JUPYTERHUB_5)
    assert hubs_schema() != newest
    scenario.host("gateway").check_output(FIRST_GATEWAYS_TABLES)
    assert not gateway_has_facts()

    playbook("upgrade", "-e", f"@{canary}")

    assert hubs_schema() == newest
    # The release before can't read it by now
    refused = run("rollback")
    assert refused.returncode != 0
    assert "rollback_databases=true" in refused.stdout
    assert (hubs_schema(), alices_server.server_answers()) == (newest, True)
    assert gateway_has_facts()
    assert jobs <= set(controller.check_output("squeue -h -u alice -o %i").split())
    assert alices_server.server_pid() == server
    found = login_python("alice", FIND.format(computation.cluster))
    assert found.stdout.splitlines()[-3:] == [f"['{computation.cluster}']", "42", "shut down"], found.stderr
    scenario.wait_until("no job is left", lambda: not scenario.jobs_of("alice"))
    assert jobs <= set(controller.check_output("sacct -nXP -a -S 2020-01-01 -o JobID").split())
