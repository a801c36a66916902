"""The gateway's log: what a line says, and what it never says."""

import logging
import re
import shlex
from types import SimpleNamespace

import pytest

from slurm_gateway import logs

from .conftest import until

NAME, WORKER = "a" * 32, "b" * 32


class Lines(logging.Handler):
    """Keeps the lines that would be written."""

    def __init__(self):
        super().__init__()
        self.lines = []

    def emit(self, record):
        try:
            self.lines.append(self.format(record))
        except Exception:
            self.handleError(record)  # as each of Python's own handlers does

    def about(self, text):
        """The fields of the last line with this text."""
        line = next(line for line in reversed(self.lines) if text in line)
        return parsed(line)


def parsed(line):
    """The fields of a line of logfmt, read by other rules than those it was written by."""
    line = re.sub(r"^<\d>", "", line)
    return dict(word.partition("=")[::2] for word in shlex.split(line))


@pytest.fixture
def log():
    log = logging.Logger("DaskGateway")
    log.addHandler(Lines())
    logs.write_logfmt(log)
    yield log
    logging.getLogger("asyncio").handlers.clear()


@pytest.fixture
def lines(log):
    return log.handlers[0]


@pytest.fixture
def db():
    cluster = SimpleNamespace(name=NAME, username="alice", state={"job_id": "17"}, workers={})
    cluster.workers[WORKER] = SimpleNamespace(name=WORKER, state={"job_id": "18_3"})
    known = {NAME: cluster}
    return SimpleNamespace(get_cluster=known.get, name_to_cluster=known)


def test_a_line_says_which_cluster_user_and_job_it_is_about(log, lines, db):
    logs.tell_about(log, db)
    log.info("Cluster %s is running", NAME)  # as the server itself says it
    assert parsed(lines.lines[0]) == {
        "level": "info", "msg": f"Cluster {NAME} is running", "cluster": NAME, "user": "alice", "job": "17",
    }  # fmt: skip


def test_a_line_about_a_worker_says_its_cluster_and_its_own_job(log, lines, db):
    logs.tell_about(log, db)
    log.info("Worker %s is running", WORKER)
    fields = parsed(lines.lines[0])
    assert (fields["cluster"], fields["worker"], fields["job"]) == (NAME, WORKER, "18_3")


def test_what_is_said_explicitly_counts(log, lines, db):
    logs.tell_about(log, db)
    log.warning("Workers failed", extra={"cluster": NAME, "job": "99", "reason": "out_of_memory"})
    fields = parsed(lines.lines[0])
    assert (fields["user"], fields["job"], fields["reason"]) == ("alice", "99", "out_of_memory")


def test_a_line_about_no_cluster_has_no_such_fields(log, lines, db):
    logs.tell_about(log, db)
    log.info("Cluster %s is unknown", "c" * 32)
    assert parsed(lines.lines[0]) == {"level": "info", "msg": f"Cluster {'c' * 32} is unknown"}


def test_a_record_is_one_line_whatever_stands_in_it(log, lines):
    try:
        raise ValueError("first\nsecond")
    except ValueError:
        log.error('forged"\n<2>level=info msg="all is well" user=root\x1b[2J \\', exc_info=True)
    (line,) = lines.lines
    assert "\n" not in line
    assert line.isprintable()
    assert line.startswith("<3>level=error ")
    fields = parsed(line)
    assert set(fields) == {"level", "msg", "exception"}
    assert "user=root" in fields["msg"]
    assert "test_logs.py" in fields["exception"]


def test_a_record_that_is_wrong_in_itself_breaks_nothing(log, lines, db, monkeypatch):
    logs.tell_about(log, db)
    monkeypatch.setattr(logging, "raiseExceptions", False)
    log.info("%d clusters", "two")
    log.info("after it")
    assert "after it" in lines.lines[-1]


@pytest.mark.parametrize(
    "text",
    [
        "GET /api/v1/clusters/?token=s3cr3t-v4lue&x=1",
        "headers: {'Authorization': 'token s3cr3t-v4lue'}",
        "Authorization: Bearer s3cr3t-v4lue",
        '{"api_token": "s3cr3t-v4lue"}',
        "password=s3cr3t-v4lue",
    ],
)
def test_a_secret_that_came_into_a_message_is_not_written(log, lines, text):
    log.info(text)
    assert "s3cr3t" not in lines.lines[0]
    assert "***" in lines.lines[0]


def test_the_event_loops_complaints_are_written_in_the_same_form(log, lines):
    logging.getLogger("asyncio").error("Task exception was never retrieved")
    assert parsed(lines.lines[0])["logger"] == "asyncio"


@pytest.fixture
def lines_of(site):
    """``lines_of(test)``: what a gateway logs while the coroutine function `test` does something with it."""

    def run(test, **settings):
        async def body(site):
            log, handler = site.backend.log, Lines()
            log.handlers.append(handler)
            level = log.level
            log.setLevel("DEBUG")
            logs.write_logfmt(log)
            end = logs.tell_about(log, site.backend.db)
            try:
                await test(site)
            finally:
                end()
                log.setLevel(level)
                log.handlers.remove(handler)
                logging.getLogger("asyncio").handlers.clear()
            return handler

        return site(body, **settings)

    return run


def test_all_that_happens_to_a_cluster_can_be_found_by_its_name_and_its_user(lines_of):
    names = []

    async def test(site):
        names.append(await site.running())
        site.batch.end(site.cluster(names[0]).state["job_id"], "OUT_OF_MEMORY")
        await until(lambda: site.cluster(names[0]).status.name == "FAILED")

    lines = lines_of(test)
    for text in ("is running", "failed: The scheduler", "stopped"):
        fields = lines.about(text)
        assert (fields["cluster"], fields["user"], fields["job"]) == (names[0], "alice", "100"), text
    assert lines.about("failed: The scheduler")["reason"] == "out_of_memory"


def test_no_secret_of_a_cluster_is_logged_even_when_the_database_fails(lines_of):
    secrets = []

    async def test(site):
        name = await site.running(environment_variables={"AWS_SECRET": "users-own-secret"})
        cluster = site.cluster(name)
        users_own = {"AWS_SECRET": "users-own-secret"}
        secrets.extend([cluster.token, cluster.tls_key.decode().splitlines()[1], "users-own-secret"])
        with site.backend.db.db.begin() as connection:
            connection.exec_driver_sql("DROP TABLE workers")
            connection.exec_driver_sql("ALTER TABLE clusters RENAME TO elsewhere")
        async with site.client() as gateway:
            with pytest.raises(Exception, match="500"):
                await gateway.submit(environment_variables={"AWS_SECRET": "users-own-secret"})
        try:
            site.backend.db.update_cluster(cluster, options=users_own)
        except Exception:
            site.backend.log.error("The database failed", exc_info=True)

    text = "\n".join(lines_of(test).lines)
    assert "no such table" in text
    assert [secret for secret in secrets if secret in text] == []
