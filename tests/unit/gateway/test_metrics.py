"""What a monitoring system reads."""

import re

import requests
from stand_in import free_port

from slurm_gateway import metrics


def test_metrics_are_served_on_the_loopback_until_stopped():
    port = free_port()
    stop = metrics.serve(port)
    try:
        text = requests.get(f"http://127.0.0.1:{port}/metrics", timeout=10).text
    finally:
        stop()
    for name in ("accounts_check_decisions_total", "accounts_check_seconds", "accounts_portal_errors_total"):
        assert f"# HELP {name.removesuffix('_total')}" in text


def test_decisions_are_counted_by_outcome_and_source(site):
    async def test(site):
        for user in ("alice", "bob", "alice"):
            await site.backend.accounts.check(user)
        answer = await (await site.http.get(f"http://127.0.0.1:{port}/metrics")).text()
        counts = re.findall(r'accounts_check_decisions_total\{outcome="(\w+)",source="live"\} (\S+)', answer)
        assert {outcome for outcome, count in counts if float(count) >= 1} >= {"allowed", "refused"}

    port = free_port()
    site(test, metrics_port=port)


def test_a_port_that_is_taken_does_not_keep_the_gateway_from_starting(site):
    port = free_port()
    stop = metrics.serve(port)

    async def test(site):
        async with site.client() as gateway:
            assert await gateway.list_clusters() == []

    try:
        site(test, metrics_port=port)
    finally:
        stop()
