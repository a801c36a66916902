"""Runs on the gateway's host as root, from standard input: times submissions, in turns. Standard library only.

The jobs go to the partition that holds them, so that none runs while others are timed. ``REQUEST`` is put before.
"""

import json
import pwd
import shutil
import subprocess
import time
import uuid
from pathlib import Path

request = json.loads(REQUEST)  # noqa: F821
user = pwd.getpwnam(request["user"])
names = request["names"]
cluster = uuid.uuid4().hex
script = "#!/bin/bash -l\ntrue\n"
clean = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}
results = {name: {"milliseconds": [], "failures": []} for name in names.values()}
staging = Path(user.pw_dir) / ".dask-gateway" / f"bench-{cluster}"


def job_of_sbatch():
    """What the launchers call, called by the user."""
    call = [
        "sbatch", "--parsable", "--job-name=bench", "--partition=held", f"--cpus-per-task={request['cores']}",
        f"--mem={request['memory_mib']}M", "--time=10", "--output=/dev/null",
    ]  # fmt: skip
    return subprocess.run(
        call, input=script, text=True, capture_output=True, env=clean | {"HOME": user.pw_dir}, cwd="/",
        user=user.pw_uid, group=user.pw_gid, extra_groups=[],
    ).stdout  # fmt: skip


def asked(launcher, body):
    """Ask a launcher through sudo, as the gateway does."""
    gateway = pwd.getpwnam(request["gateway_user"])
    done = subprocess.run(
        ["/usr/bin/sudo", "-n", "-H", "-u", request["user"], "--", launcher],
        input=json.dumps(body), text=True, capture_output=True, env={}, cwd="/",
        user=gateway.pw_uid, group=gateway.pw_gid, extra_groups=[],
    )  # fmt: skip
    try:
        return json.loads(done.stdout)
    except ValueError:
        return {"error": done.stderr or done.stdout}


def job_of_service():
    """A scheduler's job with its keys, as a new cluster has it."""
    answer = asked(request["launchers"][names["service"]], {
        "action": "submit", "cluster": cluster, "kind": "scheduler", "batch": None, "script": script,
        "cpus": request["cores"], "memory": request["memory_mib"], "time": 10, "partition": "held", "account": "",
        "qos": "", "files": {"dask.crt": "x" * 1200, "dask.pem": "x" * 1700, "dask.token": "x" * 32},
    })  # fmt: skip
    return answer.get("job") or answer.get("error", "")


def job_of_stock():
    """The same, in the form that upstream's launcher takes."""
    folder = str(staging / uuid.uuid4().hex)
    answer = asked(request["launchers"][names["stock"]], {
        "action": "start", "env": {}, "stdin": script, "staging_dir": folder,
        "files": {"dask.crt": "x" * 1200, "dask.pem": "x" * 1700},
        "cmd": [
            shutil.which("sbatch"), "--parsable", "--job-name=dask-gateway", "--partition=held", f"--chdir={folder}",
            "--output=/dev/null", f"--cpus-per-task={request['cores']}", f"--mem={request['memory_mib']}M",
            "--time=10", "--export=NONE",
        ],
    })  # fmt: skip
    return answer.get("stdout") or answer.get("stderr") or answer.get("error", "")


turns = [(names["sbatch"], job_of_sbatch), (names["service"], job_of_service)]
if request["launchers"][names["stock"]]:
    turns.append((names["stock"], job_of_stock))
jobs = []
for _ in range(request["rounds"]):
    for name, submit in turns:
        began = time.monotonic()
        job = submit().strip().partition(";")[0]
        took = 1000 * (time.monotonic() - began)
        if job.isdigit():
            results[name]["milliseconds"].append(took)
            jobs.append(job)
        else:
            results[name]["failures"].append(f"no job: {job[:300]}")
    turns.append(turns.pop(0))

as_user = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
if jobs:
    subprocess.run(["scancel", *jobs], env=clean, check=True, **as_user)
shutil.rmtree(staging, ignore_errors=True)
shutil.rmtree(staging.with_name(cluster), ignore_errors=True)
shutil.rmtree(staging.parent / "logs" / cluster, ignore_errors=True)
print(json.dumps(results))
