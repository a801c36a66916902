"""What was measured: every single value, what failed, and the figures made of them."""

from collections.abc import Iterable

from bench.figures import summary


class Record:
    """Values by part, quantity and competitor, in the order in which they were asked for."""

    def __init__(self):
        self._series: dict[tuple[str, str, str], dict] = {}

    def _entry(self, part: str, quantity: str, competitor: str, unit: str = "s") -> dict:
        new = {"unit": unit, "values": [], "failures": []}
        return self._series.setdefault((part, quantity, competitor), new)

    def add(self, part: str, quantity: str, competitor: str, value: float, unit: str = "s") -> None:
        """Keep a value."""
        self._entry(part, quantity, competitor, unit)["values"].append(value)

    def fail(self, part: str, quantity: str, competitor: str, why: str) -> None:
        """Keep that a run gave no value, and why."""
        self._entry(part, quantity, competitor)["failures"].append(why)

    def skip(self, part: str, quantity: str, competitor: str, why: str) -> None:
        """Keep why there is nothing to measure."""
        self._entry(part, quantity, competitor)["skipped"] = why

    def figure(self, part: str, quantity: str, competitor: str, name: str) -> float | None:
        """A figure of a series; None if nothing was measured."""
        entry = self._series.get((part, quantity, competitor))
        return summary(entry["values"]).get(name) if entry else None

    def series(self) -> Iterable[dict]:
        """All series with their figures, as they go into the JSON file."""
        for (part, quantity, competitor), entry in self._series.items():
            names = {"part": part, "quantity": quantity, "competitor": competitor}
            yield names | entry | {"figures": summary(entry["values"])}

    def failures(self) -> int:
        """How many runs gave no value."""
        return sum(len(entry["failures"]) for entry in self._series.values())
