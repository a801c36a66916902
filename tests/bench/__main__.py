"""script/bench: see there for its usage."""

import argparse
import os
import sys
import time
from contextlib import ExitStack
from datetime import UTC, datetime

import scenario
from hub_client import HubUser

from bench import batch, drivers, hosts, report, stock
from bench.parts import COMPETITORS, PARTS, Bench, Plan

# Of each scheduler and each worker, whoever starts it
CORES, MEMORY_MIB = 1, 512
SETUP = ". /usr/share/modules/init/{}; module load jaspy"


def arguments(words: list[str]) -> argparse.Namespace:
    """The command line, checked."""

    def at_least(low: int):
        def check(text: str) -> int:
            try:
                value = int(text)
            except ValueError:
                raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
            if value < low:
                raise argparse.ArgumentTypeError(f"at least {low}, not {value}")
            return value

        return check

    parser = argparse.ArgumentParser(
        prog="script/bench",
        description="Measure a running copy of the service (DASK_SERVICE_PREFIX) beside other ways to a Dask cluster.",
        epilog="Shutdown is measured along with first-result and scale. Measure on a machine that does nothing else.",
    )
    parser.add_argument("parts", nargs="*", metavar="part", help=f"{', '.join(PARTS)}; all of them by default")
    parser.add_argument("--runs", type=at_least(1), default=7, help="runs of each competitor (default 7)")
    parser.add_argument("--workers", type=at_least(2), default=16, help="workers to scale to (default 16)")
    parser.add_argument("--clusters", type=at_least(1), default=20, help="clusters at once (default 20)")
    parser.add_argument("--crowds", type=at_least(1), help="runs of that many clusters at once (default runs/4)")
    parser.add_argument("--hold", type=at_least(1), default=20, help="seconds a held job waits (default 20)")
    names = list(dict.fromkeys(c.driver for c in COMPETITORS))
    parser.add_argument("--only", action="append", choices=names, help="only this competitor; may be repeated")
    parser.add_argument("--keep", action="store_true", help="keep the drivers' environment and the jobs' logs")
    found = parser.parse_args(words)
    unknown = [part for part in found.parts if part not in PARTS]
    if unknown:
        parser.error(f"there is no part {unknown[0]!r}; the parts are {', '.join(PARTS)}")
    found.parts = [part for part in PARTS if part in found.parts or not found.parts]
    found.only = found.only or names
    found.crowds = found.crowds or -(-found.runs // 4)
    return found


def say(text: str) -> None:
    print(f"  [{datetime.now():%T}] {text}", flush=True)


def token() -> str:
    """What a user of a login host has: a token of the Hub."""
    user = HubUser(scenario.published_url("hub"), scenario.ca(), hosts.USER, scenario.passwords()[hosts.USER])
    user.sign_in()
    return user.new_token(note="script/bench", expires_in=4 * 3600)


def main(words: list[str]) -> int:
    options = arguments(words)
    hosts.begin()
    machine = hosts.machine()
    if machine["load_before"][0] > 0.7:
        print(f"warning: this machine is busy (load {machine['load_before'][0]}): the figures will tell that too")

    began = time.monotonic()
    started = datetime.now(UTC)
    plan = Plan(options.runs, options.workers, options.clusters, options.hold, options.crowds)
    competitors = [c for c in COMPETITORS if c.driver in options.only]
    settings = {
        "cores": CORES,
        "memory_mib": MEMORY_MIB,
        "setup": SETUP.format("bash"),
        "setup_for_sh": SETUP.format("sh"),
        "folder": f"{drivers.folder()}/runs",
        "partition": "standard",
        "timeout": 120,
    }
    with ExitStack() as stack:
        say("the drivers' environment on the login host")
        if not options.keep:
            stack.callback(drivers.remove)
        drivers.install()
        say("room on the batch cluster")
        # As many as run at the same time, on two nodes, and some room
        jobs = max(2 * options.clusters, options.workers + 1) + 4
        room = batch.room(jobs * CORES // 2 + 1, jobs * MEMORY_MIB // 2 + MEMORY_MIB, options.hold)
        about_batch = stack.enter_context(room)
        if "service" in options.only:
            settings["service_token"] = token()
        if "stock" in options.only:
            say("a stock dask-gateway beside this service's")
            settings["stock"] = stack.enter_context(stock.stock_gateway(settings))
        bench = Bench(plan, settings, competitors, say)
        stack.callback(lambda: bench.clean() if hosts.queue() else None)
        about = {
            "date": started.isoformat(timespec="seconds"),
            "prefix": scenario.PREFIX,
            "parts": options.parts,
            "plan": vars(plan),
            "size": {"cores": CORES, "memory_mib": MEMORY_MIB, "setup": settings["setup"]},
            "versions": hosts.versions(),
            "machine": machine,
            "batch_cluster": about_batch,
        }
        path = scenario.STATE / "bench" / f"{started:%Y%m%dT%H%M%SZ}.json"
        try:
            for part in options.parts:
                print(part, flush=True)
                PARTS[part](bench)
        finally:
            # Also what an interrupted benchmark has
            about["machine"]["load_after"] = [round(load, 2) for load in os.getloadavg()]
            about["seconds"] = round(time.monotonic() - began)
            report.write(path, report.document(bench.record, about))
    print()
    print(report.table(bench.record, vars(plan), [c.name for c in COMPETITORS]))
    print()
    print(report.judgement(bench.record, vars(plan)))
    print(f"\n{machine['cores']} cores, {about['seconds'] // 60} min {about['seconds'] % 60} s, all values in {path}")
    if failures := bench.record.failures():
        print(f"{failures} runs failed, see above", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
