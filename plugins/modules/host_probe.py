#!/usr/bin/python3
"""`host_probe` looks at a host as it is: what it resolves, reaches and has. It changes nothing, and judges nothing."""

from __future__ import annotations

import grp
import http.client
import os
import pwd
import socket
import ssl
import subprocess
import time
import urllib.parse
from glob import glob
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

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
"""

TIMEOUT = 10


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
            **{name: {"type": "str", "default": ""} for name in ("gateway_user", "service_file")},
        },
        supports_check_mode=True,
    )
    wanted = module.params
    module.exit_json(
        changed=False,
        probe={
            "clock": arrived - wanted["sent_at"],
            "names": {name: resolved(name) for name in wanted["names"]},
            "addresses": {address: asked(address) for address in wanted["addresses"]},
            "users": {name: user_id(name) for name in wanted["users"]},
            "groups": {name: group(name) for name in wanted["groups"]},
            "home_folder": wanted["home"],
            "home": home(wanted["home"]) if wanted["home"] else None,
            "pythons": pythons(wanted["pythons"], wanted["python_check"]),
            "job": job(wanted["job_user"], wanted["job_group"]) if wanted["job_user"] else None,
            "jobs": jobs(wanted["gateway_user"]) if wanted["gateway_user"] else None,
            "installed": Path(wanted["service_file"]).exists() if wanted["service_file"] else None,
        },
    )


def resolved(name: str) -> list[str]:
    """The addresses of a name."""
    try:
        return sorted({str(answer[4][0]) for answer in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)})
    except OSError:
        return []


def asked(address: str) -> dict:
    """The status and body of an address, the end of its certificate's life, or why there is none."""
    parts = urllib.parse.urlsplit(address)
    connection = http.client.HTTPSConnection(
        parts.hostname, parts.port or 443, timeout=TIMEOUT, context=ssl.create_default_context()
    )
    try:
        connection.connect()
        ends = ssl.cert_time_to_seconds(connection.sock.getpeercert()["notAfter"])
        connection.request("GET", parts.path or "/")
        response = connection.getresponse()
        body = response.read(2000).decode(errors="replace")
    except ssl.SSLCertVerificationError as error:
        return {"certificate": error.verify_message}
    except (OSError, http.client.HTTPException) as error:
        return {"error": str(error) or type(error).__name__}
    finally:
        connection.close()
    return {"status": response.status, "body": body, "days": (ends - time.time()) / 86400}


def user_id(name: str) -> int | None:
    """A user's number, if the host knows the user."""
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        return None


def group(name: str) -> dict | None:
    """A group's number, and the numbers of its members."""
    try:
        entry = grp.getgrnam(name)
    except KeyError:
        return None
    return {"gid": entry.gr_gid, "members": {member: user_id(member) for member in sorted(entry.gr_mem)[:50]}}


def home(folder: str) -> dict | None:
    """What tells one file system from another: the numbers of the folder and of what is in it."""
    try:
        with os.scandir(folder) as entries:
            inside = sorted((entry.name, entry.inode()) for entry in entries)
        return {"inode": Path(folder).stat().st_ino, "inside": dict(inside[:200])}
    except OSError:
        return None


def pythons(patterns: list[str], check: str) -> dict[str, str]:
    """What is wrong with each Python program; an empty text where nothing is."""
    found = {}
    paths = (path for pattern in patterns for path in sorted(glob(pattern)))  # noqa: PTH207 - absolute patterns
    for path in {os.path.realpath(path): path for path in paths if os.access(path, os.X_OK)}.values():
        done = run([path, "-I", "-"], check)
        found[path] = "" if done.returncode == 0 else (done.stdout + done.stderr).strip()[-500:]
    return found


def job(user: str, group_name: str) -> dict:
    """Whether the batch cluster would take a job of a user; nothing is submitted."""
    if user == "member":
        members = (group(group_name) or {"members": {}})["members"]
        user = next((name for name, number in members.items() if number is not None), "")
    if not user:
        return {"user": "", "accepted": False, "said": f"no member of the group {group_name} is known here"}
    done = run(["runuser", "-u", user, "--", "sbatch", "--test-only", "--time=1", "--wrap=true"])
    return {"user": user, "accepted": done.returncode == 0, "said": done.stderr.strip()[-500:]}


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


def run(command: list[str], given: str = "") -> subprocess.CompletedProcess:
    """A command's end, and what it said; one that is not there has failed."""
    try:
        return subprocess.run(
            command, input=given, capture_output=True, text=True, timeout=60, check=False, cwd="/", env=ENVIRONMENT
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(command, 127, "", str(error))


ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}


if __name__ == "__main__":
    main()
