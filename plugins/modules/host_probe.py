#!/usr/bin/python3
"""`host_probe` looks at a host as it is: what it resolves, reaches and has. It changes nothing, and judges nothing.

A job on nodes, where one is asked for, writes files into its user's home, which are removed.
"""

from __future__ import annotations

import json
import pwd
import shlex
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.observations import group, observed, run

DOCUMENTATION = """
module: host_probe
author: The maintainers of this service
short_description: What a host resolves, reaches and has
description: What it answers is judged by the action check_hosts.
options:
  sent_at: {description: "The controller's time when the task was handed out, in seconds.", type: float, required: true}
  names: {description: Host names to resolve., type: list, elements: str, default: []}
  addresses: {description: Addresses (https) to ask., type: list, elements: str, default: []}
  users: {description: Users to look up., type: list, elements: str, default: []}
  groups: {description: "Groups to look up, with their members.", type: list, elements: str, default: []}
  home: {description: The folder of the users' homes; empty where this host has none., type: path, default: ""}
  pythons: {description: Patterns of Python programs., type: list, elements: str, default: []}
  python_check: {description: "A program for them, exiting with 1 for a fault.", type: str, default: ""}
  job_user: {description: "As whom a test job is shown; C(member), the first of job_group.", type: str, default: ""}
  job_group: {description: "See job_user.", type: str, default: ""}
  gateway_user: {description: "The gateway's user, to be asked which jobs it sees.", type: str, default: ""}
  service_file: {description: "A file that is there when this host's part is installed.", type: str, default: ""}
  on_nodes:
    description:
      - To how many nodes of the batch cluster a job of job_user goes; in check mode to none. It looks there at groups
        and home, node_names, node_addresses and node_pythons.
    type: int
    default: 0
  node_program: {description: "The program of that job: module_utils/observations.py.", type: str, default: ""}
  node_names: {description: Host names to resolve there., type: list, elements: str, default: []}
  node_addresses: {description: Addresses (https) to ask there., type: list, elements: str, default: []}
  node_pythons: {description: Patterns of Python programs that are to be there., type: list, elements: str, default: []}
"""

# Seconds for a job to begin and end
JOBS_TIME = 300


def main() -> None:
    """Answer with one observation for each thing that was asked."""
    arrived = time.time()
    module = AnsibleModule(
        argument_spec={
            "sent_at": {"type": "float", "required": True},
            **{name: {"type": "list", "elements": "str", "default": []} for name in ("names", "addresses", "users")},
            **{name: {"type": "list", "elements": "str", "default": []} for name in ("groups", "pythons")},
            "home": {"type": "path", "default": ""},
            **{name: {"type": "str", "default": ""} for name in ("python_check", "job_user", "job_group")},
            **{name: {"type": "str", "default": ""} for name in ("gateway_user", "service_file", "node_program")},
            **{
                name: {"type": "list", "elements": "str", "default": []}
                for name in ("node_names", "node_addresses", "node_pythons")
            },
            "on_nodes": {"type": "int", "default": 0},
        },
        supports_check_mode=True,
    )
    wanted = module.params
    on_nodes = None
    if wanted["on_nodes"] and wanted["job_user"] and not module.check_mode:
        there = {name: wanted[f"node_{name}"] for name in ("names", "addresses", "pythons")} | {"users": []}
        on_nodes = nodes(wanted["job_user"], wanted["on_nodes"], wanted["node_program"], wanted | there)
    module.exit_json(
        changed=False,
        probe={
            "clock": arrived - wanted["sent_at"],
            **observed(wanted),
            "job": job(wanted["job_user"], wanted["job_group"]) if wanted["job_user"] else None,
            "jobs": jobs(wanted["gateway_user"]) if wanted["gateway_user"] else None,
            "nodes": on_nodes,
            "installed": Path(wanted["service_file"]).exists() if wanted["service_file"] else None,
        },
    )


def job(user: str, group_name: str) -> dict:
    """Whether the batch cluster would take a job of a user; nothing is submitted."""
    if user == "member":
        members = (group(group_name) or {"members": {}})["members"]
        user = next((name for name, number in members.items() if number is not None), "")
    if not user:
        return {"user": "", "accepted": False, "said": f"no member of the group {group_name} is known here"}
    done = run(["runuser", "-u", user, "--", "sbatch", "--test-only", "--time=1", "--wrap=true"])
    return {"user": user, "accepted": done.returncode == 0, "said": done.stderr.strip()[-500:]}


def nodes(user: str, count: int, program: str, wanted: Mapping[str, Any]) -> dict:
    """What the program sees on nodes of the batch cluster, in a job of a user that ends at once.

    What each node says comes back as a user's notebook or login host would see it: in files in the user's home. One for
    each, as SLURM may mix long lines of several nodes in one file.

    Parameters
    ----------
    user : str
        Whose job it is.
    count : int
        On how many nodes.
    program : str
        Text of ``module_utils/observations.py``.
    wanted : Mapping
        What the program is to look at, see `observed`.

    Returns
    -------
    dict
        The `user`; as `seen` what each node showed; as `said` why there is less than that, or an empty text; as
        `earliest` and `latest` between which times, in seconds of this host's clock, the job ran.
    """
    answer: dict[str, Any] = {"user": user, "seen": [], "said": "", "earliest": time.time()}
    try:
        home = pwd.getpwnam(user).pw_dir
    except KeyError:
        return {**answer, "said": "no such user is known here"}
    as_user = ["runuser", "-u", user, "--"]
    keys = ("names", "addresses", "users", "groups", "home", "pythons", "python_check")
    call = shlex.join(["/usr/bin/python3", "-I", "-c", program, json.dumps({key: wanted[key] for key in keys})])
    submitted = run(
        [*as_user, "sbatch", "--parsable", "--job-name=dask-service-probe", "--time=5", "--no-requeue",
         f"--nodes={count}", "--ntasks-per-node=1", f"--chdir={home}", "--output=.dask-service-probe-%j"],
        f"#!/bin/sh\numask 077\nexec srun --ntasks-per-node=1 --output=.dask-service-probe-%j-%t {call}\n",
    )  # fmt: skip
    if submitted.returncode:
        return {**answer, "said": submitted.stderr.strip()[-500:]}
    number = submitted.stdout.strip().partition(";")[0]
    state = reason = ""
    while time.time() - answer["earliest"] < JOBS_TIME:
        listed = run([*as_user, "squeue", "--noheader", f"--jobs={number}", "--states=all", "--format=%T %r"])
        state, _, reason = listed.stdout.strip().partition(" ")
        # What SLURM has forgotten has ended
        if listed.returncode == 0 and state not in ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING"):
            break
        time.sleep(1)
    else:
        run([*as_user, "scancel", number])
        answer["said"] = f"after {JOBS_TIME} s its job {number} was {state} ({reason}), and was cancelled"
    answer["latest"] = time.time()
    output = f"{home}/.dask-service-probe-{number}"
    # One that did not come to its end may have written nothing
    outputs = [output, *(f"{output}-{task}" for task in range(count))]
    text = shown(as_user, outputs, count, 30 if state == "COMPLETED" else 5)
    answer["seen"] = told(text)
    if len(answer["seen"]) < count and not answer["said"]:
        besides = "\n".join(line for line in text.splitlines() if not told(line))
        answer["said"] = (
            f"job {number} ended as {state}, and its output says: {besides.strip()[-500:]}"
            if text
            else f"job {number} ended as {state or 'unknown'}, and what it wrote to {output} is not to be seen here; "
            "its home has to be the same on this host and on the nodes"
        )
    run([*as_user, "rm", "-f", *outputs])
    return answer


def shown(as_user: list[str], paths: list[str], count: int, seconds: int) -> str:
    """The text of files, once a shared file system shows what so many nodes told, or as it is after these seconds."""
    text = ""
    for _ in range(seconds):
        text = run([*as_user, "cat", *paths]).stdout
        if len(told(text)) >= count:
            break
        time.sleep(1)
    return text


def told(text: str) -> list[dict]:
    """What nodes told, one to a line; a line that is not complete, or says something else, is passed over."""
    found = []
    for line in text.splitlines():
        try:
            said = json.loads(line)
        except ValueError:
            continue
        if isinstance(said, dict) and said.keys() >= {"node", "time", "seen"}:
            found.append(said)
    return found


def jobs(user: str) -> dict:
    """What SLURM says of the gateway's user, and how many jobs that user and root see."""
    private = run(["scontrol", "show", "config"])
    rights = run(["sacctmgr", "--noheader", "--parsable2", "show", "user", user, "format=adminlevel"])
    # Root again at last: a job that has ended in between is not hidden
    seen = [
        run([*as_user, "squeue", "--noheader", "--format=%i"]) for as_user in ([], ["runuser", "-u", user, "--"], [])
    ]
    jobs_of = [set(done.stdout.split()) for done in seen]
    fields = [line.partition("=") for line in private.stdout.splitlines() if line.startswith("PrivateData")]
    return {
        "user": user,
        "answers": private.returncode == 0 and all(done.returncode == 0 for done in seen),
        "said": (private.stderr + seen[1].stderr).strip()[-500:],
        "hidden": bool(fields) and "jobs" in fields[0][2],
        "rights": rights.stdout.strip(),
        "unseen": sorted((jobs_of[0] - jobs_of[1]) & jobs_of[2])[:5],
    }


if __name__ == "__main__":
    main()
