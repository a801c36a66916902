"""What a monitoring system reads."""

import asyncio
import re
import threading
from pathlib import Path

import pytest
import requests
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families
from stand_in import free_port

from slurm_gateway import failures, metrics
from slurm_gateway.backend import LauncherError, SlurmGatewayBackend
from slurm_gateway.slurm import Job, Slurm, SlurmError

from .conftest import until


def value(name, **labels):
    return REGISTRY.get_sample_value(name, labels) or 0


@pytest.fixture
def rise():
    """``rise(name, **labels)``: by how much a metric rose since the test began."""
    before = {(s.name, *sorted(s.labels.items())): s.value for metric in REGISTRY.collect() for s in metric.samples}
    return lambda name, **labels: value(name, **labels) - before.get((name, *sorted(labels.items())), 0)


def served():
    """What is served, and the port of the loopback on which it no longer is."""
    port = free_port()
    stop = metrics.serve(port)
    try:
        text = requests.get(f"http://127.0.0.1:{port}/metrics", timeout=10).text
    finally:
        stop()
    return text, port


def test_metrics_are_served_on_the_loopback_until_stopped():
    text, port = served()
    with pytest.raises(requests.ConnectionError):
        requests.get(f"http://127.0.0.1:{port}/metrics", timeout=10)
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


# -- clusters and workers -----------------------------------------------------------------------------------------


def population(what):
    return {state: value(f"dask_gateway_{what}", state=state) for state in ("pending", "running", "stopping")}


def test_clusters_and_workers_are_counted_by_state(site):
    async def test(site):
        await site.submitted()
        name = await site.running()
        await site.heartbeat(name, count=3)
        await until(lambda: len(site.workers(name, "SUBMITTED")) == 3)
        await site.heartbeat(name, count=3, active=[site.workers(name)[0].name])
        assert population("clusters") == {"pending": 1, "running": 1, "stopping": 0}
        assert population("workers") == {"pending": 2, "running": 1, "stopping": 0}
        site.batch.away = True
        async with site.client() as gateway:
            await gateway.stop_cluster(name)
        assert population("clusters") == {"pending": 1, "running": 0, "stopping": 1}
        site.batch.away = False
        await until(lambda: site.cluster(name).status.name == "STOPPED")
        assert population("clusters") == {"pending": 1, "running": 0, "stopping": 0}
        assert sum(population("workers").values()) == 0
        await site.stop()
        await site.start()
        assert population("clusters")["pending"] == 1

    site(test)


def test_the_longest_wait_is_that_of_the_oldest_which_has_not_started(site):
    async def test(site):
        waits = {what: value("dask_gateway_longest_wait_seconds", what=what) for what in ("cluster", "worker")}
        assert waits == {"cluster": 0, "worker": 0}
        name = await site.submitted()
        site.cluster(name).start_time -= 5000_000
        await site.submitted()
        assert 5000 < value("dask_gateway_longest_wait_seconds", what="cluster") < 5060
        async with site.client() as gateway:
            await gateway.stop_cluster(name)
        assert value("dask_gateway_longest_wait_seconds", what="cluster") < 60

    site(test)


def test_the_size_of_the_database_is_told_while_there_is_one(site):
    async def test(site):
        path = Path(site.backend.db.db.url.database)
        assert value("dask_gateway_database_bytes") >= path.stat().st_size > 0
        path.unlink()
        assert REGISTRY.get_sample_value("dask_gateway_database_bytes") is None

    site(test)


def test_counting_while_clusters_come_and_go_is_no_error(site):
    async def test(site):
        problems, done = [], threading.Event()

        def read():
            while not done.is_set():
                try:
                    list(metrics.POPULATION.collect())
                except Exception as exc:
                    problems.append(exc)

        reader = threading.Thread(target=read)
        reader.start()
        name = await site.running()
        for _ in range(30):
            site.backend.create_workers(site.cluster(name), 20)
            await asyncio.sleep(0)
        done.set()
        reader.join()
        assert problems == []

    site(test)


def test_how_long_clusters_and_workers_took_to_start_is_observed(site, rise):
    async def test(site):
        name = await site.submitted()
        site.cluster(name).start_time -= 100_000
        await site.heartbeat(name)
        await until(lambda: site.cluster(name).status.name == "RUNNING")
        assert rise("dask_gateway_cluster_start_seconds_count") == 1
        assert 100 <= rise("dask_gateway_cluster_start_seconds_sum") < 110
        await site.heartbeat(name, count=2)
        await until(lambda: len(site.workers(name, "SUBMITTED")) == 2)
        worker = site.workers(name)[0]
        worker.start_time -= 30_000
        for _ in range(2):
            await site.heartbeat(name, count=2, active=[worker.name])
        assert rise("dask_gateway_worker_start_seconds_count") == 1
        assert 30 <= rise("dask_gateway_worker_start_seconds_sum") < 35

    site(test)


def test_failures_are_counted_by_reason(site, rise, batch):
    async def test(site):
        for state, reason in (("OUT_OF_MEMORY", "out_of_memory"), ("NODE_FAIL", "node_failure")):
            name = await site.submitted()
            site.batch.end(site.cluster(name).state["job_id"], state)
            await until(lambda name=name: site.cluster(name).status.name == "FAILED")
            assert rise("dask_gateway_failures_total", what="cluster", reason=reason) == 1
        name = await site.running()
        site.batch.refuse = LauncherError("Job violates accounting/QOS policy", source="sbatch")
        await site.heartbeat(name, count=1)
        await until(lambda: site.cluster(name).state.get("worker_problem"))
        assert rise("dask_gateway_failures_total", what="worker", reason="refused_policy") == 1
        async with site.client() as gateway:
            await gateway.submit()
        await until(lambda: rise("dask_gateway_failures_total", what="cluster", reason="refused_policy") == 1)

    site(test)


@pytest.mark.parametrize(
    ("source", "said", "reason"),
    [
        ("sbatch", "Invalid account or account/partition combination specified", "refused_account"),
        ("sbatch", "invalid partition specified: nope", "refused_partition"),
        ("sbatch", "Invalid qos specification", "refused_qos"),
        ("sbatch", "Requested time limit is invalid (missing or exceeds some limit)", "refused_time_limit"),
        ("sbatch", "Requested node configuration is not available", "refused_size"),
        ("sbatch", "Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)",
         "refused_policy"),
        ("sbatch", "something new", "refused_other"),
        ("sudo", "not allowed", "sudo"),
        ("folder", "Disk quota exceeded", "home_folder"),
        ("launcher", "KeyError", "launcher"),
        ("request", "'script' is longer", "launcher"),
    ],
)  # fmt: skip
def test_the_reason_of_a_refusal_is_one_of_a_few_words(source, said, reason):
    assert failures.of_refusal(source, f"sbatch: error: Batch job submission failed: {said}") == reason
    assert reason in failures.REASONS


@pytest.mark.parametrize(
    ("state", "log", "reason"),
    [
        ("OUT_OF_MEMORY", [], "out_of_memory"),
        ("TIMEOUT", [], "time_limit"),
        ("CANCELLED", [], "cancelled"),
        ("BOOT_FAIL", [], "node_failure"),
        ("FAILED", ["dask-gateway: the job's setup failed (code 1)"], "setup_failed"),
        ("FAILED", ["dask-gateway: there is no command 'dask' in this job's environment"], "no_dask"),
        ("FAILED", ["ModuleNotFoundError: No module named 'dask_gateway'"], "no_dask"),
        ("FAILED", ["bye"], "exited"),
        ("COMPLETED", ["bye"], "exited"),
        ("SUSPENDED", [], "other"),
    ],
)
def test_the_reason_of_an_early_end_is_one_of_a_few_words(state, log, reason):
    assert failures.of_job(Job("1", state), log) == reason
    assert reason in failures.REASONS


# -- the launcher and SLURM ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        ('{"ok": true, "removed": [], "problems": []}', "done"),
        ('{"ok": false, "source": "sbatch", "error": "Invalid qos"}', "refused"),
        ('{"ok": false, "source": "sbatch", "error": "Unable to contact", "temporary": true}', "error"),
        ("Traceback", "error"),
    ],
)
def test_how_long_the_launcher_took_is_observed_by_action_and_outcome(tmp_path, rise, answer, outcome):
    sudo = tmp_path / "sudo"
    sudo.write_text(f"#!/bin/sh\nsleep 0.2\necho '{answer}'\n")
    sudo.chmod(0o755)
    backend = SlurmGatewayBackend(sudo=str(sudo))
    try:
        asyncio.run(backend.do_as_user("alice", "tidy", keep=[]))
    except LauncherError:
        assert outcome != "done"
    assert rise("dask_gateway_launcher_seconds_count", action="tidy", outcome=outcome) == 1
    assert 0.2 <= rise("dask_gateway_launcher_seconds_sum", action="tidy", outcome=outcome) < 5


def test_how_long_slurm_took_is_observed_by_command(tmp_path, rise):
    squeue = tmp_path / "squeue"
    squeue.write_text("#!/bin/sh\nsleep 0.2\n")
    squeue.chmod(0o755)
    asyncio.run(Slurm(squeue=str(squeue)).jobs())
    assert rise("dask_gateway_slurm_command_seconds_count", command="squeue") == 1
    assert 0.2 <= rise("dask_gateway_slurm_command_seconds_sum", command="squeue") < 5
    assert rise("dask_gateway_slurm_command_errors_total", command="squeue") == 0
    squeue.write_text("#!/bin/sh\nexit 1\n")
    with pytest.raises(SlurmError):
        asyncio.run(Slurm(squeue=str(squeue)).jobs())
    assert rise("dask_gateway_slurm_command_errors_total", command="squeue") == 1


def test_orphans_are_counted(site, rise):
    async def test(site):
        comment = f"dask-gateway:gateway:{'f' * 32}:worker:-"
        for number in "78":
            site.batch.known[number] = Job(
                number, "RUNNING", user="alice", comment=comment, submitted="2020-01-01T00:00:00"
            )
        await until(lambda: not site.batch.living())
        assert rise("dask_gateway_orphaned_jobs_total") == 2

    site(test)


def test_names_keep_to_prometheuss_conventions():
    text, _ = served()
    ours = [f for f in text_string_to_metric_families(text) if f.name.startswith(("dask_gateway_", "accounts_"))]
    assert len(ours) > 10
    for family in ours:
        assert family.documentation.endswith(".")
        assert family.type in ("counter", "histogram", "gauge")
        assert family.type != "histogram" or family.name.endswith("_seconds"), family.name
