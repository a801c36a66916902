"""The parts of the benchmark: what is measured, of whom, in which order."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

from bench import hosts, launcher
from bench.drivers import Driver, DriverError, driver
from bench.figures import alternating
from bench.record import Record

# Names of the rows
BY_HAND = "sbatch by hand, worker after scheduler"
BY_HAND_TOGETHER = "sbatch by hand, both together"
JOBQUEUE = "dask-jobqueue"
STOCK = "stock dask-gateway"
SERVICE = "this service"
SERVICE_TOGETHER = "this service, workers=1"

# Names of the tables
FIRST_RESULT = "new cluster to first result"
SHUTDOWN = "shutdown until the queue is empty, 1 worker"
RUNNING = "1 → {workers} workers, until the last job runs"
REGISTERED = "1 → {workers} workers, until the last is registered"
ANSWERED = "1 → {workers} workers, until each has worked"
PROCESSOR_TIME = "1 → {workers} workers, processor time of all containers"
SHUTDOWN_SCALED = "shutdown until the queue is empty, {workers} workers"
FIRST_RESULT_CROWD = "{clusters} clusters at once, each to its first result"
FIRST_RESULT_HELD = "a queue that holds each job for {hold} s, first result"
LAUNCHER_TIME = launcher.TIME
SBATCH = launcher.SBATCH
SERVICE_LAUNCHER = launcher.SERVICE


@dataclass(frozen=True)
class Competitor:
    """A row: who, and whether workers are submitted together with the scheduler."""

    name: str
    driver: str
    together: bool = False


COMPETITORS = [
    Competitor(BY_HAND, "by-hand"),
    Competitor(BY_HAND_TOGETHER, "by-hand", together=True),
    Competitor(JOBQUEUE, "jobqueue"),
    Competitor(STOCK, "stock"),
    Competitor(SERVICE, "service"),
    Competitor(SERVICE_TOGETHER, "service", together=True),
]


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    runs: int = 7
    workers: int = 16
    clusters: int = 20
    hold: int = 20
    crowds: int = 2
    settle: float = 2.0  # what is put off until after the work counts too
    apart: float = 4.0  # clusters that wait in the held queue start that long after one another


class Bench:
    """Runs the parts and fills the record.

    Parameters
    ----------
    plan : Plan
        How much.
    settings : dict
        What the drivers are told, see competitors/base.py.
    competitors : sequence of Competitor
        Whom.
    say : callable
        Takes a line about what happens.
    """

    def __init__(self, plan: Plan, settings: dict, competitors: Sequence[Competitor], say: Callable[[str], None]):
        self.plan = plan
        self.settings = settings
        self.competitors = competitors
        self.say = say
        self.record = Record()
        self._offered: dict[str, bool] = {}

    def _taking_part(self, part: str, quantity: str, among: Sequence[Competitor]) -> list[Competitor]:
        """Those who can do it; of the others the record tells why not."""
        able = []
        for competitor in among:
            if competitor.together and not self._offers_together(competitor.driver):
                self.record.skip(part, quantity, competitor.name, "not offered")
            else:
                able.append(competitor)
        return able

    def _offers_together(self, name: str) -> bool:
        if name not in self._offered:
            with driver(name, self.settings) as program:
                self._offered[name] = program.ask("can-submit-together")
        return self._offered[name]

    def _one_each(self) -> list[Competitor]:
        """A row for each kind of competitor, without those that differ by submitting together."""
        return [c for c in self.competitors if not c.together]

    def clean(self) -> None:
        """End whatever clusters and jobs a failed run has left: nothing of it may be there in the next one."""
        for name in dict.fromkeys(c.driver for c in self.competitors):
            with suppress(DriverError), driver(name, self.settings) as program:
                program.ask("sweep")
        hosts.cancel_all()
        hosts.wait_for_empty_queue()

    def _run(self, part: str, quantity: str, competitor: Competitor, work: Callable[[Driver], None]) -> None:
        """One run in a program of its own, with an empty queue; its failure is a part of the record."""
        try:
            hosts.wait_for_empty_queue()
            with driver(competitor.driver, self.settings) as program:
                program.ask("prepare")
                work(program)
        except (DriverError, AssertionError, RuntimeError, OSError) as error:
            self.say(f"{competitor.name}: FAILED: {error}")
            self.record.fail(part, quantity, competitor.name, str(error))
            self.clean()

    # -- the parts --------------------------------------------------------------------------------------------

    def first_result(self) -> None:
        """A new cluster until the result of one task, and its end."""
        part = "first-result"
        for number, competitor in alternating(self._taking_part(part, FIRST_RESULT, self.competitors), self.plan.runs):

            def work(program: Driver, competitor=competitor, number=number) -> None:
                seconds = program.ask("first-result", together=competitor.together)
                self.record.add(part, FIRST_RESULT, competitor.name, seconds)
                end = program.ask("close", wait=True)
                if not competitor.together:
                    self.record.add(part, SHUTDOWN, competitor.name, end)
                self.say(f"{number + 1}/{self.plan.runs} {competitor.name}: {seconds:.2f} s, shutdown {end:.2f} s")

            self._run(part, FIRST_RESULT, competitor, work)

    def scale(self) -> None:
        """From one worker to many, and the end of such a cluster."""
        part = "scale"
        for number, competitor in alternating(self._one_each(), self.plan.runs):

            def work(program: Driver, competitor=competitor, number=number) -> None:
                program.ask("first-result", together=False)
                before = hosts.processor_seconds()
                times = program.ask("scale", workers=self.plan.workers)
                time.sleep(self.plan.settle)
                spent = hosts.processor_seconds() - before
                self.record.add(part, RUNNING, competitor.name, times["running"])
                self.record.add(part, REGISTERED, competitor.name, times["registered"])
                self.record.add(part, ANSWERED, competitor.name, times["answered"])
                self.record.add(part, PROCESSOR_TIME, competitor.name, spent)
                end = program.ask("close", wait=True)
                self.record.add(part, SHUTDOWN_SCALED, competitor.name, end)
                self.say(
                    f"{number + 1}/{self.plan.runs} {competitor.name}: last job {times['running']:.2f} s, "
                    f"registered {times['registered']:.2f} s, {spent:.1f} processor seconds, shutdown {end:.2f} s"
                )

            self._run(part, RUNNING, competitor, work)

    def crowd(self) -> None:
        """Many clusters at the same moment."""
        part = "crowd"
        for number, competitor in alternating(
            self._taking_part(part, FIRST_RESULT_CROWD, self.competitors), self.plan.crowds
        ):

            def work(program: Driver, competitor=competitor, number=number) -> None:
                answers = program.ask("crowd", clusters=self.plan.clusters, together=competitor.together)
                seconds = [answer["seconds"] for answer in answers if "seconds" in answer]
                for value in seconds:
                    self.record.add(part, FIRST_RESULT_CROWD, competitor.name, value)
                for answer in answers:
                    if "error" in answer:
                        self.record.fail(part, FIRST_RESULT_CROWD, competitor.name, answer["error"])
                slowest = f", the last after {max(seconds):.2f} s" if seconds else ""
                self.say(
                    f"{number + 1}/{self.plan.crowds} {competitor.name}: {len(seconds)} of {len(answers)} "
                    f"clusters computed{slowest}"
                )
                if len(seconds) < len(answers):
                    self.clean()

            self._run(part, FIRST_RESULT_CROWD, competitor, work)

    def held(self) -> None:
        """The first result where each job waits for a while; the clusters wait side by side."""
        part = "held"
        turns = list(alternating(self._taking_part(part, FIRST_RESULT_HELD, self.competitors), self.plan.runs))

        def work(turn: int, number: int, competitor: Competitor) -> bool:
            time.sleep(turn * self.plan.apart)
            try:
                with driver(competitor.driver, self.settings | {"partition": "held"}) as program:
                    program.ask("prepare")
                    seconds = program.ask("first-result", together=competitor.together)
                    program.ask("close", wait=False)
            except (DriverError, RuntimeError, OSError) as error:
                self.say(f"{competitor.name}: FAILED: {error}")
                self.record.fail(part, FIRST_RESULT_HELD, competitor.name, str(error))
                return False
            self.record.add(part, FIRST_RESULT_HELD, competitor.name, seconds)
            self.say(f"{number + 1}/{self.plan.runs} {competitor.name}: {seconds:.2f} s")
            return True

        hosts.wait_for_empty_queue()
        with ThreadPoolExecutor(max(1, len(turns))) as pool:
            done = list(pool.map(lambda turn: work(turn[0], *turn[1]), enumerate(turns)))
        if not all(done):
            self.clean()
        hosts.wait_for_empty_queue()

    def launcher(self) -> None:
        """Submitting through the launchers, and by sbatch itself."""
        hosts.wait_for_empty_queue()
        try:
            launcher.measure(self.record, 3 * self.plan.runs, self.settings, self.say)
        finally:
            hosts.cancel_all()


PARTS = {
    "first-result": Bench.first_result,
    "scale": Bench.scale,
    "crowd": Bench.crowd,
    "held": Bench.held,
    "launcher": Bench.launcher,
}
