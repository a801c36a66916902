"""How the answers of SLURM's commands are read."""

import asyncio

import pytest

from slurm_gateway.slurm import Job, Slurm, SlurmError, parse_accounting, parse_associations, parse_comment, parse_job
from slurm_gateway.slurm import parse_jobs as parse

CLUSTER = "0123456789abcdef0123456789abcdef"


@pytest.mark.parametrize(
    "state",
    ["PENDING", "RUNNING", "SUSPENDED", "COMPLETING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED",
     "RESIZING", "RESV_DEL_HOLD", "SIGNALING", "SPECIAL_EXIT", "STAGE_OUT", "STOPPED", "A_STATE_OF_SLURM_30"],
)  # fmt: skip
def test_every_state_that_is_not_final_is_that_of_a_living_job(state):
    assert not Job("1", state).over


@pytest.mark.parametrize(
    "state", ["COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "BOOT_FAIL"]
)
def test_final_states_are_those_of_jobs_that_are_over(state):
    assert Job("1", state).over


def squeue_line(*fields):
    return "SEP".join(("", *fields, "")) + "\n"


def test_jobs_of_squeue():
    comment = f"dask-gateway:gw:{CLUSTER}:worker:-"
    line = squeue_line("12_3", "PENDING", "Priority", "alice", comment, "N/A", "2026-11-23T10:00:00", "2")
    jobs = parse(line + "squeue: something else\n\n", "SEP")
    assert list(jobs) == ["12_3"]
    job = jobs["12_3"]
    assert (job.state, job.reason, job.user, job.cpus, job.array) == ("PENDING", "Priority", "alice", 2, "12")
    assert parse_comment(job.comment) == ("gw", CLUSTER, "worker", "-")


def test_a_comment_with_line_breaks_says_nothing_about_the_jobs_of_others(tmp_path):
    """What squeue prints of a comment is what its user wrote: here a whole line about a job of bob's."""
    squeue = tmp_path / "squeue"
    squeue.write_text(
        """#!/usr/bin/python3
import sys
form = next(a for a in sys.argv if a.startswith("--format=")).removeprefix("--format=")
def line(**values):
    text = form
    for key, value in values.items():
        text = text.replace("%" + key, value)
    return text
forged = "\\x1f".join(["7", "FAILED", "None", "bob", "dask-gateway:gw:" + "f" * 32 + ":worker:-", "", "", "1"])
for i, user, comment in (("7", "bob", "mine"), ("8", "alice", "x\\n" + forged + "\\n"), ("9", "carol", "")):
    print(line(i=i, T="RUNNING", r="None", u=user, k=comment, S="N/A", V="2026-11-23T10:00:00", C="2"))
"""
    )
    squeue.chmod(0o755)
    slurm = Slurm(squeue=str(squeue))
    jobs = asyncio.run(slurm.jobs())
    assert {job.id: (job.user, job.state) for job in jobs.values()} == {
        "7": ("bob", "RUNNING"),
        "8": ("alice", "RUNNING"),
        "9": ("carol", "RUNNING"),
    }
    assert jobs["7"].comment == "mine"


@pytest.mark.parametrize("comment", ["(null)", "", "dask-gateway", f"dask-gateway:gw:{CLUSTER}", "mine"])
def test_a_job_without_the_mark_is_nobody_elses(comment):
    assert parse_comment(comment) is None


def test_a_job_of_scontrol():
    out = (
        "JobId=17 JobName=dask-scheduler-01234567 UserId=alice(26001) GroupId=users(27000) MCS_label=N/A "
        "JobState=FAILED Reason=NonZeroExitCode Dependency=(null) Requeue=0 Restarts=0 BatchFlag=1 ExitCode=3:0 "
        "StartTime=2026-11-23T10:00:00\n"
    )
    job = parse_job(out, "17")
    assert (job.state, job.reason, job.exit_code, job.user) == ("FAILED", "NonZeroExitCode", "3:0", "alice")
    assert parse_job(out, "18") is None


def test_a_task_of_an_array_of_scontrol():
    out = "JobId=19 ArrayJobId=17 ArrayTaskId=2 JobState=TIMEOUT Reason=TimeLimit ExitCode=0:15\n"
    assert parse_job(out, "17_2").state == "TIMEOUT"


def test_the_last_record_of_sacct_counts():
    out = "17|NODE_FAIL|0:0|None|alice\n17|CANCELLED by 26001|0:15|None|alice\n"
    assert parse_accounting(out, "17").state == "CANCELLED"
    assert parse_accounting("", "17") is None


def test_associations():
    out = "climate||normal,standard|climate\nother|debug|standard|climate\n"
    assert parse_associations(out) == [
        ("climate", "", ["normal", "standard"], "climate"),
        ("other", "debug", ["standard"], "climate"),
    ]


@pytest.mark.parametrize("code", ["exit 1", "echo half an answer; exit 1", "kill -9 $$", "sleep 60"])
def test_a_squeue_that_fails_gives_no_answer_instead_of_an_empty_one(tmp_path, code):
    squeue = tmp_path / "squeue"
    squeue.write_text(f"#!/bin/bash\n{code}\n")
    squeue.chmod(0o755)
    with pytest.raises(SlurmError):
        asyncio.run(Slurm(squeue=str(squeue), timeout=0.5).jobs())


def test_a_squeue_that_is_not_there_gives_no_answer():
    with pytest.raises(SlurmError):
        asyncio.run(Slurm(squeue="/nonexistent/squeue").jobs())


@pytest.mark.parametrize(
    ("out", "expected"),
    [
        ("TaskPlugin              = task/affinity,task/cgroup\nCgroup Support Configuration:\n"
         "ConstrainRAMSpace       = yes\n", True),
        ("TaskPlugin              = task/cgroup\nConstrainRAMSpace       = no\n", False),
        ("TaskPlugin              = task/affinity\nConstrainRAMSpace       = yes\n", False),
        ("JobAcctGatherParams     = OverMemoryKill,NoShared\n", True),
        ("JobAcctGatherParams     = (null)\n", False),
    ],
)  # fmt: skip
def test_whether_slurm_holds_jobs_to_their_memory(monkeypatch, out, expected):
    async def ask(self, *command):
        return out

    monkeypatch.setattr(Slurm, "_ask", ask)
    batch = Slurm()
    asyncio.run(batch.learn())
    assert batch.enforces_memory is expected
