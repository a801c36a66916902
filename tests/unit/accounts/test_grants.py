"""The rule, over generated lists of grants, against a restatement of it that shares no code with it."""

import os
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from slurm_gateway.grants import judge

LONDON, AUCKLAND = ZoneInfo("Europe/London"), ZoneInfo("Pacific/Auckland")
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "300"))
NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
TODAY = NOW.date()


def grant(**changes):
    values = {
        "id": 7,
        "category": "additional_services",
        "service": "dask",
        "role": "USER",
        "granted_at": "2026-01-31T10:00:00Z",
        "expires": "2027-01-31",
        "revoked": False,
    } | changes
    return {
        "id": values["id"],
        "service": {"id": 3, "name": values["service"], "category": {"id": 1, "name": values["category"]}},
        "role": {"id": 5, "name": values["role"]},
        "granted_at": values["granted_at"],
        "expires": values["expires"],
        "revoked": values["revoked"],
        "revoked_at": None,
        "user_reason": "",
    }


def verdict(*grants, now=NOW, zone=LONDON, tolerance=0):
    return judge(
        list(grants),
        category="additional_services",
        service="dask",
        role="USER",
        now=now,
        zone=zone,
        tolerance=timedelta(seconds=tolerance),
    )


# -- the rule, in the plainest words -----------------------------------------------------------------------------


def holds(grants, now, zone):
    """Some grant is for the service and the role, was not revoked, has begun, and its last day is not over."""
    for entry in grants:
        first, last = datetime.fromisoformat(entry["granted_at"]), date.fromisoformat(entry["expires"])
        end = datetime(last.year, last.month, last.day, tzinfo=zone) + timedelta(days=1)  # in wall clock time
        if (
            entry["service"]["category"]["name"] == "additional_services"
            and entry["service"]["name"] == "dask"
            and entry["role"]["name"] == "USER"
            and entry["revoked"] is False
            and first.timestamp() <= now.timestamp() < end.timestamp()
        ):
            return True
    return False


near = st.integers(-3, 3).map(lambda days: (TODAY + timedelta(days=days)).isoformat())
zones = st.sampled_from(
    ["Europe/London", "UTC", "Pacific/Auckland", "Pacific/Kiritimati", "America/Los_Angeles", "Asia/Beirut"]
).map(ZoneInfo)
moments = st.datetimes(
    datetime(2026, 11, 21), datetime(2026, 11, 26), timezones=st.sampled_from([UTC, LONDON, AUCKLAND])
)
entries = st.builds(
    grant,
    id=st.integers(1, 99),
    category=st.sampled_from(["additional_services", "login_services", "Additional_services"]),
    service=st.sampled_from(["dask", "Dask", "dask ", "transfer"]),
    role=st.sampled_from(["USER", "MANAGER", "DEPUTY", "user"]),
    granted_at=moments.map(datetime.isoformat),
    expires=near,
    revoked=st.booleans(),
)
wanted_entries = st.builds(
    grant, id=st.integers(1, 99), granted_at=moments.map(datetime.isoformat), expires=near, revoked=st.booleans()
)


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.lists(st.one_of(entries, wanted_entries), max_size=6), moments, zones)
@example([grant(expires="2026-11-23", granted_at="2026-01-01T00:00:00Z")], NOW.replace(hour=23, minute=59), LONDON)
def test_the_decision_is_that_of_the_rule_in_plain_words(grants, now, zone):
    assert verdict(*grants, now=now, zone=zone).held is holds(grants, now, zone)


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.lists(entries, max_size=6), moments, zones)
def test_a_yes_says_when_it_ends_and_is_a_no_from_then_on(grants, now, zone):
    found = verdict(*grants, now=now, zone=zone)
    if found.held:
        end = datetime.fromtimestamp(found.ends, UTC)
        begun = [entry for entry in grants if datetime.fromisoformat(entry["granted_at"]) <= now]
        assert verdict(*begun, now=end - timedelta(seconds=1), zone=zone).held
        assert not verdict(*begun, now=end, zone=zone).held
    else:
        assert found.ends is None


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3),
    max_leaves=10,
)
FIELDS = ["id", "service", "role", "granted_at", "expires", "revoked"]
broken_entries = st.builds(
    lambda entry, field, value: entry | {field: value}, entries, st.sampled_from(FIELDS), json_values
)


@settings(max_examples=EXAMPLES, deadline=None)
@given(json_values | st.lists(json_values | broken_entries | entries, max_size=4))
def test_whatever_is_answered_there_is_a_verdict_or_a_type_error(answer):
    try:
        found = judge(answer, category="c", service="s", role="r", now=NOW, zone=LONDON)
    except TypeError:
        assert not isinstance(answer, list) or not all(isinstance(entry, dict) for entry in answer)
    else:
        assert found.held in (True, False, None)
        assert found.held is not True


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.sampled_from([field for field in FIELDS if field != "id"]), json_values)
def test_a_grant_with_a_field_that_is_something_else_never_counts_by_accident(field, value):
    found = verdict(grant() | {field: value})
    if found.held:
        assert field in ("granted_at", "expires", "revoked")
        assert value is False or isinstance(value, str)


# -- cases that people can check ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "held", "said"),
    [
        ({}, True, "counts"),
        ({"expires": "2026-11-23"}, True, "counts"),
        ({"expires": "2026-11-22"}, False, "expired"),
        ({"revoked": True}, False, "revoked"),
        ({"granted_at": "2026-11-24T00:00:00Z"}, False, "not yet in force"),
        ({"role": "MANAGER"}, False, "another role"),
        ({"category": "login_services"}, False, "another category"),
        ({"service": "transfer"}, False, "another service"),
        ({"service": "Dask"}, False, "another service"),
        ({"expires": None}, None, "unreadable"),
        ({"expires": "2027-13-01"}, None, "unreadable"),
        ({"expires": "20270131"}, None, "unreadable"),
        ({"revoked": None}, None, "unreadable"),
        ({"revoked": 0}, None, "unreadable"),
        ({"granted_at": "yesterday"}, None, "unreadable"),
        ({"expires": "never", "service": "transfer"}, False, "another service"),
        ({"expires": "9999-12-31"}, True, "counts"),
    ],
)
def test_one_grant(changes, held, said):
    found = verdict(grant(**changes))
    assert (found.held, found.grants[0].said) == (held, said)


def test_the_day_ends_in_the_sites_time_zone():
    last_second = datetime(2026, 7, 31, 22, 59, 59, tzinfo=UTC)  # 23:59:59 in London's summer
    ends_today = grant(expires="2026-07-31")
    assert verdict(ends_today, now=last_second).held
    assert not verdict(ends_today, now=last_second + timedelta(seconds=1)).held
    assert not verdict(ends_today, now=last_second, zone=AUCKLAND).held


def test_a_grant_of_this_moment_counts_although_the_portals_clock_is_ahead():
    ahead = grant(granted_at=(NOW + timedelta(seconds=20)).isoformat())
    assert verdict(ahead, tolerance=30).held
    assert not verdict(ahead).held


def test_of_two_unexpired_grants_the_later_end_counts():
    found = verdict(grant(id=1, expires="2026-12-01"), grant(id=2, expires="2027-06-01"), grant(id=3, revoked=True))
    assert (found.held, found.rule) == (True, "grant 2 counts until the end of 2027-06-01")


def test_a_grant_that_cannot_be_read_does_not_stand_in_the_way_of_one_that_counts():
    assert verdict(grant(expires=None), grant()).held


def test_a_no_names_the_grant_that_came_closest():
    found = verdict(grant(id=1, service="transfer"), grant(id=2, role="MANAGER"), grant(id=3, category="x"))
    assert found.rule == "no grant of additional_services/dask as USER counts; grant 2: another role"


def test_a_tie_between_a_day_and_no_such_midnight():
    """In Beirut the clocks go from 0:00 to 1:00: that day has no midnight, and the day before still ends."""
    zone = ZoneInfo("Asia/Beirut")
    change = datetime(2026, 3, 28, 22, 0, tzinfo=UTC)  # Sunday, 29 March, 0:00 would be
    assert verdict(grant(expires="2026-03-28"), now=change - timedelta(seconds=1), zone=zone).held
    assert not verdict(grant(expires="2026-03-28"), now=change, zone=zone).held
