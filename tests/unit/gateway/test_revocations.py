"""What happens to the clusters of users who lose the service, and what does not."""

import asyncio
import json
import time
from types import SimpleNamespace

import pytest
from dask_gateway import GatewayClusterError

from slurm_gateway.accounts import AccountsCheck, Decision
from slurm_gateway.audit import AuditLog
from slurm_gateway.revocations import Revocations

from .conftest import until


class Answers(AccountsCheck):
    """A check with an answer for each user."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.answers, self.asked, self.at_once = {}, [], 0
        self._now = 0

    async def decide(self, user):
        self.asked.append(user)
        self._now += 1
        self.at_once = max(self.at_once, self._now)
        await asyncio.sleep(0.001)
        self._now -= 1
        answer = self.answers.get(user, "yes")
        if answer == "yes":
            return Decision(user, True, "granted")
        if answer in ("away", "broken"):
            return self.unknown(user, "no answer", kind=answer)
        return self.refused(user, "not granted", kind=answer)


class Clusters:
    """Some clusters, and what was done to them."""

    def __init__(self, *names):
        self.all = [SimpleNamespace(name=name, username=name.partition("-")[0], lost_since=None) for name in names]
        self.done = []

    def running(self):
        return list(self.all)

    def remember(self, cluster, lost_since):
        cluster.lost_since = lost_since

    async def warn(self, cluster, sentence):
        self.done.append(("warned", cluster.name))
        self.sentence = sentence

    async def stop(self, cluster, sentence):
        self.done.append(("stopped", cluster.name))
        self.all.remove(cluster)
        self.sentence = sentence


class Job:
    """The job with a clock that tests set."""

    def __init__(self, path, *names, **settings):
        self.check = Answers(audit_file=str(path / "audit.log"), apply_url="https://accounts.test/")
        self.clusters = Clusters(*names)
        self.job = Revocations(check=self.check, clusters=self.clusters, **settings)
        self.now = time.time()
        self.job.clock = lambda: self.now

    async def pass_time(self, seconds):
        """Rounds as the job has them, for a time."""
        end = self.now + seconds
        while self.now < end:
            self.now += self.job.period
            await self.job.round()


@pytest.fixture
def run(tmp_path):
    """``run(test, "alice-1", …)``: the coroutine function `test` with the job and these clusters."""

    def run(test, *names, **settings):
        async def body():
            return await test(Job(tmp_path, *names, **settings))

        return asyncio.run(asyncio.wait_for(body(), 30))

    return run


def audited(path):
    return [json.loads(line) for line in (path / "audit.log").read_text().splitlines()]


def test_who_lost_the_service_is_warned_and_the_clusters_are_stopped_in_time(run, tmp_path):
    async def test(site):
        site.check.answers["carol"] = "held before"
        await site.pass_time(100)
        assert site.clusters.done == [("warned", "carol-1"), ("warned", "carol-2")]
        assert "save your results" in site.clusters.sentence
        assert "Apply at https://accounts.test/" in site.clusters.sentence
        await site.pass_time(200)
        assert len(site.clusters.done) == 2, "half of the time is the user's"
        await site.pass_time(300)
        assert site.clusters.done[2:] == [("stopped", "carol-1"), ("stopped", "carol-2")]

    run(test, "alice-1", "carol-1", "carol-2")
    entries = audited(tmp_path)
    assert [(e["user"], e["decision"], e["cluster"], e["source"]) for e in entries] == [
        ("carol", "cluster warned", "carol-1", "live"),
        ("carol", "cluster warned", "carol-2", "live"),
        ("carol", "cluster stopped", "carol-1", "live"),
        ("carol", "cluster stopped", "carol-2", "live"),
    ]
    assert all(entry["reason"] == "not granted" for entry in entries)


@pytest.mark.parametrize("within", [6, 60, 600, 7200])
def test_the_time_is_kept_whenever_the_service_is_lost(run, within):
    async def test(site):
        for moment in range(7):
            site.clusters = site.job.clusters = Clusters("carol-1")
            site.check.answers["carol"] = "yes"
            await site.job.round()
            site.now += moment * site.job.period / 7
            lost, site.check.answers["carol"] = site.now, "not held"
            site.now += (7 - moment) * site.job.period / 7
            while site.clusters.all:
                await site.job.round()
                site.now += site.job.period
            assert site.now - site.job.period - lost <= within

    run(test, "carol-1", within=within)


@pytest.mark.parametrize("answer", ["away", "broken", "not a user", "unknown user", "not in the group"])
def test_no_answer_and_other_troubles_stop_nothing(run, tmp_path, answer):
    async def test(site):
        site.check.answers = dict.fromkeys(("alice", "carol"), answer)
        await site.pass_time(6000)
        return site.clusters.done

    assert run(test, "alice-1", "carol-1") == []
    assert not (tmp_path / "audit.log").exists()


def test_a_portal_that_goes_away_after_the_warning_stops_nothing_until_it_is_back(run):
    async def test(site):
        site.check.answers["carol"] = "not held"
        await site.pass_time(100)
        site.check.answers["carol"] = "away"
        await site.pass_time(6000)
        assert site.clusters.done == [("warned", "carol-1")]
        site.check.answers["carol"] = "not held"
        await site.pass_time(100)
        assert site.clusters.done[1:] == [("stopped", "carol-1")]

    run(test, "carol-1")


def test_who_is_granted_it_again_goes_on(run, tmp_path):
    async def test(site):
        site.check.answers["carol"] = "not held"
        await site.pass_time(200)
        site.check.answers["carol"] = "yes"
        await site.pass_time(1000)
        assert site.clusters.done == [("warned", "carol-1"), ("warned", "carol-1")]
        assert "goes on" in site.clusters.sentence
        site.check.answers["carol"] = "not held"
        await site.pass_time(200)
        assert site.clusters.done[2:] == [("warned", "carol-1")], "and has the whole time again"

    run(test, "carol-1")
    assert [entry["decision"] for entry in audited(tmp_path)] == [
        "cluster warned",
        "cluster relieved",
        "cluster warned",
    ]


def test_an_answer_from_memory_stops_nothing(run):
    async def test(site):
        await site.check.check("carol")
        site.check.answers["carol"] = "away"  # and grace says yes
        await site.pass_time(1000)
        assert site.clusters.done == []

    run(test, "carol-1")


def test_many_users_are_asked_about_in_batches_and_each_once(run):
    async def test(site):
        await site.job.round()
        assert sorted(site.check.asked) == sorted(f"user{number}" for number in range(50))
        assert site.check.at_once == 20

    run(test, *(f"user{number}-{cluster}" for number in range(50) for cluster in range(3)))


def test_a_portal_that_is_away_is_asked_one_batch_only(run):
    async def test(site):
        site.check.answers = {f"user{number}": "away" for number in range(50)}
        await site.job.round()
        assert len(site.check.asked) == 20

    run(test, *(f"user{number}-1" for number in range(50)))


def test_trouble_with_one_cluster_is_not_anothers(run):
    async def test(site):
        site.check.answers = dict.fromkeys(("alice", "carol"), "not held")

        async def fail(cluster, sentence):
            if cluster.username == "alice":
                raise RuntimeError("a full disk")
            site.clusters.done.append(("warned", cluster.name))

        site.clusters.warn = fail
        await site.job.round()
        assert site.clusters.done == [("warned", "carol-1")]

    run(test, "alice-1", "carol-1")


# -- in the gateway ----------------------------------------------------------------------------------------------


def test_a_user_who_loses_the_service_finds_the_warning_in_the_clusters_log_and_then_the_cluster_stopped(site):
    async def test(site):
        name = await site.running()
        other = await site.running("carol")
        site.backend.accounts.holders = {"carol"}
        await until(lambda: any("note" in request for _, _, request in site.batch.requests))
        user, action, request = next(entry for entry in site.batch.requests if "note" in entry[2])
        assert (user, action, request["cluster"], request["log"]) == ("alice", "cancel", name, "scheduler")
        assert request["note"].startswith("dask-gateway: This cluster will be stopped at ")
        assert site.cluster(name).is_active()
        assert site.cluster(name).state["lost_since"]

        await until(lambda: site.cluster(name).status.name == "STOPPED")
        assert "no longer holds the service" in site.cluster(name).state["problem"]
        assert site.cluster(other).is_active()

    site(test, revocations=0.6)


def test_the_time_of_the_warning_outlives_a_restart(site):
    async def test(site):
        name = await site.running()
        site.backend.accounts.holders = set()
        await until(lambda: site.cluster(name).state.get("lost_since"))
        since = site.cluster(name).state["lost_since"]
        await site.kill()
        await site.start()
        site.backend.accounts.holders = set()
        assert site.cluster(name).state["lost_since"] == since
        await until(lambda: site.cluster(name).status.name == "STOPPED")

    site(test, revocations=0.6)


def test_a_client_of_a_stopped_cluster_reads_why(site):
    async def test(site):
        name = await site.running()
        site.backend.accounts.holders = set()
        await until(lambda: site.cluster(name).status.name == "STOPPED")
        async with site.client() as gateway:
            with pytest.raises(GatewayClusterError, match="no longer holds the service 'dask'"):
                await gateway.scale_cluster(name, 1)

    site(test, revocations=0.3)


def test_a_scheduler_that_grows_by_itself_gets_no_workers_for_a_user_who_lost_the_service(site, tmp_path):
    async def test(site):
        site.backend.accounts.audit = AuditLog(str(tmp_path / "audit.log"), site.backend.log)
        name = await site.running()
        await site.heartbeat(name, count=1)
        await until(lambda: site.batch.living("worker"))
        site.backend.accounts.holders = set()
        for _ in range(3):
            assert await site.heartbeat(name, count=3) == 200
        assert site.cluster(name).count == 1
        entries = [e for e in audited(tmp_path) if e["action"] == "grow"]
        assert [e["decision"] for e in entries] == ["allowed", "refused"], "and not with each heartbeat"

        assert await site.heartbeat(name, count=0) == 200
        assert site.cluster(name).count == 0, "to shrink is always allowed"
        site.backend.accounts.holders = {"alice"}
        await site.heartbeat(name, count=3)
        await until(lambda: len(site.batch.living("worker")) == 3)

    site(test)
