"""A kernel that computes keeps its server, for a time."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from notebook_server import activity
from notebook_server.activity import SETTING, BusyKernels, any_busy

NOW = datetime(2026, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


def kernel(state: str, age: timedelta, now: datetime = NOW) -> SimpleNamespace:
    return SimpleNamespace(execution_state=state, last_activity=now - age)


@pytest.mark.parametrize(
    ("kernels", "busy"),
    [
        ([], False),
        ([kernel("idle", 0 * HOUR)], False),
        ([kernel("starting", 0 * HOUR)], False),
        ([kernel("busy", 2 * HOUR)], True),
        ([kernel("busy", 4 * HOUR)], False),
        ([kernel("idle", 0 * HOUR), kernel("busy", HOUR)], True),
        ([SimpleNamespace(last_activity=NOW)], False),
    ],
)
def test_a_kernel_counts_while_it_computes_and_for_the_sites_time(kernels, busy):
    assert any_busy(kernels, NOW - 3 * HOUR) is busy


@pytest.mark.parametrize(("timeout", "counts"), [(60, True), (0, False)])
def test_the_server_is_told_at_each_look(monkeypatch, timeout, counts):
    looks = []
    callback = SimpleNamespace(start=lambda: None)
    monkeypatch.setattr(activity, "PeriodicCallback", lambda look, every: looks.append(look) or callback)
    computing = kernel("busy", timedelta(), datetime.now(UTC))
    kernels = SimpleNamespace(list_kernel_ids=lambda: ["a"], get_kernel=lambda name: computing)
    settings = {}
    BusyKernels(busy_timeout=timeout).follow(kernels, settings)
    for look in looks:
        look()
    assert (SETTING in settings) is counts
    assert SETTING.endswith("_last_activity"), "Jupyter Server counts settings by the end of their names"
