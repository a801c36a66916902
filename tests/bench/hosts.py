"""The running copy of the service, as far as a measurement needs it: commands, processor time, the queue, versions."""

import json
import os
import platform
import re
import signal
import subprocess
import sys
from functools import cache
from pathlib import Path

import scenario

USER = "alice"
ENVIRONMENT = "/opt/dask-bench"
NODES = ("node1", "node2")


class NotRunningError(Exception):
    """There is nothing to measure; the text says what to do."""


def run(name: str, command: str, *, user: str | None = None, stdin: str = "", timeout: float = 120) -> str:
    """What a command of bash prints on a host, as root or in a login shell of a user.

    Raises
    ------
    RuntimeError
        When it fails; with what it said.
    """
    shell = ["runuser", "-l", user, "-c", command] if user else ["bash", "-c", command]
    call = ["docker", "exec", "-i", f"{scenario.PREFIX}-{name}", *shell]
    done = subprocess.run(call, input=stdin, capture_output=True, text=True, timeout=timeout)
    if done.returncode:
        said = (done.stderr or done.stdout).strip()[-2000:]
        raise RuntimeError(f"{name}: code {done.returncode} of {command[:200]}: {said}")
    return done.stdout


def check_running() -> None:
    """See that every host of the copy is up, and that nobody uses its batch cluster.

    Raises
    ------
    NotRunningError
        With what to do.
    """
    _check_hosts()
    if waiting := queue():
        raise NotRunningError(f"the batch cluster is in use; end these jobs first: {waiting[:3]}")


def begin() -> None:
    """Be ready to measure, and to clean up after an end by a signal.

    Raises
    ------
    SystemExit
        When there is nothing to measure; with what to do.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))
    try:
        check_running()
    except NotRunningError as error:
        sys.exit(f"error: {error}")


def _check_hosts() -> None:
    try:
        listed = subprocess.run(["docker", "ps", "--format", "{{.Names}}"], capture_output=True, text=True)
    except FileNotFoundError:
        raise NotRunningError("there is no docker on this machine: script/bootstrap installs it") from None
    if listed.returncode:
        raise NotRunningError(f"the Docker Engine does not answer ({listed.stderr.strip()}): run script/bootstrap")
    names = listed.stdout.split()
    missing = [name for name in scenario.HOSTS if f"{scenario.PREFIX}-{name}" not in names]
    if missing:
        others = sorted(name.removesuffix("-controller") for name in names if name.endswith("-controller"))
        raise NotRunningError(
            f"no whole copy of the service runs with the prefix '{scenario.PREFIX}' (missing: {', '.join(missing)}). "
            + (f"DASK_SERVICE_PREFIX names another, of those that run: {', '.join(others)}; " if others else "")
            + f"DASK_SERVICE_PREFIX={scenario.PREFIX} script/demo brings this one up"
        )


# -- processor time -------------------------------------------------------------------------------------------


def cgroup_counter(text: str, root: Path = Path("/sys/fs/cgroup")) -> tuple[Path, float]:
    """The file that counts a container's processor time, and what one second is in it.

    Parameters
    ----------
    text : str
        ``/proc/PID/cgroup`` of the container's first process.
    """
    paths = {}
    for line in text.splitlines():
        _, controllers, path = line.split(":", 2)
        # systemd moves itself into a group of its own below the container's
        paths.update(dict.fromkeys(controllers.split(","), path.removesuffix("/init.scope").lstrip("/")))
    if "cpuacct" in paths:
        return root / "cpuacct" / paths["cpuacct"] / "cpuacct.usage", 1e9
    return root / paths[""] / "cpu.stat", 1e6


def processor_time(text: str, second: float) -> float:
    """Seconds in the text of such a file."""
    match = re.search(r"^(?:usage_usec )?([0-9]+)$", text, re.MULTILINE)
    return int(match[1]) / second


@cache
def _counters() -> list[tuple[Path, float]]:
    counters = []
    for name in scenario.HOSTS:
        call = ["docker", "inspect", "--format", "{{.State.Pid}}", f"{scenario.PREFIX}-{name}"]
        pid = subprocess.run(call, capture_output=True, text=True, check=True).stdout.strip()
        counters.append(cgroup_counter(Path(f"/proc/{pid}/cgroup").read_text()))
    return counters


def processor_seconds() -> float:
    """Processor time that all containers of the copy have had until now: jobs, services and the user's own program."""
    return sum(processor_time(path.read_text(), second) for path, second in _counters())


# -- the queue ------------------------------------------------------------------------------------------------


def queue() -> list[str]:
    """Every job that SLURM lists, of all users: ``id user name state``."""
    return run("controller", "squeue --all --noheader --format='%i %u %j %T'").splitlines()


def wait_for_empty_queue(timeout: float = 90) -> None:
    """Wait until SLURM lists no job.

    Raises
    ------
    AssertionError
        With the jobs that are left.
    """
    scenario.wait_until("the queue is empty", lambda: not queue() or None, timeout, every=0.3)


def cancel_all() -> None:
    """Cancel every job of the benchmark's user."""
    run("controller", f"scancel --user={USER}")


# -- what was measured ----------------------------------------------------------------------------------------

VERSIONS = """
import importlib.metadata, json, platform
names = ("dask", "distributed", "dask-gateway", "dask-jobqueue", "bokeh")
found = {}
for name in names:
    try:
        found[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        pass
print(json.dumps({"python": platform.python_version(), **found}))
"""


def versions() -> dict:
    """Versions of everything that takes part."""
    # Not in a session of the user's: when it ends, logind removes the semaphores of the user's jobs on that node.
    jaspy = run("node1", ". /usr/share/modules/init/bash && module load jaspy && python -", stdin=VERSIONS)
    driver = run("login", f"{ENVIRONMENT}/bin/python -", stdin=VERSIONS)
    server = "import importlib.metadata as m; print(m.version('dask-gateway-server'))"
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"],
        cwd=scenario.REPOSITORY, capture_output=True, text=True,
    )  # fmt: skip
    return {
        "repository": commit.stdout.strip() or "unknown",
        # Its name tells what it was built from
        "installed_gateway": run("gateway", "readlink /opt/dask-gateway").strip(),
        "slurm": run("controller", "sinfo --version").strip(),
        "dask-gateway-server": run("gateway", "/opt/dask-gateway/bin/python -", stdin=server).strip(),
        "jobs": json.loads(jaspy),
        "drivers": json.loads(driver),
    }


def machine() -> dict:
    """What it was measured on."""
    return {
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "kernel": platform.release(),
        "load_before": [round(load, 2) for load in os.getloadavg()],
    }
