"""The canary: the service from end to end as a user, each hop by its name, and nothing left behind."""

import asyncio
import json
import os
import signal
import sys

import pytest

from .conftest import examined, until

CLIENT = """#!{python}
import json, sys
order = json.load(sys.stdin)
assert set(order) == {{"address", "token", "cluster"}}, order
{steps}
"""
COMPUTES = "print('connected'); print('result 42')"


@pytest.fixture
def canary(tmp_path, admin):
    """``await canary(site)``: exit code and {hop: finding}; Dask's client is a stand-in that prints this."""

    async def fly(site, *arguments, steps=COMPUTES, token="alice-token", user="alice", seconds=5):  # noqa: S107
        client = tmp_path / "client"
        client.write_text(CLIENT.format(python=sys.executable, steps=steps))
        client.chmod(0o755)
        config, token_file = tmp_path / "canary.json", tmp_path / "token"
        options = {"workers": 1, "time_limit": "00:10:00"}
        config.write_text(json.dumps({"python": str(client), "user": user, "seconds": seconds, "options": options}))
        token_file.write_text(f"{token}\n")
        return await examined(
            site, admin, "--canary", f"--canary-config={config}", f"--token-file={token_file}", *arguments
        )

    return fly


@pytest.fixture
def flown(well, canary, batch, monkeypatch):
    """``flown(check, …)``: `check(code, {hop: finding}, site)` after a flight, where jobs start at once."""
    monkeypatch.setattr("slurm_gateway.canary.NOBODY", {})

    def run(check, start=True, before=lambda site: None, **how):
        async def test(site):
            async def start_jobs():
                while True:
                    for name, cluster in list(site.backend.db.name_to_cluster.items()):
                        if cluster.status.name == "SUBMITTED" and cluster.state.get("job_id") in site.batch.known:
                            site.batch.set(cluster.state["job_id"], "RUNNING")
                            await site.heartbeat(name)
                    await asyncio.sleep(0.02)

            before(site)
            starter = asyncio.create_task(start_jobs()) if start else None
            try:
                code, found = await canary(site, **how)
            finally:
                if starter:
                    starter.cancel()
            hops = {part.removeprefix("canary: "): f for part, f in found.items() if part.startswith("canary")}
            await until(lambda: site.batch.living() == [])
            check(code, hops, site)

        well(test)

    return run


def test_every_hop_is_told_by_its_name_and_nothing_is_left(flown):
    def check(code, hops, site):
        assert list(hops) == ["hub", "sign-in", "cluster", "connection", "task", "shutdown"]
        assert {finding["state"] for finding in hops.values()} == {"ok"}, hops
        assert code == 0
        assert [c.status.name for c in site.backend.db.name_to_cluster.values()] == ["STOPPED"]
        assert all(finding["seconds"] >= 0 for finding in hops.values())

    flown(check)


@pytest.mark.parametrize(
    ("hop", "said", "how"),
    [
        ("hub", "has expired; make a new one", {"token": "forgotten-token"}),
        ("hub", "not carol's but alice's", {"user": "carol"}),
        ("hub", "status 503", {"before": lambda site: setattr(site, "hub_status", 503)}),
        ("cluster", "https://accounts.test/dask/", {"token": "bob-token", "user": "bob"}),
        ("connection", "ImportError: no distributed", {"steps": "raise ImportError('no distributed')"}),
        ("task", "it printed nothing", {"steps": "print('connected')"}),
        ("task", "6 times 7 was computed as 41", {"steps": "print('connected'); print('result 41')"}),
        (
            "task",
            "not done 2 s",
            {"steps": "print('connected', flush=True); import time; time.sleep(60)", "seconds": 2},
        ),
    ],
)
def test_the_hop_that_fails_is_named_and_the_cluster_is_stopped_all_the_same(flown, hop, said, how):
    def check(code, hops, _):
        assert code == 2
        assert hops[hop]["state"] == "critical"
        assert said in hops[hop]["said"]
        reached = [*hops][: [*hops].index(hop)]
        assert {hops[name]["state"] for name in reached} <= {"ok"}
        assert hops.get("shutdown", {"state": "ok"})["state"] == "ok"
        assert how.get("token", "alice-token") not in json.dumps(hops)

    flown(check, **how)


def test_a_full_batch_cluster_is_a_warning_with_slurms_reason(flown):
    def check(code, hops, _):
        assert code == 1
        assert hops["cluster"]["state"] == "warning"
        assert "waits in the batch cluster's queue (Priority)" in hops["cluster"]["said"]
        assert hops["shutdown"]["state"] == "ok"

    flown(check, start=False, seconds=1)


def test_clusters_of_others_and_other_clusters_of_the_same_user_are_not_touched(well, canary, monkeypatch):
    monkeypatch.setattr("slurm_gateway.canary.NOBODY", {})

    async def test(site):
        mine, hers = await site.running("alice"), await site.running("carol")
        await canary(site, seconds=1)
        await until(lambda: len([c for c in site.backend.db.name_to_cluster.values() if c.is_active()]) == 2)
        assert site.cluster(mine).is_active()
        assert site.cluster(hers).is_active()

    well(test)


def test_a_canary_that_is_told_to_end_stops_its_cluster_first(site, tmp_path):
    from slurm_gateway.canary import Canary

    async def test(site):
        flight = Canary(str(site.hub.make_url("/hub/api")), site.url, "alice-token", {}, sys.executable)
        flying = asyncio.create_task(flight.fly(30))
        await until(lambda: site.batch.living() != [])
        os.kill(os.getpid(), signal.SIGTERM)
        findings = {finding.part: finding for finding in await flying}
        assert findings["canary: cluster"].said == "it was told to end"
        assert findings["canary: shutdown"].code == 0
        await until(lambda: site.batch.living() == [])

    site(test)


def test_without_a_token_there_is_no_canary_and_that_is_said(well, admin, tmp_path):
    async def test(site):
        code, found = await examined(site, admin, "--canary", f"--canary-config={tmp_path}/none.json")
        assert code == 2
        assert "dask_gateway_canary_token is not set" in found["canary"]["said"]

    well(test)
