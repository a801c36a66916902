"""Why clusters and workers fail, as one of a few words: for counting, and for searching in the log."""

import re

from .messages import NO_DASK, SETUP_FAILED

REASONS = (
    "refused_account", "refused_partition", "refused_qos", "refused_time_limit", "refused_size", "refused_policy",
    "refused_other", "setup_failed", "no_dask", "exited", "out_of_memory", "time_limit", "cancelled", "node_failure",
    "lost", "sudo", "launcher", "home_folder", "other",
)  # fmt: skip

_REFUSALS = [
    ("refused_policy", r"job violates|QOSMax|QOSGrp|AssocMax|AssocGrp|MaxSubmit|MaxJobs|policy limit"),
    ("refused_account", r"invalid account|account/partition|not permitted to use this account"),
    ("refused_partition", r"partition.*(not available|invalid)|invalid partition|PartitionDown|PartitionInactive"),
    ("refused_qos", r"invalid qos"),
    ("refused_time_limit", r"time limit"),
    ("refused_size", r"node configuration is not available|memory specification|more processors|cpu count"),
]

_ENDINGS = {
    "OUT_OF_MEMORY": "out_of_memory",
    "TIMEOUT": "time_limit",
    "DEADLINE": "time_limit",
    "CANCELLED": "cancelled",
    "REVOKED": "cancelled",
    **dict.fromkeys(("NODE_FAIL", "BOOT_FAIL", "PREEMPTED", "LAUNCH_FAILED", "RECONFIG_FAIL"), "node_failure"),
}


def of_refusal(source, said):
    """The reason why a job could not be submitted: who said no, and its words."""
    if source == "sbatch":
        return next((r for r, pattern in _REFUSALS if re.search(pattern, said, re.IGNORECASE)), "refused_other")
    return {"sudo": "sudo", "folder": "home_folder"}.get(source, "launcher")


def of_job(job, log=()):
    """The reason why a job ended too early, from what SLURM says of it and the last lines of its log."""
    if job.state in _ENDINGS:
        return _ENDINGS[job.state]
    text = "\n".join(log)
    if SETUP_FAILED in text:
        return "setup_failed"
    if NO_DASK in text or re.search(r"No module named '?(dask|distributed|dask_gateway)\b", text):
        return "no_dask"
    # COMPLETED: with code 0, as where a user's setup has an `exit`
    return "exited" if job.state in ("FAILED", "COMPLETED") else "other"
