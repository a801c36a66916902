"""How long the gateway takes to hand a job to SLURM: by our launcher, by the stock one, and by sbatch itself."""

import json
from collections.abc import Callable
from pathlib import Path

from bench import hosts, stock
from bench.record import Record

PART = "launcher"
TIME = "handing a job to SLURM, on the gateway's host"
SBATCH = "sbatch itself"
SERVICE = "this service's launcher"
STOCK = "stock launcher"


def measure(record: Record, rounds: int, settings: dict, say: Callable[[str], None]) -> None:
    """Time the submissions, in turns, and end the jobs."""
    request = {
        "user": hosts.USER,
        "gateway_user": stock.USER,
        "rounds": rounds,
        "cores": settings["cores"],
        "memory_mib": settings["memory_mib"],
        "launchers": {SERVICE: _our_launcher(), STOCK: stock.LAUNCHER if "stock" in settings else ""},
        "names": {"sbatch": SBATCH, "service": SERVICE, "stock": STOCK},
    }
    program = Path(__file__).with_name("submissions.py").read_text()
    printed = hosts.run("gateway", "python3 - ", stdin=f"REQUEST = {json.dumps(request)!r}\n{program}", timeout=300)
    for name, answer in json.loads(printed).items():
        for value in answer["milliseconds"]:
            record.add(PART, TIME, name, value, unit="ms")
        for why in answer["failures"]:
            record.fail(PART, TIME, name, why)
            say(f"{name}: FAILED: {why}")
        if not answer["milliseconds"] and not answer["failures"]:
            record.skip(PART, TIME, name, "not running")
    say("submissions: done")


def _our_launcher() -> str:
    return hosts.run("gateway", "grep -hoE '/[^ ]*/launcher' /etc/sudoers.d/dask-gateway").split()[0]
