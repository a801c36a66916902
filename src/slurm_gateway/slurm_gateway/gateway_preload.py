"""Runs in a cluster's jobs. In its scheduler, what each of gateway and cluster has to say reaches the other soon; its
workers have to fit that scheduler.

It is copied into the cluster's folder. The scheduler imports it as a preload, after dask_gateway.scheduler_preload, so
it uses nothing but what a scheduler of the gateway has anyway. A worker's job runs it as a program before it starts the
worker. (As a preload of workers dask would copy it into a folder that all users' workers on a node share.) Whatever
else goes wrong here must not keep them from working.
"""

import asyncio
import json
import logging
import os
import re
import sys
from importlib import metadata
from pathlib import Path

logger = logging.getLogger("distributed.scheduler")

# In the cluster's folder: what its scheduler runs in
VERSIONS = Path(__file__).with_name("versions.json")

# Seconds after which a client that has just come listens to what it is told
TELL_DELAY = 0.5

# Looked for in the log by the gateway (messages.py)
MISFIT = "dask-gateway: this worker does not fit its scheduler"

# The exit code by which a worker's job knows that it is no accident
MISFIT_CODE = 3


def dask_setup(scheduler):
    """Add what upstream's part of the scheduler lacks."""
    _let_the_gateway_speak(scheduler)
    _tell_the_gateway_of_workers(scheduler)
    _tell_workers_what_it_runs_in()
    _know_the_first_workers(scheduler)


def _know_the_first_workers(scheduler):
    """Count the workers that were submitted with this scheduler, and tell them where it is.

    Upstream starts with a count of 0, which would have the gateway cancel them, and waits before it reports.
    """
    try:
        service = scheduler.services["gateway"]
        service.count = int(os.environ.get("DASK_GATEWAY_WORKERS", "0"))
        service.heartbeat_initial = 0
        path = os.environ.get("DASK_GATEWAY_SCHEDULER_FILE")
        if path:
            # Written in place, see gateway_job.address_in
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with open(descriptor, "w", encoding="utf-8") as file:  # noqa: PTH123
                json.dump({"address": scheduler.address}, file)
    except Exception:
        logger.exception("The workers that were submitted with this scheduler will not find it")


def _tell_the_gateway_of_workers(scheduler):
    """Let a worker that joined be in a heartbeat within 3 s; the next one by itself may be 15 s away."""
    try:
        from distributed.diagnostics.plugin import SchedulerPlugin

        class SoonKnown(SchedulerPlugin):
            def add_worker(self, scheduler, worker):
                scheduler.services["gateway"].waiter.interrupt_soon()

        scheduler.add_plugin(SoonKnown(), name="dask-gateway-soon-known")
    except Exception:
        logger.exception("The gateway will hear of workers with the usual heartbeats only")


def _let_the_gateway_speak(scheduler):
    """Add an address to the scheduler's API at which the gateway leaves a text for the user.

    What it says before the first client has come (such as why the first workers could not start) waits for it.
    """
    try:
        from dask_gateway.scheduler_preload import BaseHandler
        from distributed.diagnostics.plugin import SchedulerPlugin
        from tornado import web

        waiting, tasks = [], set()

        def tell(text):
            scheduler.log_event("warn", text)  # each client shows it as a Python warning

        async def tell_soon():
            await asyncio.sleep(TELL_DELAY)
            texts, waiting[:] = list(waiting), []
            for text in texts:
                tell(text)

        class TellFirstClient(SchedulerPlugin):
            def add_client(self, scheduler, client):
                if waiting:
                    task = asyncio.ensure_future(tell_soon())
                    tasks.add(task)
                    task.add_done_callback(tasks.discard)

        class TellHandler(BaseHandler):
            @web.authenticated
            async def post(self):
                text = str(self.json_data["text"])
                logger.warning("The gateway says: %s", text)
                if any(name != "fire-and-forget" for name in scheduler.clients):
                    tell(text)
                else:
                    waiting.append(text)

        scheduler.add_plugin(TellFirstClient(), name="dask-gateway-tell-first-client")
        scheduler.services["gateway"].app.add_handlers(".*$", [("/api/tell", TellHandler)])
    except Exception:
        logger.exception("What the gateway says will not reach the clients")


def _tell_workers_what_it_runs_in():
    """Leave this scheduler's versions where its workers look."""
    try:
        VERSIONS.write_text(json.dumps(versions()))
    except Exception:
        logger.exception("Workers can't be compared with this scheduler")


def main():
    """Called in a worker's job. A misfit ends now: later it would be an error of a message that nobody can read."""
    try:
        problem = misfit(versions(), json.loads(VERSIONS.read_text()))
    except (OSError, ValueError, metadata.PackageNotFoundError):
        return 0  # a scheduler that did not tell, or an environment that can't
    if problem:
        print(f"{MISFIT}: {problem}", file=sys.stderr)
    return MISFIT_CODE if problem else 0


def versions():
    """Return what scheduler and workers must have in common."""
    return {"python": ".".join(map(str, sys.version_info[:3])), "distributed": metadata.version("distributed")}


def misfit(mine, schedulers):
    """Say what differs too much: another release of distributed, another Python; patch releases work together."""
    far = [name for name in schedulers if release(mine.get(name, "")) != release(schedulers[name])]
    return ", ".join(f"{name} {mine.get(name)} here and {schedulers[name]} there" for name in far)


def release(version):
    """Return the first two numbers of a version."""
    return re.findall(r"\d+", version)[:2]


if __name__ == "__main__":
    sys.exit(main())
