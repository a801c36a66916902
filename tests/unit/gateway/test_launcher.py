"""The launcher: three actions with data that is checked, whoever sends it."""

import io
import json
import os
import pwd
import re
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from slurm_gateway import launcher

CLUSTER = "0123456789abcdef0123456789abcdef"
FAKE = """#!/usr/bin/python3
import json, os, sys
here = os.path.dirname(os.path.abspath(__file__))
call = {"argv": sys.argv, "env": dict(os.environ), "stdin": sys.stdin.read(), "cwd": os.getcwd(),
        "umask": os.umask(0), "staged": sorted(os.listdir(f"{here}/home/.dask-gateway/CLUSTER"))
        if os.path.isdir(f"{here}/home/.dask-gateway/CLUSTER") else None}
with open(f"{here}/calls", "a") as calls:
    calls.write(json.dumps(call) + "\\n")
behaviour = f"{here}/{os.path.basename(sys.argv[0])}.behaviour"
if os.path.exists(behaviour):
    exec(open(behaviour).read())
elif sys.argv[0].endswith("sbatch"):
    print("4711")
"""


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A launcher with a home folder, and an sbatch and scancel that write down how they were called."""
    (tmp_path / "home").mkdir()
    for name in ("sbatch", "scancel"):
        program = tmp_path / name
        program.write_text(FAKE.replace("CLUSTER", CLUSTER))
        program.chmod(0o755)
    config = tmp_path / "launcher.json"
    config.write_text(
        json.dumps(
            {
                "sbatch": str(tmp_path / "sbatch"),
                "scancel": str(tmp_path / "scancel"),
                "slurm_conf": "/etc/slurm/slurm.conf",
                "minimum_uid": 1000,
                "instance": "gateway.test",
                "folder": ".dask-gateway",
                "log_days": 14,
                "umask": "022",
                "directives": ["--constraint=ib"],
            }
        )
    )
    config.chmod(0o644)
    home = tmp_path / "home"
    user = SimpleNamespace(pw_name="alice", pw_dir=str(home), pw_shell="/bin/bash", pw_uid=26001)
    monkeypatch.setattr(launcher, "CONFIG", str(config))
    monkeypatch.setattr(launcher, "CONFIG_OWNER", os.getuid())
    monkeypatch.setattr(launcher, "current_user", lambda config: user)

    def ask(**request):
        data = json.dumps({"cluster": CLUSTER, **request}).encode()
        umask = os.umask(0)
        os.umask(umask)
        try:
            return launcher.answer(data)
        finally:
            os.umask(umask)

    def calls():
        path = tmp_path / "calls"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def behave(program, code):
        (tmp_path / f"{program}.behaviour").write_text(code)

    return SimpleNamespace(ask=ask, calls=calls, behave=behave, home=home, folder=home / ".dask-gateway", path=tmp_path)


def submission(**changes):
    return {
        "action": "submit",
        "kind": "scheduler",
        "script": "#!/bin/bash -l\nexec dask scheduler\n",
        "files": {"dask.crt": "certificate", "dask.pem": "key", "dask.token": "token"},
        "cpus": 2,
        "memory": 2048,
        "time": 90,
        "partition": "standard",
        "account": "climate",
        "qos": "",
        **changes,
    }


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_a_scheduler_is_submitted_with_its_keys_in_place(site):
    assert site.ask(**submission()) == {"ok": True, "job": "4711"}
    (call,) = site.calls()
    assert call["argv"][1:] == [
        "--parsable",
        "--job-name=dask-scheduler-01234567",
        f"--comment=dask-gateway:gateway.test:{CLUSTER}:scheduler:-",
        "--export=ALL",
        f"--chdir={site.home}",
        f"--output={site.home}/.dask-gateway/logs/{CLUSTER}/scheduler.log",
        "--open-mode=append",
        "--no-requeue",
        "--nodes=1",
        "--ntasks=1",
        "--cpus-per-task=2",
        "--mem=2048M",
        "--time=90",
        "--partition=standard",
        "--account=climate",
        "--constraint=ib",
    ]
    assert call["stdin"] == "#!/bin/bash -l\nexec dask scheduler\n"
    assert call["staged"] == ["dask.crt", "dask.pem", "dask.token"]


def test_keys_and_folders_are_the_users_alone(site):
    site.ask(**submission())
    staging = site.folder / CLUSTER
    assert [mode(f) for f in (site.folder, staging, site.folder / "logs", site.folder / "logs" / CLUSTER)] == [
        0o700
    ] * 4
    assert {f.name: (mode(f), f.read_text()) for f in staging.iterdir()} == {
        "dask.crt": (0o600, "certificate"),
        "dask.pem": (0o600, "key"),
        "dask.token": (0o600, "token"),
    }


def test_a_folder_that_others_can_read_is_closed(site):
    site.folder.mkdir(mode=0o755)
    site.folder.chmod(0o777)
    site.ask(**submission())
    assert mode(site.folder) == 0o700


def test_sbatch_has_an_environment_of_its_own_and_the_users_usual_umask(site, monkeypatch):
    monkeypatch.setenv("LD_PRELOAD", "/tmp/evil.so")
    monkeypatch.setenv("SBATCH_ACCOUNT", "other")
    site.ask(**submission())
    (call,) = site.calls()
    call["env"].pop("LC_CTYPE", None)  # set by the fake's own interpreter
    assert call["env"] == {
        "HOME": str(site.home),
        "LANG": "C.UTF-8",
        "LOGNAME": "alice",
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "SHELL": "/bin/bash",
        "SLURM_CONF": "/etc/slurm/slurm.conf",
        "USER": "alice",
    }
    assert call["umask"] == 0o022


def test_many_workers_are_one_job_array(site):
    answer = site.ask(**submission(kind="worker", files={}, array=16, batch="0123456789abcdef"))
    assert answer["ok"]
    (call,) = site.calls()
    assert "--array=0-15" in call["argv"]
    assert f"--comment=dask-gateway:gateway.test:{CLUSTER}:worker:0123456789abcdef" in call["argv"]
    assert f"--output={site.home}/.dask-gateway/logs/{CLUSTER}/worker-%A_%a.log" in call["argv"]


WORKERS = {
    "script": "#!/bin/bash -l\nexec dask worker\n", "cpus": 1, "memory": 512, "array": 4, "batch": "0123456789abcdef",
}  # fmt: skip


def test_the_first_workers_are_submitted_right_after_their_scheduler(site):
    site.behave("sbatch", "print(17 if 'scheduler' in sys.argv[2] else 18)")
    assert site.ask(**submission(workers=WORKERS)) == {"ok": True, "job": "17", "workers": {"job": "18"}}
    scheduler, workers = site.calls()
    assert "--job-name=dask-scheduler-01234567" in scheduler["argv"]
    assert not [argument for argument in scheduler["argv"] if argument.startswith("--array")]
    assert {"--job-name=dask-worker-01234567", "--array=0-3", "--mem=512M", "--constraint=ib"} <= set(workers["argv"])
    assert f"--comment=dask-gateway:gateway.test:{CLUSTER}:worker:0123456789abcdef" in workers["argv"]
    assert workers["stdin"] == WORKERS["script"]


def test_a_refused_scheduler_leaves_its_workers_unsubmitted(site):
    site.behave("sbatch", "print('sbatch: error: Invalid qos specification', file=sys.stderr); sys.exit(1)")
    assert site.ask(**submission(workers=WORKERS))["error"] == "Invalid qos specification"
    assert len(site.calls()) == 1


def test_refused_workers_are_told_beside_the_schedulers_job(site):
    site.behave(
        "sbatch",
        """
if "scheduler" in sys.argv[2]:
    print(17)
else:
    print("sbatch: error: Job violates policy limit", file=sys.stderr)
    sys.exit(1)
""",
    )
    assert site.ask(**submission(workers=WORKERS)) == {
        "ok": True,
        "job": "17",
        "workers": {"source": "sbatch", "error": "Job violates policy limit", "temporary": False},
    }


@pytest.mark.parametrize(
    "workers",
    [[], "many", {**WORKERS, "kind": "worker"}, {**WORKERS, "files": {}}, {**WORKERS, "workers": WORKERS},
     {**WORKERS, "script": "#!/bin/sh\n"}, {**WORKERS, "array": 0}, {"script": "#!/bin/bash -l\n"}],
)  # fmt: skip
def test_workers_in_another_form_are_refused_before_anything_is_submitted(site, workers):
    assert site.ask(**submission(workers=workers))["source"] == "request"
    assert site.ask(**submission(kind="worker", workers=WORKERS))["source"] == "request"
    assert site.calls() == []


def test_a_percent_sign_in_the_home_folders_name_is_no_pattern_of_sbatch(site, monkeypatch):
    home = site.path / "50%j"
    home.mkdir()
    user = SimpleNamespace(pw_name="alice", pw_dir=str(home), pw_shell="/bin/bash", pw_uid=26001)
    monkeypatch.setattr(launcher, "current_user", lambda config: user)
    assert site.ask(**submission())["ok"]
    assert f"--output={site.path}/50%%j/.dask-gateway/logs/{CLUSTER}/scheduler.log" in site.calls()[0]["argv"]


@pytest.mark.parametrize(
    "changes",
    [
        {"cluster": "../../../etc"},
        {"cluster": CLUSTER + "\n"},
        {"cluster": CLUSTER.upper()},
        {"kind": "shell"},
        {"script": "#!/bin/sh\n"},
        {"script": "#!/bin/bash -l\n\0"},
        {"script": "#!/bin/bash -l\n" + "x" * 3_000_000},
        {"script": "#!/bin/bash -l\n\ud800"},
        {"script": ["#!/bin/bash -l\n"]},
        {"files": {"../.bashrc": "x"}},
        {"files": {".ssh": "x"}},
        {"files": {"dask.pem": 7}},
        {"files": ["dask.pem"]},
        {"cpus": 0},
        {"cpus": "2"},
        {"cpus": True},
        {"cpus": 2.5},
        {"cpus": None},
        {"memory": -1},
        {"time": "1-00"},
        {"partition": "-p"},
        {"partition": "a b"},
        {"partition": "standard\n--uid=0"},
        {"account": "--uid=0"},
        {"account": "%u"},
        {"qos": "x" * 65},
        {"qos": {"a": 1}},
        {"array": "0-9"},
        {"array": 100_001},
        {"batch": "x"},
        {"wrap": "id"},
        {"uid": 0},
    ],
    ids=lambda changes: next(iter(f"{k}={str(v)[:20]!r}" for k, v in changes.items())),
)
def test_a_field_in_another_form_is_refused_and_nothing_runs(site, changes):
    answer = site.ask(**submission(**changes))
    assert answer["ok"] is False
    assert answer["source"] == "request"
    assert "\n" not in answer["error"]
    assert site.calls() == []
    assert not site.folder.exists()


@pytest.mark.parametrize(
    "data",
    [b"", b"{}", b"[]", b"null", b'"submit"', b"\xff\xfe", b"[" * 100_000, b'{"action": "start"}', b'{"action": []}',
     b'{"action": {"submit": 1}}', b'{"action": "__class__"}', b"9" * 10_000, b" " * 5_000_000],
    ids=lambda data: repr(data[:20]),
)  # fmt: skip
def test_what_is_no_request_is_refused(site, data):
    answer = launcher.answer(data)
    assert answer["ok"] is False
    assert answer["error"]
    assert site.calls() == []


@pytest.mark.parametrize("link", [".dask-gateway", f".dask-gateway/{CLUSTER}", ".dask-gateway/logs"])
def test_a_folder_that_was_replaced_by_a_link_is_not_followed(site, link):
    elsewhere = site.path / "elsewhere"
    elsewhere.mkdir()
    (site.home / link).parent.mkdir(exist_ok=True)
    (site.home / link).symlink_to(elsewhere)
    answer = site.ask(**submission())
    assert (answer["ok"], answer["source"]) == (False, "folder")
    assert list(elsewhere.iterdir()) == []
    assert site.calls() == []


def test_a_key_file_that_was_replaced_by_a_link_is_not_written_through(site):
    target = site.path / "target"
    target.write_text("untouched")
    staging = site.folder / CLUSTER
    staging.mkdir(parents=True)
    (staging / "dask.pem").symlink_to(target)
    assert site.ask(**submission())["ok"]
    assert target.read_text() == "untouched"
    assert not (staging / "dask.pem").is_symlink()


@pytest.mark.parametrize(
    ("said", "temporary"),
    [
        ("sbatch: error: Batch job submission failed: Invalid qos specification", False),
        ("sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)", True),
        ("sbatch: error: slurm_receive_msg: Socket timed out on send/recv operation", True),
    ],
)
def test_what_sbatch_says_is_passed_on_with_whether_to_try_again(site, said, temporary):
    site.behave("sbatch", f"print({said!r}, file=sys.stderr); sys.exit(1)")
    answer = site.ask(**submission())
    assert answer == {
        "ok": False,
        "source": "sbatch",
        "error": said.removeprefix("sbatch: error: "),
        "temporary": temporary,
    }


def test_an_sbatch_that_takes_too_long_is_ended(site, monkeypatch):
    monkeypatch.setattr(launcher, "COMMAND_TIMEOUT", 0.3)
    site.behave("sbatch", "import time; time.sleep(60)")
    answer = site.ask(**submission())
    assert "did not answer" in answer["error"]
    assert answer["temporary"] is True
    with pytest.raises(ChildProcessError):  # nothing is left of it
        os.waitpid(-1, os.WNOHANG)


def test_an_sbatch_that_dies_is_an_error(site):
    site.behave("sbatch", "os.kill(os.getpid(), 11)")
    assert site.ask(**submission())["error"] == "sbatch ended with code -11 and said nothing"


def test_an_sbatch_that_is_missing_is_an_error(site):
    (site.path / "sbatch").unlink()
    answer = site.ask(**submission())
    assert answer["ok"] is False
    assert "No such file" in answer["error"]


def test_an_sbatch_that_answers_no_job_id_is_an_error(site):
    site.behave("sbatch", "print('Submitted batch job 17 on cluster lotus')")
    assert site.ask(**submission())["ok"] is False


def test_cancel_cancels_reads_the_log_and_removes_the_folder(site):
    site.ask(**submission())
    (site.folder / "logs" / CLUSTER / "scheduler.log").write_text("".join(f"line {i}\n" for i in range(50)))
    answer = site.ask(action="cancel", jobs=["4711", "4712_3"], log="scheduler", lines=3, remove=True)
    assert answer == {
        "ok": True,
        "failed": {},
        "log": ["line 47", "line 48", "line 49"],
        "removed": True,
        "problems": [],
    }
    assert site.calls()[-1]["argv"][1:] == ["4711", "4712_3"]
    assert not (site.folder / CLUSTER).exists()
    assert (site.folder / "logs" / CLUSTER / "scheduler.log").exists()


def test_a_line_for_the_user_is_added_to_a_log(site):
    site.ask(**submission())
    log = site.folder / "logs" / CLUSTER / "scheduler.log"
    log.write_text("line 1\n")
    answer = site.ask(action="cancel", jobs=[], log="scheduler", note="dask-gateway: save your results – now")
    assert answer["log"] == ["line 1", "dask-gateway: save your results – now"]
    assert log.read_text() == "line 1\ndask-gateway: save your results – now\n"


def test_no_line_is_added_to_what_is_no_log(site):
    logs = site.folder / "logs" / CLUSTER
    logs.mkdir(parents=True)
    (site.path / "elsewhere").write_text("")
    (logs / "scheduler.log").symlink_to(site.path / "elsewhere")
    os.mkfifo(logs / "worker-5.log")
    for log in ("scheduler", "worker-5", "worker-6"):
        answer = site.ask(action="cancel", jobs=[], log=log, note="hello")
        assert answer["ok"]
        assert answer["problems"]
    assert (site.path / "elsewhere").read_text() == ""
    assert not (logs / "worker-6.log").exists()


def test_the_scheduler_is_cancelled_after_its_workers_have_had_time_to_close(site, monkeypatch):
    monkeypatch.setattr(launcher, "CLOSING_TIME", 0.2)
    began = time.monotonic()
    assert site.ask(action="cancel", jobs=["4712_0", "4712_1"], last="4711")["failed"] == {}
    assert time.monotonic() - began >= 0.2
    assert [call["argv"][1:] for call in site.calls()] == [["4712_0", "4712_1"], ["4711"]]


def test_jobs_are_cancelled_when_the_staging_folder_is_gone(site):
    answer = site.ask(action="cancel", jobs=["4711"], remove=True)
    assert answer["ok"]
    assert answer["removed"]
    assert site.calls()[-1]["argv"][1:] == ["4711"]


def test_jobs_are_cancelled_when_the_folder_cannot_be_removed(site):
    site.home.joinpath(".dask-gateway").symlink_to(site.path)
    answer = site.ask(action="cancel", jobs=["4711"], remove=True)
    assert answer["removed"] is False
    assert answer["problems"]
    assert site.calls()[-1]["argv"][1:] == ["4711"]


def test_the_folder_is_removed_when_a_job_cannot_be_cancelled(site):
    site.ask(**submission())
    site.behave("scancel", "print('scancel: error: Unable to contact slurm controller', file=sys.stderr); sys.exit(1)")
    answer = site.ask(action="cancel", jobs=["4711", "4712"], remove=True)
    assert answer["failed"] == dict.fromkeys(["4711", "4712"], "Unable to contact slurm controller")
    assert answer["removed"]


def test_a_job_that_has_ended_counts_as_cancelled(site):
    site.behave(
        "scancel",
        "print('scancel: error: Kill job error on job id 4711: Invalid job id specified', file=sys.stderr)\n"
        "print('scancel: error: Kill job error on job id 4712_3: Access/permission denied', file=sys.stderr)\n"
        "sys.exit(1)",
    )
    answer = site.ask(action="cancel", jobs=["4711", "4712_3"])
    assert list(answer["failed"]) == ["4712_3"]


def test_a_link_or_a_pipe_in_place_of_a_log_is_not_read(site):
    logs = site.folder / "logs" / CLUSTER
    logs.mkdir(parents=True)
    (site.path / "secret").write_text("secret")
    (logs / "scheduler.log").symlink_to(site.path / "secret")
    os.mkfifo(logs / "worker-5.log")
    assert site.ask(action="cancel", jobs=[], log="scheduler")["log"] == []
    assert site.ask(action="cancel", jobs=[], log="worker-5")["log"] == []


def test_a_link_in_place_of_the_staging_folder_is_removed_as_a_link(site):
    elsewhere = site.path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "keep").touch()
    site.folder.mkdir()
    (site.folder / CLUSTER).symlink_to(elsewhere)
    assert site.ask(action="cancel", jobs=[], remove=True)["removed"]
    assert (elsewhere / "keep").exists()
    assert not (site.folder / CLUSTER).is_symlink()


@pytest.mark.parametrize(
    "changes",
    [{"jobs": ["1;id"]}, {"jobs": ["-u"]}, {"jobs": ["0"]}, {"jobs": "4711"}, {"jobs": [4711]}, {"last": "4711;id"},
     {"log": "../../x"},
     {"log": "worker-%j"}, {"lines": 100_000}, {"remove": "yes"}, {"signal": "KILL"},
     {"note": "two\nlines"}, {"note": "\x1b[2J"}, {"note": "x" * 2001}, {"note": 1}],
    ids=str,
)  # fmt: skip
def test_a_cancellation_in_another_form_is_refused(site, changes):
    assert site.ask(action="cancel", **{"jobs": ["4711"], **changes})["source"] == "request"
    assert site.calls() == []


def test_tidy_removes_expired_logs_and_left_folders_and_nothing_else(site):
    old, kept, young = ("a" * 32, "b" * 32, "c" * 32)
    for name in (old, kept, young):
        (site.folder / name).mkdir(parents=True)
        (site.folder / "logs" / name).mkdir(parents=True)
        (site.folder / "logs" / name / "scheduler.log").write_text("x")
    (site.folder / "notes").mkdir()
    long_ago = time.time() - 15 * 86400
    for name in (old, kept):
        for path in (site.folder / "logs" / name / "scheduler.log", site.folder / "logs" / name, site.folder / name):
            os.utime(path, (long_ago, long_ago))
    answer = launcher.answer(json.dumps({"action": "tidy", "keep": [kept]}).encode())
    assert (answer["ok"], sorted(set(answer["removed"])), answer["problems"]) == (True, [old], [])
    assert answer["left"] == 4  # two folders, two with logs
    assert sorted(path.name for path in site.folder.iterdir()) == sorted([kept, young, "logs", "notes"])
    assert sorted(path.name for path in (site.folder / "logs").iterdir()) == sorted([kept, young])


# -- what a user may have made of the folders ---------------------------------------------------------------------


def test_a_folder_thousands_of_levels_deep_keeps_no_job_and_no_key_alive(site):
    site.ask(**submission())
    folder = os.open(site.folder / CLUSTER, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("d", dir_fd=folder)
        folder, parent = os.open("d", os.O_RDONLY, dir_fd=folder), folder
        os.close(parent)
    os.close(folder)
    try:
        answer = site.ask(action="cancel", jobs=["4711"], remove=True)
        assert (answer["ok"], answer["failed"], answer["removed"]) == (True, {}, False)
        assert "folders deep" in answer["problems"][0]
        assert [path.name for path in (site.folder / CLUSTER).iterdir()] == ["d"]
    finally:
        # Python's own rmtree, by which pytest tidies up, can't
        subprocess.run(["rm", "-rf", site.folder], check=True)


@pytest.mark.parametrize("what", ["dask.crt", "dask.pem", "dask.token"])
def test_what_cannot_be_removed_does_not_keep_the_rest(site, monkeypatch, what):
    site.ask(**submission())
    unlink = os.unlink

    def stuck(name, **kwargs):
        if name == what:
            raise OSError(16, "Device or resource busy")
        unlink(name, **kwargs)

    monkeypatch.setattr(os, "unlink", stuck)
    answer = site.ask(action="cancel", jobs=["4711"], remove=True)
    assert (answer["ok"], answer["removed"]) == (True, False)
    assert "busy" in answer["problems"][0]
    assert [path.name for path in (site.folder / CLUSTER).iterdir()] == [what]


def test_more_files_than_can_be_removed_in_a_while_hold_up_nothing(site, monkeypatch):
    site.ask(**submission())
    for number in range(3000):
        (site.folder / CLUSTER / f"{number}").touch()
    monkeypatch.setattr(launcher, "REMOVAL_TIME", 0)
    answer = site.ask(action="cancel", jobs=["4711"], remove=True)
    assert (answer["ok"], answer["failed"], answer["removed"]) == (True, {}, False)
    monkeypatch.setattr(launcher, "REMOVAL_TIME", 20)
    assert site.ask(action="cancel", jobs=["4711"], remove=True)["removed"]
    assert not (site.folder / CLUSTER).exists()


def test_folders_that_their_owner_closed_are_removed(site):
    """As a user and not as root, to whom nothing is closed."""
    if os.getuid() != 0:
        program = [sys.executable, "-c"]
    else:
        program = ["setpriv", "--reuid=65534", "--clear-groups", "--regid=65534", sys.executable, "-c"]
    place = Path("/tmp") / f"closed-{os.getpid()}"
    code = f"""
import os, sys, time
sys.path.insert(0, {str(Path(launcher.__file__).parent)!r})
import launcher
top = {str(place)!r}
os.makedirs(f"{{top}}/x/closed/within")
open(f"{{top}}/x/closed/within/file", "w").close()
os.mkdir(f"{{top}}/x/read-only")
open(f"{{top}}/x/read-only/file", "w").close()
os.chmod(f"{{top}}/x/closed", 0)
os.chmod(f"{{top}}/x/read-only", 0o500)
launcher.remove_folder("x", os.open(top, os.O_RDONLY), time.monotonic() + 10)
print(os.listdir(top))
os.rmdir(top)
"""
    done = subprocess.run([*program, code], capture_output=True, text=True, check=False, cwd="/")
    assert done.stdout == "[]\n", done.stderr


def test_a_hard_link_in_place_of_a_key_is_not_written_through(site):
    target = site.path / "target"
    target.write_text("untouched")
    staging = site.folder / CLUSTER
    staging.mkdir(parents=True)
    (staging / "dask.pem").hardlink_to(target)
    assert site.ask(**submission())["ok"]
    assert target.read_text() == "untouched"
    assert (staging / "dask.pem").read_text() == "key"


@pytest.mark.parametrize("place", [".dask-gateway", ".dask-gateway/logs", f".dask-gateway/{CLUSTER}"])
@pytest.mark.parametrize("kind", ["pipe", "file"])
def test_a_pipe_or_a_file_in_place_of_a_folder_holds_up_nothing(site, place, kind):
    path = site.home / place
    path.parent.mkdir(exist_ok=True)
    os.mkfifo(path) if kind == "pipe" else path.touch()
    assert site.ask(**submission())["source"] == "folder"
    answer = site.ask(action="cancel", jobs=["4711"], log="scheduler", note="hello", remove=True)
    assert (answer["ok"], answer["failed"]) == (True, {})
    assert [Path(call["argv"][0]).name for call in site.calls()] == ["scancel"]
    assert launcher.answer(json.dumps({"action": "tidy", "keep": []}).encode())["ok"] is (place != ".dask-gateway")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder away")
@pytest.mark.parametrize("place", [".dask-gateway", ".dask-gateway/logs", f".dask-gateway/{CLUSTER}"])
def test_somebody_elses_folder_is_not_used_and_keeps_no_job_alive(site, place):
    site.ask(**submission())
    os.chown(site.home / place, 12345, 12345)
    answer = site.ask(**submission(files={"dask.pem": "other"}))
    assert (answer["ok"], answer["error"]) == (False, f"the folder '{Path(place).name}' belongs to somebody else")
    answer = site.ask(action="cancel", jobs=["4711"], log="scheduler", remove=True)
    assert (answer["ok"], answer["failed"]) == (True, {})
    assert site.calls()[-1]["argv"][1:] == ["4711"]
    assert launcher.answer(json.dumps({"action": "tidy", "keep": []}).encode())


def test_a_program_of_slurm_that_is_missing_is_not_blamed_on_the_users_folder(site):
    for name in ("sbatch", "scancel"):
        (site.path / name).unlink()
    answer = site.ask(**submission())
    assert (answer["ok"], answer["source"], answer["temporary"]) == (False, "launcher", True)
    assert "sbatch can't be run" in answer["error"]
    assert "can't be run" in site.ask(action="cancel", jobs=["4711"])["failed"]["4711"]


def test_a_launcher_that_takes_too_long_says_so_and_ends(site, monkeypatch, capfd):
    site.behave("sbatch", "import time; time.sleep(30)")
    monkeypatch.setattr(launcher, "TIME", 1)
    data = json.dumps({"cluster": CLUSTER, **submission()}).encode()
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(data)))
    handler, umask = signal.getsignal(signal.SIGALRM), os.umask(0)
    began = time.monotonic()
    try:
        launcher.main()
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, handler)
        os.umask(umask)
    assert time.monotonic() - began < 10
    assert json.loads(capfd.readouterr()[0]) == {
        "ok": False, "source": "launcher", "error": "not done in 1 s", "temporary": True,
    }  # fmt: skip


@pytest.mark.parametrize("closed", ["0<&-", "1>&-", "2>&-", "0<&- 1>&- 2>&-"])
def test_a_launcher_whose_files_are_closed_ends_without_a_traceback(closed):
    call = f'exec "$0" -IS "$1" {closed}'
    done = subprocess.run(
        ["bash", "-c", call, sys.executable, launcher.__file__], input=b"{}", capture_output=True, check=False, cwd="/",
        timeout=20,
    )  # fmt: skip
    assert done.stderr == b""
    assert "1>&-" in closed or json.loads(done.stdout)["ok"] is False


@pytest.mark.parametrize("uid", [0, 1, 107, 999])
def test_jobs_are_never_submitted_for_root_or_a_system_user(monkeypatch, uid):
    monkeypatch.setattr(os, "getuid", lambda: uid)
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    with pytest.raises(launcher.Refused):
        launcher.current_user({"minimum_uid": 1000})


def test_no_configuration_allows_root(monkeypatch):
    monkeypatch.setattr(os, "getuid", lambda: 0)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(launcher.Refused):
        launcher.current_user({"minimum_uid": 0})


def test_a_configuration_that_others_can_write_is_not_used(site):
    Path(launcher.CONFIG).chmod(0o666)
    answer = site.ask(**submission())
    assert answer["ok"] is False
    assert site.calls() == []


def test_the_launcher_needs_the_standard_library_only():
    """It runs without site-packages, from a file of its own, and answers a line even when nothing is configured."""
    done = subprocess.run(
        [sys.executable, "-IS", launcher.__file__], input=b"{}", capture_output=True, check=False, cwd="/"
    )
    assert done.returncode == 0
    assert done.stderr == b""
    assert re.fullmatch(rb'\{"ok": false, .*\}\n', done.stdout)
    assert Path(launcher.__file__).read_text().startswith("#!/usr/bin/python3 -IS\n")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=12), children, max_size=4),
    max_leaves=12,
)
fields = [
    "cluster", "kind", "script", "files", "cpus", "memory", "time", "partition", "account", "qos", "array", "batch",
    "jobs", "log", "lines", "note", "remove", "keep",
]  # fmt: skip
garbage = st.binary(max_size=200) | st.dictionaries(
    st.sampled_from([*fields, "action", "other"]), json_values, max_size=8
).flatmap(
    lambda request: st.sampled_from(["submit", "cancel", "tidy", "start", None]).map(
        lambda action: json.dumps({**request, "action": action}).encode()
    )
)


@given(data=garbage)
@settings(
    deadline=None,
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", "300")),
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_garbage_is_answered_with_a_line_and_runs_nothing(site, data):
    answer = launcher.answer(data)
    line = json.dumps(answer)
    assert "\n" not in line
    assert isinstance(answer["ok"], bool)
    for call in site.calls():
        assert Path(call["argv"][0]).name in ("sbatch", "scancel")


@given(
    changes=st.dictionaries(
        st.sampled_from([f for f in fields if f in submission()]), json_values, min_size=1, max_size=2
    )
)
@settings(
    deadline=None,
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", "300")),
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_a_submission_with_garbage_in_it_calls_sbatch_with_options_of_the_known_form_or_not_at_all(site, changes):
    before = len(site.calls())
    answer = site.ask(**submission(**changes))
    calls = site.calls()[before:]
    assert bool(calls) == answer["ok"]
    for call in calls:
        for argument in call["argv"][1:]:
            assert re.fullmatch(r"--[a-z-]+(=[A-Za-z0-9_./:,@+%-]+)?", argument)


def test_the_user_is_the_one_whom_the_system_names(monkeypatch):
    monkeypatch.setattr(os, "getuid", lambda: 26001)
    monkeypatch.setattr(os, "geteuid", lambda: 26001)
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: SimpleNamespace(pw_name="alice", pw_dir="relative"))
    with pytest.raises(launcher.Failed):
        launcher.current_user({"minimum_uid": 1000})
