"""What is measured of one cluster: times in seconds, each with a proof that the work was done."""

import multiprocessing
import subprocess
import time
from collections.abc import Callable

from .base import Competitor


class WrongResultError(Exception):
    """The cluster answered, and not with what was asked for."""


def first_result(competitor: Competitor, together: bool, timeout: float) -> float:
    """Seconds from the wish for a cluster to the result of one task."""
    began = time.monotonic()
    competitor.create(workers=1 if together else 0)
    competitor.connect()
    if not together:
        competitor.scale(1)
    future = competitor.client.submit(pow, 3, 20, pure=False)
    try:
        result = future.result(timeout=timeout)
    except TimeoutError:
        raise TimeoutError(f"no result in {timeout:g} s, the task is {future.status}") from None
    seconds = time.monotonic() - began
    if result != 3**20:
        raise WrongResultError(f"3 to the power of 20 is not {result!r}")
    return seconds


def scaled(competitor: Competitor, workers: int, timeout: float) -> dict[str, float]:
    """Seconds from the wish for more workers until the last job runs, the last is registered, each has worked."""
    client = competitor.client
    before = {address for address, _ in registrations(client.get_events("all"))}
    began = time.time()
    competitor.scale(workers)
    client.wait_for_workers(workers, timeout=timeout)
    addresses = list(client.scheduler_info(n_workers=-1)["workers"])
    futures = [client.submit(pow, 3, i, workers=[a], pure=False) for i, a in enumerate(addresses)]
    results = client.gather(futures)
    answered = time.time() - began
    if results != [3**i for i in range(workers)]:
        raise WrongResultError(f"{workers} workers were to answer, one each: {results!r}")
    registered = [when for address, when in registrations(client.get_events("all")) if address not in before]
    if len(registered) != workers - len(before):
        raise WrongResultError(f"{workers - len(before)} new workers were to register, {len(registered)} did")
    return {
        "running": max(job_starts(client).values()) - began,
        "registered": max(registered) - began,
        "answered": answered,
    }


def registrations(events) -> list[tuple[str, float]]:
    """(address, time) of each worker that registered, in the scheduler's events."""
    return [(event["worker"], when) for when, event in events if event.get("action") == "add-worker"]


def job_starts(client) -> dict[str, float]:
    """When the script of each worker's job began, by the worker's address."""

    # Inside a function, so that it goes to the workers by value: they don't have this package.
    def began() -> float:
        import os
        import time
        from pathlib import Path

        def fields(pid):  # of /proc/PID/stat: the name, and what follows it
            name, _, rest = Path(f"/proc/{pid}/stat").read_text().partition("(")[2].rpartition(")")
            return name, rest.split()

        pid = os.getpid()
        while True:
            values = fields(pid)[1]
            parent = int(values[1])
            if parent <= 1:
                raise RuntimeError("this worker was not started by SLURM: no slurmstepd above it")
            if fields(parent)[0].startswith("slurmstepd"):
                break
            pid = parent
        # Not psutil's create_time, which trusts the time of the boot, known to the second only.
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - int(values[19]) / os.sysconf("SC_CLK_TCK")
        return time.time() - age

    return client.run(began)


def closed(competitor: Competitor, timeout: float) -> float:
    """Seconds from the wish to end the cluster until SLURM lists no job of this user any more."""
    began = time.monotonic()
    competitor.close()
    while jobs := queued():
        if time.monotonic() - began > timeout:
            raise TimeoutError(f"jobs still in the queue after {timeout:g} s: {', '.join(jobs)}")
        time.sleep(0.05)
    return time.monotonic() - began


def queued() -> list[str]:
    """The user's jobs that SLURM lists: waiting, running or completing."""
    call = ["squeue", "--me", "--noheader", "--format=%i"]
    return subprocess.run(call, capture_output=True, text=True, check=True, timeout=60).stdout.split()


def crowd(make: Callable[[], Competitor], clusters: int, together: bool, timeout: float) -> list[dict]:
    """Seconds to the first result of each of many clusters that are wanted at the same moment.

    Each has a process of its own, as those of different users have. A cluster that fails is an answer with its error.
    """
    context = multiprocessing.get_context("fork")  # what was imported need not be imported again
    start, end = context.Barrier(clusters), context.Barrier(clusters)
    answers = context.SimpleQueue()

    def one() -> None:
        competitor, answer = None, {}
        try:
            competitor = make()
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        try:
            start.wait(timeout)  # whoever has failed already, too: the others wait for all
            if competitor is not None:
                answer = {"seconds": first_result(competitor, together, timeout)}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.put(answer)
        end.wait(2 * timeout)  # nobody ends a cluster while others wait for theirs
        if competitor is not None:
            competitor.close()

    processes = [context.Process(target=one) for _ in range(clusters)]
    for process in processes:
        process.start()
    collected = [answers.get() for _ in processes]
    for process in processes:
        process.join()
    return collected
