"""Figures of merit of repeated measurements."""

import math
import statistics
from collections.abc import Iterator, Sequence


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest of the values that at least that share of them does not exceed (nearest rank)."""
    if not values:
        raise ValueError("no values")
    if not 0 < share <= 1:
        raise ValueError(f"a share is above 0 and at most 1, not {share}")
    return sorted(values)[math.ceil(share * len(values)) - 1]


def summary(values: Sequence[float]) -> dict[str, float]:
    """Median, extremes and the percentiles that are reported; nothing of no values."""
    if not values:
        return {}
    return {
        "median": statistics.median(values),
        "minimum": min(values),
        "maximum": max(values),
        "p50": percentile(values, 0.5),
        "p95": percentile(values, 0.95),
    }


def alternating(competitors: Sequence, rounds: int) -> Iterator[tuple[int, object]]:
    """(round, competitor): each once in each round, and nobody always first."""
    for number in range(rounds):
        turn = number % len(competitors) if competitors else 0
        for competitor in (*competitors[turn:], *competitors[:turn]):
            yield number, competitor
