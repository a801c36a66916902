"""What a host resolves, reaches and has, in the eyes of who runs this: the module `host_probe`, or a job on a node.

A program as well: ``observations.py JSON`` prints what `observed` says to the things that the JSON names. A node of a
site's batch cluster runs it with its own Python, so it needs nothing but the standard library, of Python 3.7 and later.
"""

from __future__ import annotations

import grp
import http.client
import json
import os
import pwd
import socket
import ssl
import subprocess
import sys
import time
import urllib.parse
from glob import glob
from pathlib import Path
from typing import Any

TIMEOUT = 10
ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}


def observed(wanted: dict[str, Any]) -> dict[str, Any]:
    """One observation for each thing that is wanted.

    Parameters
    ----------
    wanted : dict
        Lists of texts as `names`, `addresses`, `users`, `groups` and `pythons`; texts as `home` and `python_check`. See
        the options of `host_probe`.

    Returns
    -------
    dict
        By the same names, without `python_check`; as `home_folder` which folder `home` is about.
    """
    return {
        "names": {name: resolved(name) for name in wanted["names"]},
        "addresses": {address: asked(address) for address in wanted["addresses"]},
        "users": {name: user_id(name) for name in wanted["users"]},
        "groups": {name: group(name) for name in wanted["groups"]},
        "home_folder": wanted["home"],
        "home": home(wanted["home"]) if wanted["home"] else None,
        "pythons": pythons(wanted["pythons"], wanted["python_check"]),
    }


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


def run(command: list[str], given: str = "") -> subprocess.CompletedProcess[str]:
    """A command's end, and what it said; one that is not there has failed."""
    try:
        return subprocess.run(
            command, input=given, capture_output=True, text=True, timeout=60, check=False, cwd="/", env=ENVIRONMENT
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(command, 127, "", str(error))


if __name__ == "__main__":
    seen = observed(json.loads(sys.argv[1]))
    print(json.dumps({"node": socket.gethostname().partition(".")[0], "time": time.time(), "seen": seen}))
