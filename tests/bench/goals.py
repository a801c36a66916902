"""What the service is to reach, and whether it does in this measurement."""

from dataclasses import dataclass

from bench.parts import (
    BY_HAND,
    FIRST_RESULT,
    FIRST_RESULT_HELD,
    JOBQUEUE,
    LAUNCHER_TIME,
    PROCESSOR_TIME,
    RUNNING,
    SBATCH,
    SERVICE,
    SERVICE_LAUNCHER,
    SERVICE_TOGETHER,
    STOCK,
)
from bench.record import Record


@dataclass(frozen=True)
class Goal:
    """A median that is to stay at or below a limit: a number, a share of another's median, or that and a number."""

    text: str
    part: str
    quantity: str
    competitor: str
    limit: float = 0.0
    of: str = ""
    share: float = 0.0
    needs: tuple[str, int] | None = None  # a size of the plan without which it says nothing

    def check(self, record: Record, sizes: dict) -> tuple[float, float] | None:
        """(reached, allowed), or None where one of them was not measured."""
        if self.needs and sizes.get(self.needs[0]) != self.needs[1]:
            return None
        reached = record.figure(self.part, self.quantity, self.competitor, "median")
        allowed: float | None = self.limit
        if self.of:
            other = record.figure(self.part, self.quantity, self.of, "median")
            allowed = None if other is None else self.share * other + self.limit
        return None if reached is None or allowed is None else (reached, allowed)


FIRST = ("first-result", FIRST_RESULT)
GOALS = [
    Goal("first result with workers=1: at most 1.2 s", *FIRST, SERVICE_TOGETHER, 1.2),
    Goal("… at most half of dask-jobqueue's", *FIRST, SERVICE_TOGETHER, of=JOBQUEUE, share=0.5),
    Goal("… at most 0.3 of the stock gateway's", *FIRST, SERVICE_TOGETHER, of=STOCK, share=0.3),
    Goal("first result without: at most as by hand", *FIRST, SERVICE, of=BY_HAND, share=1.0),
    Goal("16 workers: the last job runs after at most 1.0 s", "scale", RUNNING, SERVICE, 1.0, needs=("workers", 16)),
    Goal("16 workers: at most 27 processor seconds", "scale", PROCESSOR_TIME, SERVICE, 27.0, needs=("workers", 16)),
    Goal(
        "a queue that holds jobs for 20 s: at most 22 s",
        "held",
        FIRST_RESULT_HELD,
        SERVICE_TOGETHER,
        22.0,
        needs=("hold", 20),
    ),
    Goal("launcher: at most 40 ms more than sbatch", "launcher", LAUNCHER_TIME, SERVICE_LAUNCHER, 40.0, SBATCH, 1.0),
]
