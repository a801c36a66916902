"""How the start in an environment is timed, on which files, and what the slow tree does."""

import errno
import subprocess
import time
from pathlib import Path

import pytest
from bench import environment_timer, environments, slow_tree, views
from bench.record import Record

COPY, PLACE = "/var/lib/jaspy/jaspy3.11-v20261101-0123456789ab", "/apps/jaspy/envs/jaspy3.11-v20261101-0123456789ab"
FSTAB = (
    f"# {COPY} {PLACE} none bind 0 0\n/dev/sda / ext4 defaults 0 1\n{COPY} {PLACE} none bind,ro,nofail,_netdev 0 0\n"
)


@pytest.fixture
def script(tmp_path):
    def write(text: str) -> str:
        (tmp_path / "script.sh").write_text(text)
        return str(tmp_path / "script.sh")

    return write


def test_a_script_is_timed_until_it_ends_and_a_worker_until_it_says_that_it_is_registered(script):
    assert 0.2 < environment_timer.measure(script("sleep 0.2")) < 5
    began = time.perf_counter()
    worker = script("echo starting >&2; sleep 0.2; echo '  Registered to: tcp://x' >&2; exec sleep 30")
    assert 0.2 < environment_timer.measure(worker, "Registered to:") < 5
    assert time.perf_counter() - began < 10, "the worker was told to end"


def test_a_script_that_fails_and_a_worker_that_never_registers_are_no_measurement(script):
    with pytest.raises(SystemExit, match=r"code 7: no module\n"):
        environment_timer.measure(script("echo no module >&2; exit 7"))
    with pytest.raises(SystemExit, match="code 0: bye"):
        environment_timer.measure(script("echo bye >&2"), "Registered to:")


def test_a_script_has_nothing_of_the_shell_that_times_it(script, monkeypatch):
    monkeypatch.setenv("MODULEPATH", "/elsewhere")
    environment_timer.measure(script('[ -z "$MODULEPATH" ]'))


def test_the_slow_tree_serves_what_is_there_after_a_wait_and_notes_each_operation(tmp_path):
    tree, log = tmp_path / "tree", tmp_path / "log"
    tree.mkdir()
    (tree / "file").write_text("contents")
    (tree / "link").symlink_to("file")
    slow = slow_tree.SlowTree(str(tree), 0.02, log)
    began = time.perf_counter()
    handle = slow("open", "/file", 0)
    assert slow("read", "/file", 4, 2, handle) == b"nten"
    assert slow("release", "/file", handle) == 0
    assert time.perf_counter() - began >= 0.06
    assert slow("readlink", "/link") == "file"
    assert sorted(slow("readdir", "/", None)) == [".", "..", "file", "link"]
    assert slow("getattr", "/file")["st_size"] == 8
    with pytest.raises(OSError) as missing:
        slow("getattr", "/none")
    assert missing.value.errno == errno.ENOENT
    log.write_text("")  # as whoever counts does
    slow("getattr", "/file")
    assert log.read_text() == "getattr /file\n"


def test_the_copies_of_releases_are_found_among_what_a_host_mounts():
    mounted = views.copies(FSTAB)
    assert mounted == [(COPY, PLACE)]
    path = "# folders\n/usr/share/modules/modulefiles\n/var/lib/jaspy/modulefiles\n/apps/modulefiles\n"
    assert views.without_copies(path, mounted) == path.replace("/var/lib/jaspy/modulefiles\n", "")


def test_a_view_has_the_copies_only_where_it_is_to_have_them():
    mounted = views.copies(FSTAB)
    modules_path = ["mount", "--bind", f"{views.FOLDER}/modulespath", views.MODULES_PATH]
    tree = ["mount", "--bind", "/apps", f"{views.FOLDER}/tree"]
    assert views.below(mounted, slow=False, staged=False) == [["umount", PLACE], modules_path]
    assert views.below(mounted, slow=True, staged=False) == [["umount", PLACE], modules_path, tree]
    assert views.below(mounted, slow=True, staged=True) == [tree]


def test_a_process_that_does_not_become_what_it_is_to_be_is_told_and_none_is_left():
    with (
        pytest.raises(RuntimeError, match=r"code 3 of bash .*: no fuse"),
        views.process(["bash", "-c", "echo no fuse >&2; exit 3"], lambda pid: False),
    ):
        pass
    with views.process(["sleep", "60"], lambda pid: True) as pid:
        assert Path(f"/proc/{pid}").exists()
    assert not Path(f"/proc/{pid}").exists()


def test_what_is_timed_is_what_the_gateways_jobs_run():
    worker = environments.scripts("tcp://x:1")["worker.sh"]
    assert worker.startswith("#!/bin/bash -l\n")
    assert "module load jaspy" in worker
    assert f"{views.FOLDER}/gateway_job.py worker tcp://x:1" in worker
    subprocess.run(["bash", "-n"], input=worker, text=True, check=True)


class FakeView:
    """A view whose runs take a time of their own."""

    def __init__(self, seconds, error=None):
        self.seconds, self.error, self.runs = seconds, error, 0

    def operations(self):
        return ["getattr /file"] * 100

    def run(self, command, user):
        self.runs += 1
        if self.error:
            raise self.error
        return f"{self.seconds}\n"


@pytest.fixture
def rows(monkeypatch):
    monkeypatch.setattr(environments.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(environments, "drop_page_cache", lambda: "")
    return {environments.LOCAL: FakeView(1.0), environments.SLOW: FakeView(4.0), environments.STAGED: FakeView(1.25)}


def figure(record, quantity, row):
    return record.figure(environments.PART, quantity, row, "median")


def test_each_quantity_is_measured_warm_and_cold_in_turns_and_judged(rows):
    record = Record()
    environments.measure(record, rows, 3)
    # Three quantities with three runs each of a warm and a cold cache, and those that fill the warm ones
    assert {view.runs for view in rows.values()} == {3 * (3 + 3 + 1)}
    worker = f"{environments.WORKER}, {environments.COLD}"
    assert figure(record, worker, environments.SLOW) == 4.0
    assert figure(record, f"{environments.OPERATIONS}: {worker}", environments.SLOW) == 100
    assert figure(record, f"{environments.OPERATIONS}: {worker}", environments.LOCAL) is None
    assert [goal.check(record, {}) for goal in environments.GOALS] == [(1.25, 1.3), (1.25, 1.3)]


def test_a_run_that_fails_is_in_the_record_and_a_cache_that_cannot_be_dropped_is_told(rows, monkeypatch):
    rows[environments.SLOW].error = RuntimeError("node1: code 1")
    monkeypatch.setattr(environments, "drop_page_cache", lambda: "not permitted")
    record = Record()
    environments.measure(record, rows, 2)
    assert record.failures() == 3 * 2
    skipped = [one for one in record.series() if "skipped" in one]
    assert {one["skipped"] for one in skipped} == {"not permitted"}
    assert len(skipped) == 3 * 3
