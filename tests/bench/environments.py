"""script/bench-environments: see there for its usage."""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import scenario

from bench import hosts, report, views
from bench.figures import alternating
from bench.goals import Goal
from bench.record import Record
from slurm_gateway import jobs

PART = "environments"
LOCAL, SLOW, STAGED = "shared tree, a local disk", "shared tree, slow", "copy on the node, shared tree slow"
ROWS = {LOCAL: "local", SLOW: "slow", STAGED: "staged"}

IMPORT = "module load jaspy, import distributed"
VENV = "activate a venv over jaspy, import distributed"
WORKER = "a worker's job, from its shell's start until it is registered"
QUANTITIES = {IMPORT: "import.sh", VENV: "venv.sh", WORKER: "worker.sh"}
WARM, COLD = "warm page cache", "cold page cache"
OPERATIONS = "operations on the slow shared tree"

SCHEDULER_HOST, SCHEDULER_PORT, SCHEDULER_UNIT = "node2", 45799, "dask-bench-scheduler"
USERS_VENV = "bench-venv"
REGISTERED = "Registered to:"
GOALS = [
    Goal(
        f"{WORKER}: at most 1.3 of the local time with a copy, {cache}",
        PART,
        f"{WORKER}, {cache}",
        STAGED,
        0,
        LOCAL,
        1.3,
    )
    for cache in (WARM, COLD)
]


def scripts(address: str) -> dict[str, str]:
    """What is timed: scripts as batch jobs are, each in a login shell of bash."""
    program = "exec python -c 'import distributed'\n"
    where = views.FOLDER
    worker = jobs.script(
        modules_init="/etc/profile.d/modules.sh",
        setup="JASPY_KEEP_RETIRED=1 module load jaspy",
        environment={},
        gateway_environment={},
        command=["--nthreads", "1", "--death-timeout", "60", "--no-dashboard", "--dashboard-address", "127.0.0.1:0",
                 "--local-directory", "/tmp", "--no-nanny"],
        program=[f"{where}/gateway_job.py", "worker", address, "60"],
        check=f"{where}/gateway_preload.py",
    )  # fmt: skip
    return {
        QUANTITIES[IMPORT]: f"module load jaspy\n{program}",
        QUANTITIES[VENV]: f"source ~/{USERS_VENV}/bin/activate\n{program}",
        QUANTITIES[WORKER]: worker,
    }


@contextmanager
def copies_on_the_node() -> Iterator[None]:
    """The copies of releases that a node has with jaspy_staged; afterwards it has what its inventory says."""
    _play("-e", json.dumps({"jaspy_staged": True}))
    try:
        yield
    finally:
        _play()


def _play(*words: str) -> None:
    call = ["ansible-playbook", "-i", scenario.INVENTORY, "--limit", views.NODE, "playbooks/jaspy.yml", *words]
    done = subprocess.run(
        call, cwd=scenario.REPOSITORY, env=os.environ | scenario.PLAIN_OUTPUT, capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(done.stdout[-3000:])


@contextmanager
def scheduler() -> Iterator[str]:
    """The address of a scheduler that workers can register at, on another host than theirs."""
    stop = f"systemctl stop {SCHEDULER_UNIT} 2>/dev/null; systemctl reset-failed {SCHEDULER_UNIT} 2>/dev/null; :"
    hosts.run(SCHEDULER_HOST, stop)
    serve = f"bash -lc 'module load jaspy; exec dask scheduler --port {SCHEDULER_PORT} --no-dashboard'"
    try:
        hosts.run(
            SCHEDULER_HOST,
            f"systemd-run --quiet --unit={SCHEDULER_UNIT} --uid={hosts.USER} --working-directory=/tmp {serve}",
        )
        listens = f"timeout 1 bash -c ': </dev/tcp/127.0.0.1/{SCHEDULER_PORT}' 2>/dev/null && echo yes; :"
        scenario.wait_until("the scheduler listens", lambda: hosts.run(SCHEDULER_HOST, listens).strip(), 60)
        yield f"tcp://{SCHEDULER_HOST}:{SCHEDULER_PORT}"
    finally:
        hosts.run(SCHEDULER_HOST, stop)


def drop_page_cache() -> str:
    """Forget the contents, names and attributes of all files of this machine; why not, where that is not permitted."""
    try:
        os.sync()
        Path("/proc/sys/vm/drop_caches").write_text("3")
    except OSError as error:
        return f"the page cache can't be dropped: {error}"
    return ""


def measure(record: Record, seen: dict[str, views.View], runs: int) -> None:
    """Each quantity with a page cache that has everything, and with one that was dropped; the views take turns."""
    for what, script in QUANTITIES.items():
        for cache in (WARM, COLD):
            name = f"{what}, {cache}"
            if cache == COLD and (why := drop_page_cache()):
                for row in seen:
                    record.skip(PART, name, row, why)
                continue
            # With a first run of each that fills the caches
            for number, row in alternating(list(seen), runs + (cache == WARM)):
                counts = cache == COLD or number
                _once(record if counts else Record(), name, row, seen[row], script, cold=cache == COLD)
            told = ", ".join(f"{row} {record.figure(PART, name, row, 'median') or 0:.2f} s" for row in seen)
            print(f"  [{datetime.now():%T}] {name}: {told}", flush=True)


def _once(record: Record, name: str, row: str, seen: views.View, script: str, *, cold: bool) -> None:
    call = ["python3", f"{views.FOLDER}/environment_timer.py", f"{views.FOLDER}/{script}"]
    call += [REGISTERED] if script == QUANTITIES[WORKER] else []
    seen.operations()
    if cold:
        drop_page_cache()
    else:
        # What the kernel keeps of a remote file system for a second is old when a job starts
        time.sleep(1.1)
    try:
        seconds = float(seen.run(call, user=hosts.USER))
    except (RuntimeError, subprocess.TimeoutExpired) as error:
        record.fail(PART, name, row, str(error))
        return
    record.add(PART, name, row, seconds)
    if row != LOCAL:
        record.add(PART, f"{OPERATIONS}: {name}", row, len(seen.operations()), unit="operations")


def arguments(words: list[str]) -> argparse.Namespace:
    """The command line, checked."""
    parser = argparse.ArgumentParser(prog="script/bench-environments")
    parser.add_argument("--runs", type=int, default=10, help="runs of each (default 10)")
    parser.add_argument(
        "--latency", type=float, default=2, help="milliseconds that each operation on the tree takes longer (default 2)"
    )
    found = parser.parse_args(words)
    if found.runs < 1 or found.latency < 0:
        parser.error("--runs is at least 1, and --latency at least 0")
    return found


def main(words: list[str]) -> int:
    options = arguments(words)
    hosts.begin()
    started, record, machine = datetime.now(UTC), Record(), hosts.machine()
    path = scenario.STATE / "bench" / f"environments-{started:%Y%m%dT%H%M%SZ}.json"
    folder, wait = Path(__file__).parent, options.latency / 1000
    programs = {
        name: (Path(jobs.__file__).parent / name).read_text() for name in ("gateway_job.py", "gateway_preload.py")
    }
    with ExitStack() as stack:
        files = programs | {"environment_timer.py": (folder / "environment_timer.py").read_text()}
        address = stack.enter_context(scheduler())
        stack.enter_context(copies_on_the_node())
        stack.enter_context(views.room(files | scripts(address)))
        stack.callback(hosts.run, views.NODE, f"rm -rf ~/{USERS_VENV}", user=hosts.USER)
        hosts.run(views.NODE, f"rm -rf ~/{USERS_VENV}; module load jaspy; jaspy-venv ~/{USERS_VENV}", user=hosts.USER)
        seen = {
            LOCAL: stack.enter_context(views.view(ROWS[LOCAL])),
            SLOW: stack.enter_context(views.view(ROWS[SLOW], wait)),
            STAGED: stack.enter_context(views.view(ROWS[STAGED], wait, staged=True)),
        }
        try:
            measure(record, seen, options.runs)
        finally:
            # Also what an interrupted measurement has
            machine["load_after"] = [round(load, 2) for load in os.getloadavg()]
            plan = {"runs": options.runs, "latency_ms": options.latency}
            about = {"date": started.isoformat(timespec="seconds"), "plan": plan, "machine": machine}
            report.write(path, report.document(record, about, GOALS))
    print()
    print(report.table(record, {}, list(ROWS)))
    print()
    print(report.judgement(record, {}, GOALS))
    load = f"load {machine['load_before'][0]} to {machine['load_after'][0]}"
    print(f"\n{machine['cores']} cores, {load}, all values in {path}")
    if failures := record.failures():
        print(f"{failures} runs failed, see above", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
