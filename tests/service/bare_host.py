"""A host as a site gets it, before the service comes to it: a container of the scenario's base image."""

import json
import os
import re
import subprocess
from contextlib import contextmanager

import scenario

# Its container, in the place of one of the service's hosts, which goes on beside it
BARE = "bare"


def docker(*arguments: str) -> str:
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, check=True).stdout.strip()


@contextmanager
def bare_host(container: str, hostname: str, like: str, aliases: tuple[str, ...] = ()):
    """Start a bare host in the copy's network, and remove it on leaving the block.

    Parameters
    ----------
    container : str
        What `scenario.host` and `scenario.published_url` know it by.
    hostname : str
        What it calls itself.
    like : str
        The host of the scenario whose file systems it has too.
    aliases : tuple of str
        What the other hosts know it by.

    Yields
    ------
    testinfra.host.Host
        As root, after its boot.
    """
    name = f"{scenario.PREFIX}-{container}"
    inspect = "{{json .Config.Cmd}}\t{{json .HostConfig.Binds}}"
    command, binds = docker("inspect", "--format", inspect, f"{scenario.PREFIX}-{like}").split("\t")
    image = subprocess.run(
        ["bash", "-c", ". script/lib.sh && base_image_tag"],
        cwd=scenario.REPOSITORY, capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    subprocess.run(["docker", "rm", "--force", "--volumes", name], capture_output=True)
    try:
        docker(
            "run", "--detach", "--name", name, "--hostname", hostname, "--network", scenario.PREFIX,
            *(f"--network-alias={alias}" for alias in aliases),
            "--publish", "127.0.0.1::443",
            "--cap-add", "SYS_ADMIN", "--cap-add", "NET_ADMIN", "--security-opt", "seccomp=unconfined",
            "--cgroupns", "private", "--stop-signal", "SIGRTMIN+3",
            "--tmpfs", "/run", "--tmpfs", "/run/lock", "--tmpfs", "/tmp:exec",
            *(f"--volume={bind}" for bind in json.loads(binds) or []), image, *json.loads(command),
        )  # fmt: skip
        yield booted(container)
    finally:
        subprocess.run(["docker", "rm", "--force", "--volumes", name], capture_output=True)


def restarted(container: str) -> None:
    """Restart a host; what Docker resolves names by are rules of nftables, and go where all rules are flushed."""
    docker("restart", f"{scenario.PREFIX}-{container}")
    booted(container)


def booted(container: str):
    host, up = scenario.host(container), ("running", "degraded")
    scenario.wait_until("it has booted", lambda: host.run("systemctl is-system-running").stdout.strip() in up, 60)
    return host


def play(book: str, name: str, *arguments: str) -> subprocess.CompletedProcess:
    """Run a playbook on the bare host alone, as the inventory's host `name`."""
    return subprocess.run(
        ["ansible-playbook", "--inventory", scenario.INVENTORY, "--limit", name,
         "-e", f"ansible_host={scenario.PREFIX}-{BARE}",
         *arguments, book],
        cwd=scenario.REPOSITORY, env=os.environ | scenario.PLAIN_OUTPUT, capture_output=True, text=True, timeout=1500,
    )  # fmt: skip


def changes(done: subprocess.CompletedProcess) -> int:
    """How many tasks have changed something, in a run on one host that has succeeded."""
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr
    return int(re.search(r"changed=(\d+)", done.stdout)[1])
