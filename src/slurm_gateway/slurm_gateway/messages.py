"""Sentences for the people who read them: what happened, and what to do about it."""

import re

from . import gateway_job

LIMIT = 1500


def one_line(value, limit=LIMIT):
    """A text as one printable line of bounded length: the form in which an HTTP error may carry it."""
    line = re.sub(r"\s+", " ", "".join(c if c.isprintable() or c.isspace() else "?" for c in str(value))).strip()
    return line if len(line) <= limit else line[: limit - 1].rstrip() + "…"


# What SLURM says when it refuses a job or lets it wait, and what the user can do about it.
_ADVICE = [
    (
        r"account/partition|invalid account|InvalidAccount|AccountNotAllowed",
        "Choose another 'account' (or 'partition') in the cluster's options; `sacctmgr show assoc user=$USER` "
        "lists those that you may use.",
    ),
    (
        r"invalid partition|PartitionDown|PartitionInactive|partition.*not available",
        "Choose another 'partition' in the cluster's options; `sinfo` lists them.",
    ),
    (r"invalid qos|InvalidQOS|QOSNotAllowed", "Choose another 'qos' in the cluster's options."),
    (
        # Before the next, and that before the other time limits: the sentence with which SLURM refuses a job for any
        # limit of a QoS or an account names them all: "(job submit limit, user's size and/or time limits)"
        r"MaxWall",
        "Ask for a shorter 'time_limit', or for another 'qos' that allows a longer one.",
    ),
    (
        r"job violates|QOSMax|QOSGrp|AssocMax|AssocGrp|AssocGroup|MaxSubmit|MaxJobs|policy limit",
        "A limit of your account or QoS is reached: end other jobs or clusters, or ask for less.",
    ),
    (
        r"time limit|PartitionTimeLimit|TimeLimit",
        "Ask for a shorter 'time_limit', or for a partition that allows a longer one.",
    ),
    (
        r"node configuration is not available|memory specification|more processors|cpu count|"
        r"PartitionNodeLimit|BadConstraints|ReqNodeNotAvail",
        "Ask for fewer cores or less memory: no node of this partition is that large.",
    ),
]


def advice(said):
    """What to do about something that SLURM said, or an empty string."""
    for pattern, sentence in _ADVICE:
        if re.search(pattern, said, re.IGNORECASE):
            return sentence
    return ""


def ended(what, job, log_path, log, support):
    """A sentence about a job that ended before it was of use, with the last lines of its log.

    `job` is a slurm.Job whose state is one of the final ones.
    """
    text = "\n".join(log)
    if job.state == "OUT_OF_MEMORY":
        why = "it needed more memory than it had"
        do = "Ask for more memory in the cluster's options."
    elif job.state == "TIMEOUT":
        why = "its time limit was over"
        do = "Ask for a longer 'time_limit' in the cluster's options."
    elif job.state in ("CANCELLED", "DEADLINE", "REVOKED"):
        why = "it was cancelled, and not by this service"
        do = f"If it was not you (`scancel`), ask {support}."
    elif job.state in ("NODE_FAIL", "BOOT_FAIL", "PREEMPTED", "LAUNCH_FAILED", "RECONFIG_FAIL"):
        why = f"SLURM ended it as {job.state}"
        do = "Try again."
    elif SETUP_FAILED in text:
        why = "its setup failed"
        do = "Mend 'worker_setup': it must work in a batch job, under bash, and leave `dask` on the path."
    elif NO_DASK in text:
        why = "there is no `dask` command in its environment"
        do = (
            "The environment that 'worker_setup' activates needs dask, distributed and dask-gateway: install them "
            "there, or leave 'worker_setup' empty to use the default one."
        )
    elif re.search(r"No module named '?dask_gateway\b", text):
        why = "there is no dask-gateway in its environment"
        do = "Install dask-gateway in the environment that 'worker_setup' activates."
    elif MISFIT in text:
        said = next(line for line in log if MISFIT in line)
        why = f"its environment is too far from its scheduler's ({one_line(said.partition(f'{MISFIT}: ')[2], 200)})"
        do = (
            "Scheduler and workers need the same Python and the same release of distributed: if the environment was "
            "changed while the cluster ran, make a new cluster; if 'worker_setup' activates different ones, mend it."
        )
    else:
        why = f"it ended with {exit_code(job.exit_code)}"
        do = "See the end of its log; a common cause is a 'worker_setup' that fails or exits in a batch job."
    sentence = f"{what} (job {job.id}, {job.state}) did not come up: {why}. {do}"
    if job.reason and job.reason not in ("None", "NonZeroExitCode"):
        sentence += f" SLURM's reason: {job.reason}."
    return with_log(sentence, log_path, log)


def exit_code(value):
    """SLURM's `code:signal` in words."""
    code, _, signal = value.partition(":")
    return f"signal {signal}" if signal not in ("", "0") else f"exit code {code or '?'}"


def with_log(sentence, log_path, log):
    """The sentence, and under it the end of the log."""
    if not log:
        return f"{sentence} Its log {log_path} is empty."
    lines = "\n".join("  " + "".join(c if c.isprintable() else " " for c in line)[:400] for line in log)
    return f"{sentence} The last lines of its log {log_path}:\n{lines}"


# Written into the log by the job's script (jobs.py) or in its process (gateway_preload.py), and looked for in it when a
# job has failed.
NO_DASK = "dask-gateway: there is no command 'dask' in this job's environment"
MISFIT = "dask-gateway: this worker does not fit its scheduler"
SETUP_FAILED = "dask-gateway: the job's setup failed"
# Written by a worker that waited for its scheduler in vain
NO_SCHEDULER = gateway_job.NO_SCHEDULER
