"""The rule: which of a user's grants, as the accounts portal lists them, make the user hold the service now."""

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

COUNTS = "counts"
UNREADABLE = "unreadable"
# What else can be said of a grant, from what comes closest to holding the service.
_REASONS = ["expired", "revoked", "not yet in force", "another role", "another category", "another service"]


@dataclass(frozen=True)
class Grant:
    """A grant, and what was said of it; `expires` is as the portal wrote it."""

    id: object
    category: str
    service: str
    role: str
    expires: str
    said: str


@dataclass(frozen=True)
class Verdict:
    """What the grants come to. `held` is None if one that may matter can't be read."""

    held: bool | None
    rule: str
    grants: tuple = ()
    ends: float | None = None  # when the last grant that counts expires, in seconds of the epoch


def judge(listed, *, category, service, role, now, zone, tolerance=timedelta(0)):
    """Judge what the portal answered.

    A grant counts if it is for this category, service and role, is not revoked, was granted before now (give or take
    the clocks' `tolerance`), and today, in the site's time zone, is not later than the day `expires`. What is not
    plainly so does not count. A grant that can't be read is no proof of anything, so it does not stand in the way of
    one that counts; but if none does, it may be the user's, and nothing is known.

    Raises
    ------
    TypeError
        When it is not an array of objects.
    """
    if not isinstance(listed, list) or not all(isinstance(entry, dict) for entry in listed):
        raise TypeError("not an array of grants")
    grants = tuple(_grant(entry, (category, service, role), now, zone, tolerance) for entry in listed)
    counting = [grant for grant in grants if grant.said == COUNTS]
    if counting:
        last = max(counting, key=lambda grant: grant.expires)
        day_after = datetime.combine(_day(last.expires) + timedelta(days=1), datetime.min.time(), zone)
        return Verdict(True, f"grant {last.id} counts until the end of {last.expires}", grants, day_after.timestamp())
    unreadable = next((grant for grant in grants if grant.said == UNREADABLE), None)
    if unreadable is not None:
        return Verdict(None, f"grant {unreadable.id} can't be read", grants)
    wanted = f"{category}/{service} as {role}"
    if not grants:
        return Verdict(False, f"no grants at all, so none of {wanted}", grants)
    closest = min(grants, key=lambda grant: _REASONS.index(grant.said))
    return Verdict(False, f"no grant of {wanted} counts; grant {closest.id}: {closest.said}", grants)


def _grant(entry, wanted, now, zone, tolerance):
    category, service, role = _names(entry)
    expires = entry.get("expires")
    return Grant(
        id=entry.get("id") if isinstance(entry.get("id"), (int, str)) else None,
        category=_shown(category),
        service=_shown(service),
        role=_shown(role),
        expires=_shown(expires),
        said=_said(entry, (category, service, role), wanted, now, zone, tolerance),
    )


def _names(entry):
    service = entry.get("service")
    service = service if isinstance(service, dict) else {}
    category, role = service.get("category"), entry.get("role")
    return (
        category.get("name") if isinstance(category, dict) else None,
        service.get("name"),
        role.get("name") if isinstance(role, dict) else None,
    )


def _said(entry, names, wanted, now, zone, tolerance):
    others = zip(names, wanted, ("another category", "another service", "another role"), strict=True)
    for name, wanted_name, reason in sorted(others, key=lambda other: -_REASONS.index(other[2])):
        if isinstance(name, str) and name != wanted_name:
            return reason
    if names != wanted:
        return UNREADABLE
    if entry.get("revoked") is not False:
        return "revoked" if entry.get("revoked") is True else UNREADABLE
    expires, granted = _day(entry.get("expires")), _time(entry.get("granted_at"), zone)
    if expires is None or granted is None:
        return UNREADABLE
    if now.astimezone(zone).date() > expires:
        return "expired"
    return COUNTS if granted <= now + tolerance else "not yet in force"


def _day(text):
    if not isinstance(text, str) or not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text):
        return None
    try:
        day = date.fromisoformat(text)
    except ValueError:
        return None
    return min(day, date(9998, 12, 31))


def _time(text, zone):
    if not isinstance(text, str) or len(text) > 40:
        return None
    try:
        time = datetime.fromisoformat(text)
        return (time if time.tzinfo else time.replace(tzinfo=zone)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _shown(value):
    return str(value)[:80]
