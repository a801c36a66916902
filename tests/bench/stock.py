"""A stock Dask Gateway beside ours, on the gateway's host, for as long as it is measured.

It is upstream's own server, launcher and proxy, from the environment of our gateway and so of the same version, with
upstream's defaults and only what it needs to run at all: the commands that distributed has today, the environment of
the jobs, their sizes, and a rule for sudo. It runs as our gateway's user, who may see everybody's jobs. Its users name
themselves and one password, which costs less than asking the Hub.
"""

import json
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager

from bench import hosts

UNIT = "dask-gateway-stock"
FOLDER = f"/run/{UNIT}"
SUDOERS = f"/etc/sudoers.d/{UNIT}"
USER = "dask-gateway"
ENVIRONMENT = "/opt/dask-gateway"
LAUNCHER = f"{ENVIRONMENT}/bin/dask-gateway-jobqueue-launcher"
API, PROXY = 9000, 9001


def configuration(settings: dict, address: str, password: str) -> str:
    """The server's configuration file."""
    size = f"{settings['memory_mib']} M"
    values = {
        "DaskGateway.address": f"127.0.0.1:{API}",
        "DaskGateway.backend_class": "dask_gateway_server.backends.jobqueue.slurm.SlurmBackend",
        "SimpleAuthenticator.password": password,
        "Proxy.address": f":{PROXY}",
        "SlurmBackend.api_url": f"{address}/api",
        "SlurmBackend.dask_gateway_jobqueue_launcher": LAUNCHER,
        "SlurmClusterConfig.scheduler_cmd": ["dask", "scheduler"],
        "SlurmClusterConfig.worker_cmd": ["dask", "worker"],
        "SlurmClusterConfig.scheduler_setup": settings["setup_for_sh"],
        "SlurmClusterConfig.worker_setup": settings["setup_for_sh"],
        "SlurmClusterConfig.scheduler_cores": settings["cores"],
        "SlurmClusterConfig.worker_cores": settings["cores"],
        "SlurmClusterConfig.scheduler_memory": size,
        "SlurmClusterConfig.worker_memory": size,
    }
    lines = ["from dask_gateway_server.options import Options, String", "", "c = get_config()"]
    lines += [f"c.{name} = {json.dumps(value)}" for name, value in values.items()]
    lines.append('c.SlurmBackend.cluster_options = Options(String("partition"))')
    return "\n".join(lines) + "\n"


@contextmanager
def stock_gateway(settings: dict) -> Iterator[dict]:
    """The running stock gateway: its addresses and its users' password."""
    password = secrets.token_urlsafe(24)
    address = f"http://gateway:{PROXY}"
    remove()
    try:
        hosts.run(
            "gateway",
            f"install -d -m 750 -o root -g {USER} {FOLDER} && umask 027 && cat > {FOLDER}/config.py"
            f" && chgrp {USER} {FOLDER}/config.py",
            stdin=configuration(settings, address, password),
        )
        rule = f"{USER} ALL=({hosts.USER}) NOPASSWD: {LAUNCHER}\n"
        hosts.run(
            "gateway",
            f"umask 227 && cat > {FOLDER}/sudoers && visudo -cqf {FOLDER}/sudoers && mv {FOLDER}/sudoers {SUDOERS}",
            stdin=rule,
        )
        hosts.run(
            "gateway",
            f"systemd-run --quiet --unit={UNIT} --uid={USER} --gid={USER} --property=Environment=PATH=/usr/bin:/bin"
            f" --working-directory=/ {ENVIRONMENT}/bin/dask-gateway-server --config={FOLDER}/config.py",
        )
        _wait_until_it_answers(address)
        yield {"address": address, "proxy_address": f"gateway://gateway:{PROXY}", "password": password}
    finally:
        remove()


def _wait_until_it_answers(address: str) -> None:
    # From where the drivers are
    ask = f"{hosts.ENVIRONMENT}/bin/python -c 'import urllib.request; urllib.request.urlopen(\"{address}/api/health\")'"
    deadline = time.monotonic() + 30
    while True:
        try:
            hosts.run("login", ask)
            return
        except RuntimeError as error:
            if time.monotonic() > deadline:
                journal = hosts.run("gateway", f"journalctl --no-pager --unit {UNIT} --lines 40")
                raise RuntimeError(f"the stock gateway does not answer: {error}\n{journal}") from None
            time.sleep(0.5)


def remove() -> None:
    """Stop it, with its clusters, and remove all of it.

    Raises
    ------
    RuntimeError
        When something of it is still there.
    """
    hosts.run(
        "gateway",
        f"systemctl stop {UNIT} 2>/dev/null; systemctl reset-failed {UNIT} 2>/dev/null; rm -rf {FOLDER} {SUDOERS}",
    )
    left = hosts.run(
        "gateway", f"ls -d {FOLDER} {SUDOERS} 2>/dev/null; systemctl is-active --quiet {UNIT} && echo {UNIT}; :"
    )
    if left.strip():
        raise RuntimeError(f"the stock gateway is not gone from the gateway's host: {left.split()}")
