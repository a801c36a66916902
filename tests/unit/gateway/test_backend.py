"""Clusters and their jobs: what is submitted, what a user reads, and what survives."""

import asyncio
import contextlib
import itertools
import json
import pwd
import re
import shlex
import time
import warnings
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from dask_gateway import GatewayClusterError, GatewayWarning

from slurm_gateway import launcher
from slurm_gateway.backend import LauncherError, SlurmGatewayBackend
from slurm_gateway.gateway_job import NO_SCHEDULER
from slurm_gateway.slurm import Job

from .conftest import until

# -- what is submitted ----------------------------------------------------------------------------------------


def command_of(request):
    return shlex.split(request["script"].splitlines()[-1])


def option(command, name):
    return command[command.index(name) + 1]


def test_a_schedulers_job(site):
    async def test(site):
        name = await site.submitted(worker_setup="source ~/venv/bin/activate", partition="debug", time_limit="2h")
        return name, site.batch.requests[0], site.cluster(name)

    name, (user, action, request), cluster = site(test)
    assert (user, action) == ("alice", "submit")
    assert {key: request[key] for key in ("cluster", "kind", "cpus", "memory", "time", "partition", "account")} == {
        "cluster": name, "kind": "scheduler", "cpus": 1, "memory": 2048, "time": 120, "partition": "debug",
        "account": "climate",
    }  # fmt: skip
    assert request["files"]["dask.token"] == cluster.token
    assert set(request["files"]) <= set(launcher.FILES)
    program = f"/home/users/alice/.dask-gateway/{name}/gateway_job.py scheduler"
    assert f'start=("$interpreter" {program}); else\n' in request["script"]
    assert "start+=(scheduler); fi\n" in request["script"]
    assert command_of(request)[:4] == ["exec", "${start[@]}", "--protocol", "tls"]
    script = request["script"]
    assert "source ~/venv/bin/activate" in script
    assert "module load jaspy" not in script
    assert "export DASK_GATEWAY_API_URL=https://gateway.test/api" in script
    assert f"export DASK_GATEWAY_API_TOKEN=/home/users/alice/.dask-gateway/{name}/dask.token" in script
    assert cluster.token not in script


def test_the_default_environment_is_loaded_where_the_user_has_none(site):
    async def test(site):
        await site.submitted()
        return site.batch.submissions()[0]

    assert "eval -- 'module load jaspy'\n" in site(test)["script"]


def test_workers_of_a_cluster_from_before_an_upgrade_bring_the_programs_that_they_need_once(site):
    async def test(site):
        name = await site.running()
        cluster = site.cluster(name)
        site.backend.db.update_cluster(
            cluster, state={"job_id": cluster.state["job_id"]}
        )  # as a release before wrote it
        for count in (1, 2):
            await site.heartbeat(name, count=count)
            await until(lambda count=count: len(site.workers(name, "SUBMITTED")) == count)
        return site.batch.submissions()

    _, first, second = site(test)
    assert set(first["files"]) == {"gateway_job.py", "gateway_preload.py"}, "the address and the keys stay"
    assert "files" not in second


def test_workers_are_submitted_with_one_sbatch(site, batch):
    async def test(site):
        name = await site.running(worker_cores=2, worker_memory=1.5, time_limit="10h")
        await site.heartbeat(name, count=16)
        await until(lambda: len(site.workers(name, "SUBMITTED")) == 16)
        jobs = {w.state["job_id"] for w in site.workers(name)}
        return site.batch.submissions(), [w.name for w in site.workers(name)], jobs

    (scheduler, workers), names, jobs = site(test)
    assert scheduler["kind"] == "scheduler"
    assert (workers["kind"], workers["array"], workers["cpus"], workers["memory"]) == ("worker", 16, 2, 1536)
    assert "files" not in workers
    command = command_of(workers)
    assert command[:3] == ["exec", "${start[@]}", "--name"]
    assert "/gateway_job.py worker tls://10.0.0.1:1234 300); else\n" in workers["script"]
    assert "start+=(worker tls://10.0.0.1:1234); fi\n" in workers["script"]
    assert "/gateway_preload.py; [ $? != 3 ] || exit 1" in workers["script"]
    assert option(command, "--nthreads") == "2"
    assert option(command, "--memory-limit") == str(1536 * 2**20)
    assert option(command, "--death-timeout") == "300"
    assert all(worker in workers["script"] for worker in names)
    assert len(jobs) == 16


def test_workers_hand_over_before_their_time_is_up_and_not_all_at_the_same_time(site):
    async def test(site):
        name = await site.running(time_limit="10h")
        await site.heartbeat(name, count=16)
        await until(lambda: len(site.workers(name, "SUBMITTED")) == 16)
        return site.batch.submissions()[1]["script"]

    (line,) = re.findall(r"^worker_lifetimes=\((.*)\)$", site(test), re.MULTILINE)
    lifetimes = sorted(int(word.removesuffix("s")) for word in line.split())
    assert 25200 <= lifetimes[0] <= lifetimes[-1] <= 35400
    assert min(b - a for a, b in itertools.pairwise(lifetimes)) > 300


def test_more_workers_than_an_array_may_have_are_several_arrays(site):
    async def test(site):
        name = await site.running()
        await site.heartbeat(name, count=25)
        await until(lambda: len(site.workers(name, "SUBMITTED")) == 25)
        return [request.get("array") for request in site.batch.submissions()[1:]]

    assert site(test, max_array_size=10) == [10, 10, 5]


def test_nothing_on_a_compute_node_serves_a_dashboard(site):
    async def test(site):
        name = await site.running()
        await site.heartbeat(name, count=1)
        await until(lambda: site.workers(name, "SUBMITTED"))
        async with site.client() as gateway:
            (report,) = await gateway.list_clusters()
        routes = {kind for kind, _ in site.backend.proxy.routes}
        return site.batch.submissions(), report.dashboard_link, routes, site.backend.proxy.routes

    submissions, link, _, routes = site(test)
    for request in submissions:
        assert "--no-dashboard" in command_of(request)
        assert "127.0.0.1:0" in command_of(request)
        assert "HTTP__ROUTES=" in request["script"]
    assert link is None
    assert not [path for _, path in routes if path.startswith("/clusters")]


def test_an_idle_cluster_ends_by_the_measure_that_counts_queued_tasks(site):
    async def test(site):
        await site.submitted()
        return site.batch.submissions()[0]

    request = site(test, idle_timeout=3600)
    command = command_of(request)
    assert option(command, "--dg-idle-timeout") == "0"
    assert "export DASK_DISTRIBUTED__SCHEDULER__IDLE_TIMEOUT=3600s" in request["script"]


# -- who may ----------------------------------------------------------------------------------------------------


def test_a_user_without_the_service_is_told_where_to_apply(site):
    async def test(site):
        async with site.client("bob") as gateway:
            with pytest.raises(ValueError, match=r"bob does not hold the service 'dask'\. Apply at https://accounts"):
                await gateway.new_cluster()
            assert site.batch.requests == []

    site(test)


def test_a_user_who_lost_the_service_can_stop_clusters_but_not_scale_them(site):
    async def test(site):
        name = await site.running()
        site.backend.accounts.holders = {"carol"}
        async with site.client() as gateway:
            with pytest.raises(GatewayClusterError, match="Apply at https://accounts"):
                await gateway.scale_cluster(name, 2)
            with pytest.raises(GatewayClusterError, match="Apply at https://accounts"):
                await gateway.adapt_cluster(name, 1, 2)
            assert [c.name for c in await gateway.list_clusters()] == [name]
            await gateway.stop_cluster(name)
        await until(lambda: site.batch.living() == [])

    site(test)


def test_another_user_neither_sees_nor_reaches_nor_stops_a_cluster(site):
    async def test(site):
        name = await site.running()
        async with site.client("carol") as gateway:
            assert await gateway.list_clusters() == []
            for request in (gateway.get_cluster, gateway.stop_cluster, lambda n: gateway.scale_cluster(n, 2)):
                with pytest.raises(aiohttp.ClientResponseError, match="403"):
                    await request(name)
        assert site.batch.living()

    site(test)


def test_a_user_outside_the_group_reads_that_and_leaves_nothing(site):
    async def test(site):
        site.batch.refuse = LauncherError("Sorry, user dask-gateway is not allowed to execute …", source="sudo")
        async with site.client("carol") as gateway:
            with pytest.raises(GatewayClusterError, match="carol is not in the group 'dask'"):
                await gateway.new_cluster()

    site(test)


def test_clusters_of_a_user_are_limited(site):
    async def test(site):
        for _ in range(4):
            await site.submitted()
        async with site.client() as gateway:
            with pytest.raises(ValueError, match="You have 4 clusters and are limited to 4"):
                await gateway.submit()
            first = (await gateway.list_clusters())[0].name
            await gateway.stop_cluster(first)
            await gateway.submit()

    site(test)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"worker_cores": 100}, "worker_cores is limited to 16 cores here; 100 was asked for"),
        ({"workers": 65}, "workers is limited to 64 workers here; 65 was asked for"),
        ({"worker_setup": "a\0b"}, "must hold no control characters"),
        ({"nothing\nsuch": 1}, "there is no option"),
        ({"account": "other"}, "account must be one of those that you may use"),
        ({"environment_variables": {"LD_PRELOAD": "/tmp/x.so"}}, "LD_PRELOAD can't be set here"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_with_a_sentence_whatever_the_client_sent(site, options, sentence):
    async def test(site):
        async with site.client() as gateway:
            with pytest.raises(ValueError, match=sentence):
                await gateway.submit(**options)
            assert site.batch.requests == []

    site(test)


@pytest.mark.parametrize(
    "body", ['{"cluster_options": []}', '{"cluster_options": "x"}', '{"cluster_options": {"a": {}}}']
)
def test_a_request_written_by_hand_is_refused(site, body):
    async def test(site):
        headers = {"Authorization": "jupyterhub alice-token", "Content-Type": "application/json"}
        async with site.http.post(f"{site.url}/api/v1/clusters/", data=body, headers=headers) as response:
            return response.status, await response.json()

    status, answer = site(test)
    assert status in (201, 422)
    assert status == 422 or body == '{"cluster_options": []}'
    assert status == 201 or answer["error"]


# -- failures are told ------------------------------------------------------------------------------------------


def failure(site, prepare, **options):
    """What the user reads whose cluster's job went wrong, and after how long."""

    async def test(site):
        async with site.client() as gateway:
            waiting = asyncio.ensure_future(gateway.new_cluster(**options))
            if not site.batch.refuse:
                await until(lambda: site.batch.living())
            began = time.monotonic()
            prepare(site, next(iter(site.batch.living()), None))
            with pytest.raises(GatewayClusterError) as caught:
                await waiting
            seconds = time.monotonic() - began
        await until(lambda: not [c for c in site.backend.db.name_to_cluster.values() if c.status.name != "FAILED"])
        assert site.batch.living() == []
        return str(caught.value), seconds

    sentence, seconds = site(test)
    assert seconds < 3
    return sentence


def test_a_setup_that_exits_is_told_with_its_code_and_log(site, batch):
    batch.logs["scheduler"] = ["about to exit", "bye"]
    sentence = failure(site, lambda s, job: s.batch.end(job, "FAILED", exit_code="3:0", reason="NonZeroExitCode"))
    assert "it ended with exit code 3" in sentence
    assert "worker_setup" in sentence
    assert "scheduler.log:\n  about to exit\n  bye" in sentence


def test_an_environment_without_dask_is_told(site, batch):
    batch.logs["scheduler"] = ["dask-gateway: there is no command 'dask' in this job's environment (PATH=/usr/bin)"]
    sentence = failure(site, lambda s, job: s.batch.end(job, "FAILED", exit_code="127:0"))
    assert "there is no `dask` command in its environment" in sentence


POLICY = (
    "Batch job submission failed: Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)"
)


@pytest.mark.parametrize(
    ("said", "advice"),
    [
        (
            "Batch job submission failed: Invalid account or account/partition combination specified",
            "another 'account'",
        ),
        ("Batch job submission failed: Invalid qos specification", "another 'qos'"),
        (
            "Batch job submission failed: Requested time limit is invalid (missing or exceeds some limit)",
            "shorter 'time",
        ),
        ("Batch job submission failed: Requested node configuration is not available", "fewer cores"),
        (f"QOSMaxSubmitJobPerUserLimit; {POLICY}", "limit of your account or QoS"),
        (f"AssocGrpSubmitJobsLimit; {POLICY}", "limit of your account or QoS"),
        (f"QOSMaxWallDurationPerJobLimit; {POLICY}", "shorter 'time_limit', or for another 'qos'"),
    ],
)
def test_slurms_own_words_are_told_with_what_to_do(site, batch, said, advice):
    batch.refuse = LauncherError(said, source="sbatch")
    sentence = failure(site, lambda s, job: None)
    assert sentence.startswith(f"SLURM refused the scheduler's job: {said}. ")
    assert advice in sentence


@pytest.mark.parametrize(
    ("state", "words"),
    [("OUT_OF_MEMORY", "more memory"), ("TIMEOUT", "longer 'time_limit'"), ("NODE_FAIL", "NODE_FAIL")],
)
def test_what_slurm_did_to_a_job_is_told(site, state, words):
    assert words in failure(site, lambda s, job: s.batch.end(job, state))


def test_a_full_home_folder_is_told(site, batch):
    batch.refuse = LauncherError("[Errno 122] Disk quota exceeded: 'dask.pem'", source="folder")
    assert "Disk quota exceeded" in failure(site, lambda s, job: None)


def test_a_failed_cluster_says_why_to_whoever_connects_later(site):
    async def test(site):
        name = await site.running()
        site.batch.end(site.cluster(name).state["job_id"], "OUT_OF_MEMORY")
        await until(lambda: site.cluster(name).status.name == "FAILED")
        async with site.client() as gateway:
            with pytest.raises(GatewayClusterError, match="ended as OUT_OF_MEMORY"):
                await gateway.connect(name)
            with pytest.raises(GatewayClusterError, match="ended as OUT_OF_MEMORY"):
                await gateway.scale_cluster(name, 1)

    site(test)


def test_a_scheduler_that_ends_while_it_runs_is_noticed_within_five_seconds(site):
    """Whatever else happens meanwhile, and with time to spare for squeue itself and for reading the log."""

    async def test(site):
        name = await site.running()
        checked = asyncio.Event()
        check = site.backend.check_jobs_once

        async def check_jobs_once():
            await check()
            checked.set()

        site.backend.check_jobs_once = check_jobs_once
        await checked.wait()
        began = time.monotonic()
        site.batch.end(site.cluster(name).state["job_id"], "OUT_OF_MEMORY")
        await asyncio.sleep(3.7)
        site.backend._wake.set()  # as a new job does
        await until(lambda: site.cluster(name).status.name == "FAILED", 10)
        assert time.monotonic() - began < 4.3
        assert "ended as OUT_OF_MEMORY" in site.cluster(name).state["problem"]

    defaults = SlurmGatewayBackend()
    site(test, pending_period=defaults.pending_period, running_period=defaults.running_period)


def test_workers_that_cannot_start_fail_a_cluster_that_has_no_others(site, batch):
    async def test(site):
        name = await site.running()
        site.batch.refuse = LauncherError("Batch job submission failed: Invalid qos specification", source="sbatch")
        await site.heartbeat(name, count=2)
        await until(lambda: site.cluster(name).target.name == "FAILED", 20)
        return site.cluster(name).state["problem"]

    assert "SLURM refused the workers' job: Batch job submission failed: Invalid qos" in site(test)


def test_workers_that_cannot_start_do_not_fail_a_cluster_that_computes(site):
    async def test(site):
        name = await site.running()
        await site.heartbeat(name, count=1)
        await until(lambda: site.workers(name, "SUBMITTED"))
        worker = site.workers(name)[0].name
        await site.heartbeat(name, count=1, active=[worker])
        site.batch.refuse = LauncherError(
            "Batch job submission failed: Job violates accounting policy", source="sbatch"
        )
        for _ in range(4):
            await site.heartbeat(name, count=2, active=[worker])
            site.backend._holds.clear()
            site.backend.queue.put(site.cluster(name))
            await asyncio.sleep(0.05)
        assert site.cluster(name).worker_start_failure_count >= 3
        assert site.cluster(name).is_active()
        assert "policy" in site.cluster(name).state["worker_problem"]

    site(test)


def test_workers_that_cannot_start_are_told_to_the_clients_at_once(site):
    async def test(site):
        name = await site.running()
        told = []

        async def tell(request):
            assert request.headers["Authorization"] == f"token {site.cluster(name).token}"
            told.append((await request.json())["text"])
            return web.Response()

        app = web.Application()
        app.router.add_post("/api/tell", tell)
        async with TestServer(app) as scheduler:
            site.cluster(name).api_address = str(scheduler.make_url("")).rstrip("/")
            await site.heartbeat(name, count=1)
            await until(lambda: site.workers(name, "SUBMITTED"))
            site.batch.end(site.workers(name)[0].state["job_id"], "OUT_OF_MEMORY")
            await until(lambda: told)
        assert "it needed more memory than it had" in told[0]

    site(test)


def test_a_worker_whose_job_dies_early_is_noticed(site, batch):
    async def test(site):
        name = await site.running()
        await site.heartbeat(name, count=1)
        await until(lambda: site.workers(name, "SUBMITTED"))
        job = site.workers(name)[0].state["job_id"]
        site.batch.logs[f"worker-{job}"] = ["ModuleNotFoundError: No module named 'dask_gateway'"]
        site.batch.end(job, "FAILED", exit_code="1:0")
        await until(lambda: site.cluster(name).state.get("worker_problem"))
        return site.cluster(name).state["worker_problem"]

    assert "there is no dask-gateway in its environment" in site(test)


# -- workers that come with their scheduler -------------------------------------------------------------------------


async def submitted_with(site, workers, **options):
    """A cluster that waits in the queue with so many workers."""
    name = await site.submitted(workers=workers, **options)
    await until(lambda: len(site.workers(name, "SUBMITTED")) == workers)
    return name


def test_the_first_workers_are_submitted_with_the_scheduler_and_wait_for_its_address(site):
    async def test(site):
        name = await submitted_with(site, 2, worker_memory=1.5)
        return name, site.batch.submissions(), {w.name: w.state["job_id"] for w in site.workers(name)}

    name, (request,), workers = site(test)
    assert (request["kind"], request["workers"]["array"], request["workers"]["memory"]) == ("scheduler", 2, 1536)
    file = f"/home/users/alice/.dask-gateway/{name}/scheduler.json"
    script = request["workers"]["script"]
    assert f"/gateway_job.py worker {file} 300); else\n" in script
    assert f"start+=(worker --scheduler-file {file}); fi\n" in script
    assert all(worker in script for worker in workers)
    assert "export DASK_GATEWAY_WORKERS=2\n" in request["script"]
    assert f"export DASK_GATEWAY_SCHEDULER_FILE={file}\n" in request["script"]
    assert request["files"]["scheduler.json"] == ""
    assert sorted(workers.values()) == ["101_0", "101_1"]


def test_scaling_counts_the_workers_that_came_with_the_scheduler(site):
    async def test(site):
        name = await submitted_with(site, 2)
        names = [w.name for w in site.workers(name)]
        await site.heartbeat(name, count=2, active=names[:1])
        await until(lambda: site.cluster(name).status.name == "RUNNING")
        await site.heartbeat(name, count=2, active=names)
        await site.heartbeat(name, count=5, active=names)
        await until(lambda: len(site.workers(name, "SUBMITTED")) == 3)
        await site.heartbeat(name, count=1, active=names[:1], closing=names[1:])
        await until(lambda: len(site.cluster(name).active_workers()) <= 2)
        return [r.get("array") for r in site.batch.submissions()], len(site.workers(name, "RUNNING"))

    assert site(test) == ([None, 3], 2)


def test_more_first_workers_than_an_array_may_have_are_several_arrays(site):
    async def test(site):
        await submitted_with(site, 25)
        first, *others = site.batch.submissions()
        return [first["workers"]["array"]] + [request["array"] for request in others]

    assert site(test, max_array_size=10) == [10, 10, 5]


def test_a_refused_scheduler_leaves_no_workers(site, batch):
    batch.refuse = LauncherError("Batch job submission failed: Invalid qos specification", source="sbatch")

    async def test(site):
        async with site.client() as gateway:
            with pytest.raises(GatewayClusterError, match="SLURM refused the scheduler's job"):
                await gateway.new_cluster(workers=2)
        await until(lambda: all(c.status.name == "FAILED" for c in site.backend.db.name_to_cluster.values()))
        assert site.batch.known == {}

    site(test)


def test_a_scheduler_that_fails_takes_its_workers_with_it(site):
    async def test(site):
        name = await submitted_with(site, 3)
        site.batch.end(site.cluster(name).state["job_id"], "FAILED", exit_code="3:0")
        await until(lambda: site.cluster(name).status.name == "FAILED")
        assert site.batch.living() == []

    site(test)


def test_refused_first_workers_are_told_and_the_cluster_lives(site, batch):
    batch.refuse_workers = {"error": "Batch job submission failed: Job violates policy limit", "source": "sbatch"}

    async def test(site):
        name = await site.submitted(workers=2)
        told = []

        async def tell(request):
            told.append((await request.json())["text"])
            return web.Response()

        app = web.Application()
        app.router.add_post("/api/tell", tell)
        app.router.add_post("/api/comm", lambda _: asyncio.sleep(0, web.Response()))
        async with TestServer(app) as scheduler:
            site.backend._check_heartbeat = lambda _: None
            await site.heartbeat(name, count=2, api_address=str(scheduler.make_url("")).rstrip("/"))
            await until(lambda: told)
            assert "SLURM refused the workers' job" in told[0]
            assert "A limit of your account" in told[0]
            assert "`cluster.scale(n)` tries again" in told[0]
            await site.heartbeat(name, count=2)
            await asyncio.sleep(0.2)
            assert len(site.batch.submissions()) == 1  # nothing is tried until the user says so
            assert site.cluster(name).status.name == "RUNNING"
            async with site.client() as gateway:
                await gateway.scale_cluster(name, 2)
            await until(lambda: len(site.workers(name, "SUBMITTED")) == 2)

    site(test)


def test_first_workers_for_which_slurm_had_no_time_are_submitted_later(site, batch):
    batch.refuse_workers = {"error": "Unable to contact slurm controller", "source": "sbatch", "temporary": True}

    async def test(site):
        await submitted_with(site, 2)
        return [request["kind"] for request in site.batch.submissions()]

    assert site(test) == ["scheduler", "worker"]


@pytest.mark.parametrize("came_through", ["both", "the scheduler"])
def test_a_kill_between_the_two_submissions_leaves_neither_too_few_nor_too_many(site, batch, came_through):
    async def test(site):
        batch.lose_answers = True
        if came_through == "the scheduler":
            batch.refuse_workers = {"error": "killed", "temporary": True}
        async with site.client() as gateway:
            name = await gateway.submit(workers=2)
        await until(lambda: batch.living("scheduler"))
        await site.kill()
        scheduler, workers = batch.living("scheduler"), batch.living("worker")
        assert len(workers) == (2 if came_through == "both" else 0)
        batch.lose_answers, batch.refuse_workers = False, None
        await site.start()
        await until(lambda: len(site.workers(name, "SUBMITTED")) == 2)
        assert batch.living("scheduler") == scheduler
        assert len(batch.living("worker")) == 2
        assert batch.living("worker") == sorted(w.state["job_id"] for w in site.workers(name))

    site(test)


def test_first_workers_that_waited_in_vain_are_replaced_when_the_scheduler_runs_and_not_before(site):
    async def test(site):
        name = await submitted_with(site, 1)
        (worker,) = site.workers(name)
        job = worker.state["job_id"]
        site.batch.logs[f"worker-{job}"] = [f"{NO_SCHEDULER} 300 s, for which this worker waited. Its job ends."]
        site.batch.end(job, "FAILED", exit_code="75:0")
        await until(lambda: worker.status.name == "FAILED")
        await asyncio.sleep(0.3)
        assert len(site.batch.submissions()) == 1
        site.batch.set(site.cluster(name).state["job_id"], "RUNNING")
        await site.heartbeat(name, count=1)
        await until(lambda: site.workers(name, "SUBMITTED"))
        assert site.cluster(name).worker_start_failure_count == 0
        assert "worker_problem" not in site.cluster(name).state

    site(test)


def test_a_first_worker_that_fails_is_told_once_the_scheduler_runs(site):
    async def test(site):
        name = await submitted_with(site, 1)
        site.batch.end(site.workers(name)[0].state["job_id"], "OUT_OF_MEMORY")
        await until(lambda: site.cluster(name).state.get("worker_problem"))
        told = []

        async def tell(_, text):
            told.append(text)

        site.backend.tell = tell
        await site.heartbeat(name, count=1)
        await until(lambda: told)
        assert "it needed more memory than it had" in told[0]

    site(test)


@pytest.mark.parametrize(
    ("setting", "enforced", "expected"),
    [
        ("auto", True, "--no-nanny"),
        ("auto", False, "--nanny"),
        ("always", True, "--nanny"),
        ("never", False, "--no-nanny"),
    ],
)
def test_workers_have_a_nanny_where_slurm_does_not_hold_them_to_their_memory(site, batch, setting, enforced, expected):
    async def test(site):
        batch.enforces_memory = enforced
        await submitted_with(site, 1)
        return command_of(site.batch.submissions()[0]["workers"])

    assert expected in site(test, worker_nanny=setting)


def test_without_a_nanny_tasks_have_one_thread_as_with_one_unless_the_user_says_otherwise(site, batch):
    batch.enforces_memory = True

    async def test(site):
        await submitted_with(site, 1, environment_variables={"OMP_NUM_THREADS": "4"})
        return site.batch.submissions()[0]

    request = site(test)
    assert "export OMP_NUM_THREADS=4\n" in request["workers"]["script"]
    assert "export MKL_NUM_THREADS=1\n" in request["workers"]["script"]
    assert "MKL_NUM_THREADS" not in request["script"]


# -- nothing ends that is alive -----------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["SUSPENDED", "REQUEUED", "REQUEUE_HOLD", "CONFIGURING", "STAGE_OUT", "SPECIAL_EXIT"])
def test_a_job_in_an_unusual_state_is_not_taken_for_dead(site, state):
    async def test(site):
        waiting, running = await site.submitted(), await site.running()
        for name in (waiting, running):
            site.batch.set(site.cluster(name).state["job_id"], state)
        await asyncio.sleep(0.5)
        assert site.cluster(waiting).is_active()
        assert site.cluster(running).is_active()

    site(test)


def test_slurm_that_is_away_loses_no_cluster(site):
    async def test(site):
        waiting, running = await site.submitted(), await site.running()
        site.batch.away = True
        await asyncio.sleep(0.5)
        async with site.client("carol") as gateway:
            new = await gateway.submit()
        await asyncio.sleep(0.3)
        assert all(site.cluster(name).is_active() for name in (waiting, running, new))
        site.batch.away = False
        await until(lambda: site.cluster(new).status.name == "SUBMITTED")

    site(test)


def test_slurm_that_is_away_for_longer_than_heartbeats_may_be_missing_loses_no_cluster(site):
    """A restart of slurmctld and a network that comes back: neither heartbeats nor jobs are known for a while."""

    async def test(site):
        name = await site.running()
        cluster, running = site.cluster(name), site.batch.known.copy()
        site.batch.away = True
        cluster.last_heartbeat -= 11 * 60_000
        await site.backend._check_timeouts()
        await asyncio.sleep(0.5)
        assert (cluster.status.name, cluster.is_active()) == ("RUNNING", True)
        site.batch.away = False
        await site.backend._check_timeouts()
        await asyncio.sleep(0.5)
        assert (cluster.status.name, cluster.is_active()) == ("RUNNING", True)
        assert site.batch.known == running
        assert await site.heartbeat(name) == 200

    site(test)


def test_a_squeue_that_shows_nothing_ends_no_cluster(site):
    """With PrivateData=jobs a gateway without operator's rights sees no job at all."""

    async def test(site):
        waiting, running = await site.submitted(), await site.running()
        site.batch.known.clear()
        await asyncio.sleep(0.5)
        assert site.cluster(waiting).is_active()
        assert site.cluster(running).is_active()

    site(test)


def test_a_job_that_only_accounting_remembers_has_ended(site):
    async def test(site):
        name = await site.submitted()
        job = site.batch.known.pop(site.cluster(name).state["job_id"])
        site.batch.accounting[job.id] = Job(job.id, "FAILED", exit_code="1:0")
        await until(lambda: site.cluster(name).status.name == "FAILED")

    site(test)


def test_a_cluster_without_a_job_and_without_heartbeats_is_given_up(site):
    async def test(site):
        name = await site.running()
        site.batch.known.clear()
        await until(lambda: site.cluster(name).status.name == "FAILED")
        assert "SLURM has no record of its end" in site.cluster(name).state["problem"]

    site(test, cluster_heartbeat_timeout=0.3)


def test_missed_heartbeats_end_no_cluster_whose_job_runs(site):
    async def test(site):
        name = await site.running()
        site.cluster(name).last_heartbeat -= 3_600_000
        await site.backend._check_timeouts()
        await asyncio.sleep(0.3)
        assert site.cluster(name).is_active()

    site(test)


def test_a_job_that_queues_for_long_is_neither_cancelled_nor_submitted_again(site):
    async def test(site):
        name = await site.submitted()
        site.cluster(name).start_time -= 86_400_000
        await site.backend._check_timeouts()
        await asyncio.sleep(0.3)
        assert site.cluster(name).is_active()
        assert len(site.batch.submissions()) == 1
        assert site.backend.cluster_start_timeout > 7 * 86400
        assert site.backend.worker_start_timeout > 7 * 86400

    site(test)


def test_a_scheduler_that_is_busy_is_asked_again_and_lives(site):
    async def test(site):
        name = await site.running()
        answers = iter([500, 500, 200])
        told = []

        async def comm(request):
            told.append(await request.json())
            return web.Response(status=next(answers, 500))

        app = web.Application()
        app.router.add_post("/api/comm", comm)
        async with TestServer(app) as scheduler, site.client() as gateway:
            site.cluster(name).api_address = str(scheduler.make_url("")).rstrip("/")
            await gateway.scale_cluster(name, 3)
            assert [message["count"] for message in told] == [3, 3, 3]
            with pytest.raises(GatewayClusterError, match=r"does not answer at the moment\. It goes on running"):
                await gateway.scale_cluster(name, 4)
        assert site.cluster(name).is_active()

    site(test)


@pytest.mark.parametrize(
    ("ask", "sentence", "told"),
    [
        (lambda g, name: g.scale_cluster(name, 9), "request of 9 workers would exceed .* limit of 3", {"count": 3}),
        (
            lambda g, name: g.adapt_cluster(name, 5, 9),
            "`maximum=9, minimum=5` workers would exceed .* limit of 3",
            {"minimum": 3, "maximum": 3},
        ),
        (lambda g, name: g.adapt_cluster(name, 1, 9), "`maximum=9, .* limit of 3", {"minimum": 1, "maximum": 3}),
        (lambda g, name: g.scale_cluster(name, 3), None, {"count": 3}),
        (lambda g, name: g.adapt_cluster(name, 1), None, {"minimum": 1, "maximum": 3}),
    ],
    ids=["scale", "adapt", "adapt above only", "scale to the limit", "adapt without a maximum"],
)
def test_more_workers_than_the_limit_are_not_had_and_the_user_reads_so(site, ask, sentence, told):
    async def test(site):
        site.backend.site_options.limits = {**site.backend.site_options.limits, "workers": 3}
        name = await site.running()
        heard = []

        async def comm(request):
            heard.append(await request.json())
            return web.Response()

        app = web.Application()
        app.router.add_post("/api/comm", comm)
        async with TestServer(app) as scheduler, site.client() as gateway:
            site.cluster(name).api_address = str(scheduler.make_url("")).rstrip("/")
            with warnings.catch_warnings(record=True) as read:
                warnings.simplefilter("always")
                await ask(gateway, name)
        (message,) = heard
        assert {key: message[key] for key in told} == told
        return [str(w.message) for w in read if issubclass(w.category, GatewayWarning)]

    sentences = site(test)
    assert len(sentences) == (sentence is not None)
    assert all(re.search(sentence, said) for said in sentences)


def test_a_scheduler_that_counts_more_workers_than_the_limit_gets_no_more(site):
    """It is a process of the user, and may report what it likes."""

    async def test(site):
        site.backend.site_options.limits = {**site.backend.site_options.limits, "workers": 3}
        name = await site.running()
        await site.heartbeat(name, count=9)
        await until(lambda: site.workers(name))
        await asyncio.sleep(0.3)
        return len(site.batch.living("worker"))

    assert site(test) == 3


@pytest.mark.parametrize(
    "message", [{"minimum": 3, "maximum": 1}, {"minimum": "1"}, {"minimum": -1}, {"maximum": 1.5}, {"active": "no"}]
)
def test_an_impossible_scale_is_refused_with_a_sentence(site, message):
    async def test(site):
        name = await site.running()
        headers = {"Authorization": "jupyterhub alice-token"}
        url = f"{site.url}/api/v1/clusters/{name}/adapt"
        async with site.http.post(url, json=message, headers=headers) as response:
            return response.status

    assert site(test) in (409, 500)


@pytest.mark.parametrize(
    "changes",
    [{"scheduler_address": "tls://127.0.0.1:8000"}, {"scheduler_address": "tcp://10.0.0.1:22"},
     {"scheduler_address": "tls://gateway:443"}, {"api_address": "http://169.254.169.254:80"},
     {"api_address": "file:///etc/passwd"}, {"count": "7"}, {"count": -1}, {"active_workers": {"a": 1}},
     {"scheduler_address": None}],
    ids=str,
)  # fmt: skip
def test_a_heartbeat_does_not_point_the_proxy_at_other_things(site, changes):
    async def test(site):
        name = await site.submitted()
        assert await site.heartbeat(name, **changes) == 409
        assert site.cluster(name).status.name == "SUBMITTED"

    site(test)


# -- a gateway that is restarted or killed --------------------------------------------------------------------


def test_a_restart_keeps_every_cluster_and_worker(site):
    async def test(site):
        name = await site.running()
        await site.heartbeat(name, count=2)
        await until(lambda: len(site.workers(name, "SUBMITTED")) == 2)
        workers = [w.name for w in site.workers(name)]
        await site.heartbeat(name, count=2, active=workers)
        before = site.batch.living()
        await site.stop()
        await site.start()
        await site.backend._check_timeouts()
        await asyncio.sleep(0.3)
        assert await site.heartbeat(name, count=2, active=workers) == 200
        assert len(site.workers(name, "RUNNING")) == 2
        assert site.batch.living() == before
        assert site.backend.proxy.routes[("SNI", name)]["target"] == "tls://10.0.0.1:1234"

    site(test)


def test_a_kill_between_sbatch_and_the_record_of_it_leaves_no_second_scheduler(site):
    async def test(site):
        site.batch.lose_answers = True
        async with site.client() as gateway:
            name = await gateway.submit()
        await until(lambda: site.batch.living("scheduler"))
        await site.kill()
        jobs = site.batch.living("scheduler")
        site.batch.lose_answers = False
        await site.start()
        await until(lambda: site.cluster(name).status.name == "SUBMITTED")
        await asyncio.sleep(0.3)
        assert site.batch.living("scheduler") == jobs[:1]
        assert site.cluster(name).state["job_id"] == jobs[0]

    site(test)


def test_a_kill_between_sbatch_and_the_record_of_it_leaves_no_second_workers(site):
    async def test(site):
        name = await site.running()
        site.batch.lose_answers = True
        await site.heartbeat(name, count=3)
        await until(lambda: len(site.batch.living("worker")) == 3)
        await site.kill()
        site.batch.lose_answers = False
        await site.start()
        await until(lambda: len(site.workers(name, "SUBMITTED")) == 3)
        await asyncio.sleep(0.3)
        assert sorted(w.state["job_id"] for w in site.workers(name)) == site.batch.living("worker")
        assert len(site.batch.living("worker")) == 3

    site(test)


def test_jobs_of_a_lost_database_are_cancelled_and_those_of_others_are_not(site):
    async def test(site):
        name = await site.running()
        await site.heartbeat(name, count=2)
        await until(lambda: len(site.workers(name, "SUBMITTED")) == 2)
        comment = f"dask-gateway:{{}}:{'f' * 32}:worker:-"
        long_ago, now = "2020-01-01T00:00:00", time.strftime("%Y-%m-%dT%H:%M:%S")
        for job in (
            Job("1", "RUNNING", user="alice", comment="my own", submitted=long_ago),
            Job("2", "RUNNING", user="alice", comment=comment.format("another-gateway"), submitted=long_ago),
            Job("3", "RUNNING", user="alice", comment=comment.format("gateway"), submitted=now),
        ):
            site.batch.known[job.id] = job
        await site.stop()
        (site.path / "gateway.sqlite").unlink()
        await site.start()
        await until(lambda: site.batch.living() == ["1", "2", "3"])
        cancelled = [request for _, action, request in site.batch.requests if action == "cancel"]
        assert len(cancelled) == 1

    site(test)


def test_the_proxy_loads_all_routes_after_a_restart_of_the_gateway(site):
    async def test(site):
        headers = {"Authorization": "token proxy-token"}
        async with site.http.get(f"{site.url}/api/v1/routes", headers=headers) as response:
            last = (await response.json())["id"]
        await site.stop()
        await site.start()
        url = f"{site.url}/api/v1/routes?watch=1&last_id={last}"
        async with site.http.get(url, headers=headers) as response:
            assert response.status == 410  # Gone: load everything again

    site(test)


def test_waiting_clients_do_not_hold_up_a_restart(site):
    async def test(site):
        name = await site.submitted()
        async with site.client() as gateway:
            waiting = asyncio.ensure_future(gateway._cluster_report(name, wait=True))
            await asyncio.sleep(0.1)
            began = time.monotonic()
            await site.stop()
            seconds = time.monotonic() - began
            with contextlib.suppress(Exception):
                await waiting
        await site.start()
        return seconds

    assert site(test) < 3


# -- nothing is left ----------------------------------------------------------------------------------------------


def test_stopping_cancels_all_jobs_with_one_request(site):
    async def test(site):
        name = await site.running()
        await site.heartbeat(name, count=3)
        await until(lambda: len(site.workers(name, "SUBMITTED")) == 3)
        async with site.client() as gateway:
            await gateway.stop_cluster(name)
            await until(lambda: site.cluster(name).status.name == "STOPPED")
        return site.batch

    batch = site(test)
    assert batch.living() == []
    (cancel,) = [request for _, action, request in batch.requests if action == "cancel"]
    assert len(cancel["jobs"]) == 3
    assert cancel["last"] == "100"
    assert cancel["remove"] is True


def test_a_failed_cancel_is_tried_again_until_slurm_has_taken_it(site):
    async def test(site):
        name = await site.running()
        site.batch.cancel_fails = 4
        async with site.client() as gateway:
            await gateway.stop_cluster(name)
            assert await gateway.list_clusters() == []
        await asyncio.sleep(0.02)
        assert site.cluster(name).status.name != "STOPPED"
        await until(lambda: site.cluster(name).status.name == "STOPPED")
        assert site.batch.living() == []

    site(test)


def test_a_stop_survives_a_kill(site):
    async def test(site):
        name = await site.running()
        site.batch.away = True
        async with site.client() as gateway:
            await gateway.stop_cluster(name)
        await site.kill()
        site.batch.away = False
        await site.start()
        await until(lambda: site.cluster(name).status.name == "STOPPED")
        assert site.batch.living() == []

    site(test)


def test_a_worker_that_was_told_to_stop_while_it_was_submitted_is_cancelled(site):
    async def test(site):
        name = await site.running()
        original = site.batch.do_as_user

        async def slow(user, action, **request):
            answer = await original(user, action, **request)
            if action == "submit":
                await asyncio.sleep(0.3)
            return answer

        site.backend.do_as_user = slow
        await site.heartbeat(name, count=2)
        await asyncio.sleep(0.1)
        await site.heartbeat(name, count=0)
        await until(lambda: len(site.workers(name, "STOPPED")) == 2)
        assert site.batch.living("worker") == []

    site(test)


def test_a_cluster_that_ends_by_itself_counts_as_stopped_and_takes_its_workers_along(site):
    async def test(site):
        name = await site.running()
        await site.heartbeat(name, count=1)
        await until(lambda: site.workers(name, "SUBMITTED"))
        site.batch.end(site.cluster(name).state["job_id"], "COMPLETED", exit_code="0:0")
        await until(lambda: site.cluster(name).status.name == "STOPPED")
        assert site.batch.living() == []

    site(test)


def test_a_cluster_whose_user_left_the_group_is_held_until_slurm_says_that_its_jobs_are_over(site):
    """Sudo refuses to act for such a user: nothing can be cancelled, and nothing is given up while it runs."""

    async def test(site):
        name = await site.running()
        await site.heartbeat(name, count=1)
        await until(lambda: site.workers(name, "SUBMITTED"))
        original = site.batch.do_as_user

        async def refused(user, action, **request):
            if action == "cancel":
                raise LauncherError("Sorry, user dask-gateway is not allowed to execute …", source="sudo")
            return await original(user, action, **request)

        site.backend.do_as_user = refused
        async with site.client() as gateway:
            await gateway.stop_cluster(name)
        await asyncio.sleep(0.5)
        assert site.cluster(name).status.name == "CLOSING"
        worker, scheduler = site.workers(name)[0].state["job_id"], site.cluster(name).state["job_id"]
        site.batch.end(scheduler, "TIMEOUT")
        await asyncio.sleep(0.3)
        assert site.cluster(name).status.name == "CLOSING"
        del site.batch.known[worker]  # which says nothing: it may be hidden
        await asyncio.sleep(0.3)
        assert site.cluster(name).status.name == "CLOSING"
        site.batch.accounting[worker] = Job(worker, "COMPLETED")
        await until(lambda: site.cluster(name).status.name == "STOPPED")

    site(test)


def test_a_cluster_of_which_it_is_not_known_whether_it_has_a_job_is_not_given_up(site):
    async def test(site):
        async def away(user, action, **request):
            raise LauncherError("no answer in 180 s", temporary=True)

        original, site.backend.do_as_user = site.backend.do_as_user, away
        async with site.client() as gateway:
            name = await gateway.submit()
            await gateway.stop_cluster(name)
        await asyncio.sleep(0.3)
        assert site.cluster(name).status.name == "CLOSING"
        site.backend.do_as_user = original
        await until(lambda: site.cluster(name).status.name == "STOPPED")

    site(test)


def test_jobs_that_slurm_accepted_to_cancel_and_that_run_on_are_cancelled_again(site):
    async def test(site):
        name = await site.running()
        job = site.cluster(name).state["job_id"]
        site.batch.end = lambda *_, **__: None  # scancel says yes, and nothing happens
        async with site.client() as gateway:
            await gateway.stop_cluster(name)
        await until(lambda: site.cluster(name).status.name == "STOPPED")
        assert site.batch.living() == [job]
        del site.batch.end
        await until(lambda: site.batch.living() == [])

    site(test)


# -- logs of clusters that have ended -------------------------------------------------------------------------------


async def stop(site, name, user="alice"):
    async with site.client(user) as gateway:
        await gateway.stop_cluster(name)
    await until(lambda: site.cluster(name).status.name == "STOPPED")


def days_later(site, days=2):
    """The database as it is days later: without the clusters that have ended by now."""
    site.backend._tidied = {user: (last - days * 86400, n) for user, (last, n) in site.backend._tidied.items()}
    for user, (last, in_vain) in site.backend._tidied.items():
        site.backend._remember_tidied(user, last, in_vain)
    for cluster in site.backend.db.name_to_cluster.values():
        if cluster.stop_time:
            site.backend.db.update_cluster(cluster, stop_time=cluster.stop_time - days * 86_400_000)
    site.backend.db.cleanup_expired(86400)


def unanswered(site, user="alice"):
    """How often a user's folders were looked at without an answer; the backend counts before it asks, and after."""
    return site.backend._tidied[user][1]


def test_the_end_of_a_cluster_tidies_its_users_folders_once_and_keeps_those_of_the_others(site):
    async def test(site):
        ended, other, third = [await site.running() for _ in range(3)]
        await stop(site, ended)
        await until(lambda: site.batch.tidied())
        await stop(site, third)
        await asyncio.sleep(0.3)
        return site.batch.tidied(), {other, third}

    ((user, keep),), living = site(test)
    assert (user, set(keep), len(keep)) == ("alice", living, 2)


@pytest.mark.parametrize("restarted", [False, True])
def test_the_logs_of_a_user_who_never_comes_back_are_looked_at_each_day_until_none_is_left(site, restarted):
    async def test(site):
        await stop(site, await site.running())
        await until(lambda: site.batch.tidied() and unanswered(site) == 0)
        if restarted:
            # The gateway that stops begins nothing, which would count as looked at without an answer
            site.backend.tidy = lambda _: asyncio.sleep(0)
        days_later(site)
        assert site.backend.db.name_to_cluster == {}
        if restarted:
            await site.stop()
            await site.start()
        await until(lambda: len(site.batch.tidied()) == 2 and unanswered(site) == 0)
        await asyncio.sleep(0.3)
        assert site.batch.tidied() == [("alice", [])] * 2
        site.batch.logs_left = 0
        days_later(site)
        await until(lambda: len(site.batch.tidied()) == 3)
        await until(lambda: site.backend._tidied == {})
        await asyncio.sleep(0.3)
        assert len(site.batch.tidied()) == 3
        assert site.backend._users_with_logs() == {}

    site(test)


def test_a_cluster_that_ended_just_before_the_gateway_was_killed_is_tidied_up_after(site):
    async def test(site):
        name = await site.running()
        site.backend.tidy = lambda _: asyncio.sleep(0)
        await stop(site, name)
        await site.kill()
        assert site.batch.tidied() == []
        await site.start()
        await until(lambda: site.batch.tidied() == [("alice", [])])

    site(test)


def test_users_whose_folders_can_not_be_tidied_hold_up_nobody_and_are_given_up_one_day(site):
    async def test(site):
        site.batch.untidy = {
            "alice": LauncherError("no answer in 180 s", temporary=True),
            "bob": RuntimeError("a fault in the gateway"),
        }
        for user in ("alice", "bob", "carol", "gone"):
            site.backend._remember_tidied(user)
        await site.backend.tidy_some()
        assert [user for user, _ in site.batch.tidied()] == ["alice", "bob", "carol"], "the directory knows no other"
        for _ in range(29):
            assert {"alice", "gone"} <= set(site.backend._users_with_logs())
            for user in ("alice", "gone"):
                site.backend._remember_tidied(user, 0, site.backend._tidied[user][1])
                await site.backend.tidy(user)
        assert set(site.backend._users_with_logs()) == {"bob", "carol"}

    site(test, reconcile_period=1000)


def test_many_users_are_tidied_up_after_a_few_at_a_time(site):
    async def test(site):
        pwd.getpwnam = lambda name: name  # the fixture puts the true one back
        for number in range(12):
            site.backend._remember_tidied(f"user{number}", number)
        await site.backend.tidy_some()
        assert [user for user, _ in site.batch.tidied()] == [f"user{number}" for number in range(5)]
        await site.backend.tidy_some()
        await site.backend.tidy_some()
        await site.backend.tidy_some()
        assert len(site.batch.tidied()) == 12

    site(test, reconcile_period=1000, tidied_at_once=5)


def test_a_launcher_that_gives_no_answer_leaves_no_open_pipes(tmp_path):
    sudo = tmp_path / "sudo"
    sudo.write_text("#!/bin/bash\nexec sleep 30\n")
    sudo.chmod(0o755)
    backend = SlurmGatewayBackend(sudo=str(sudo), launcher_timeout=0.2)

    async def ask():
        before = len(list(Path("/proc/self/fd").iterdir()))
        for _ in range(3):
            with pytest.raises(LauncherError, match=r"no answer in 0\.2 s") as caught:
                await backend.do_as_user("alice", "tidy", keep=[])
            assert caught.value.temporary
        await asyncio.sleep(0.1)
        return len(list(Path("/proc/self/fd").iterdir())) - before

    assert asyncio.run(ask()) <= 1  # the loop's own watch over its children


@pytest.mark.parametrize("size", [10_000_000, 900_000])
@pytest.mark.parametrize("field", ["worker_setup", "account", "time_limit", "environment_variables", "x" * 100])
def test_ten_megabytes_in_a_request_are_refused_at_once(site, size, field):
    async def test(site):
        value = {"A": "x" * size} if field == "environment_variables" else "x" * size
        began = time.monotonic()
        status, answer = await post(site, json.dumps({"cluster_options": {field: value}}))
        assert time.monotonic() - began < 5
        assert status in (413, 422)
        assert len(json.dumps(answer)) < 2000
        assert site.batch.requests == []

    site(test)


async def post(site, body):
    headers = {"Authorization": "jupyterhub alice-token", "Content-Type": "application/json"}
    async with site.http.post(f"{site.url}/api/v1/clusters/", data=body, headers=headers) as response:
        return response.status, await response.json(content_type=None)


@pytest.mark.parametrize("body", ["", "{", "[]", '"x"', "[" * 100_000, "\x00", '{"cluster_options": [1]}', "9" * 5000])
def test_what_is_no_request_is_answered_with_a_sentence(site, body):
    async def test(site):
        status, answer = await post(site, body)
        assert status == 422
        assert answer["error"]
        assert site.batch.requests == []

    site(test)
