"""Maintenance: for a time nobody gets new clusters, and those that run go on.

It is a file, so that it outlives the gateway; the gateway reads it whenever somebody asks for a cluster.
"""

import json
import os
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path

from .messages import one_line

# Of a file that can't be read: whoever wrote it wanted no new clusters
UNREADABLE = "An operator is at work."


class MaintenanceError(ValueError):
    """What an operator asked for makes no sense; the text says why."""


@dataclass(frozen=True)
class Maintenance:
    """What users are told, until when it is expected to last, and for whom it does not hold."""

    message: str
    until: str | None
    by: str = "somebody"
    excepted: list[str] = field(default_factory=list)

    @property
    def end(self):
        """The announced end as a time, or None where it is not known."""
        return datetime.fromisoformat(self.until).astimezone() if self.until else None

    @property
    def late(self):
        """Whether the announced end is over."""
        return self.end is not None and self.end < datetime.now().astimezone()

    @property
    def sentence(self):
        """What a user reads who asks for a cluster."""
        when = f"until {readable(self.end)}" if self.end else "for the time being"
        return one_line(
            f"This service is being maintained: there are no new clusters {when}. {self.message} "
            "Clusters that run go on, and can be scaled and stopped.",
            600,
        )

    def to_dict(self):
        return {"on": True, **asdict(self), "late": self.late}


def readable(time):
    """A time as people write it, with its zone."""
    return f"{time:%A} {time.day} {time:%B %Y, %H:%M %Z}"


def announced(message, until, by="somebody", excepted=()):
    """A maintenance as an operator asks for it.

    Raises
    ------
    MaintenanceError
        Where the end is no time, or over.
    """
    try:
        end = datetime.fromisoformat(str(until)).astimezone()
    except ValueError:
        raise MaintenanceError(
            f"{one_line(until, 60)!r} is no time: write the expected end as 2026-12-24T18:00, in this host's zone."
        ) from None
    if end < datetime.now().astimezone():
        raise MaintenanceError(f"The expected end, {readable(end)}, is over already.")
    return Maintenance(one_line(message or "", 300), end.isoformat(timespec="minutes"), by, sorted(set(excepted)))


def current(path):
    """The maintenance that goes on, or None."""
    if not path:
        return None
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
        maintenance = Maintenance(str(data["message"]), data["until"], str(data["by"]), list(data["excepted"]))
        _ = maintenance.end  # a time, or an error here
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        return Maintenance(UNREADABLE, None)
    return maintenance


def begin(path, maintenance):
    """Let it begin, or change what is announced."""
    path = Path(path)
    draft = path.with_name(f".{path.name}.new")
    with draft.open("w", encoding="utf-8") as file:
        json.dump(asdict(maintenance), file)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def end(path):
    """Let it be over; whether it went on."""
    try:
        Path(path).unlink()
    except FileNotFoundError:
        return False
    return True
