"""What people and programs read of a measurement."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

from bench.goals import GOALS, Goal
from bench.record import Record

# Quantities whose spread matters more than their middle
SPREAD = ("crowd",)


def table(record: Record, sizes: dict, order: Sequence[str] = ()) -> str:
    """All series, a block for each quantity; its rows in the given order, others after them."""
    lines: list[str] = []
    heading = None
    width = max((len(one["competitor"]) for one in record.series()), default=0)
    blocks: dict[tuple[str, str], int] = {}  # in the order in which they were first met
    for one in record.series():
        blocks.setdefault((one["part"], one["quantity"]), len(blocks))

    def place(one: dict) -> tuple[int, int]:
        name = one["competitor"]
        return blocks[one["part"], one["quantity"]], order.index(name) if name in order else len(order)

    series = sorted(record.series(), key=place)
    for one in series:
        if (one["part"], one["quantity"]) != heading:
            heading = one["part"], one["quantity"]
            spread = one["part"] in SPREAD
            columns = ("p50", "p95") if spread else ("median", "min")
            title = f"{one['quantity'].format(**sizes)} [{one['unit']}]"
            lines += ["", title, f"  {'':{width}}  {columns[0]:>8} {columns[1]:>8} {'max':>8}  runs"]
        lines.append(f"  {one['competitor']:{width}}  {_row(one)}")
    return "\n".join(lines).lstrip("\n")


def _row(one: dict) -> str:
    if "skipped" in one:
        return one["skipped"]
    failed, worked = len(one["failures"]), len(one["values"])
    runs = f"{worked}" if not failed else f"{worked} of {worked + failed}: {_short(one['failures'][0])}"
    if not worked:
        return f"{'-':>8} {'-':>8} {'-':>8}  {runs}"
    names = ("p50", "p95", "maximum") if one["part"] in SPREAD else ("median", "minimum", "maximum")
    digits = 2 if one["unit"] == "s" else 0
    return " ".join(f"{one['figures'][name]:8.{digits}f}" for name in names) + f"  {runs}"


def _short(text: str, length: int = 120) -> str:
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length - 1] + "…"


def judgement(record: Record, sizes: dict, goals: Sequence[Goal] = GOALS) -> str:
    """The goals, and whether they are reached."""
    lines = []
    for goal in goals:
        checked = goal.check(record, sizes)
        if checked is None:
            lines.append(f"  not measured  {goal.text}")
        else:
            reached, allowed = checked
            verdict = "reached" if reached <= allowed else "MISSED"
            lines.append(f"  {verdict:12}  {goal.text} ({reached:.2f}, allowed {allowed:.2f})")
    return "\n".join(["Goals", *lines])


def document(record: Record, about: dict, wanted: Sequence[Goal] = GOALS) -> dict:
    """Everything, for the file."""
    goals = []
    for goal in wanted:
        reached, allowed = goal.check(record, about["plan"]) or (None, None)
        goals.append({"goal": goal.text, "reached": reached, "allowed": allowed})
    return about | {"series": list(record.series()), "goals": goals}


def write(path: Path, content: dict) -> None:
    """Write the file; a reader sees all of it or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}")
    temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    temporary.replace(path)
