"""What a scheduler of the gateway does besides: in a real scheduler of this process."""

import asyncio
import json
import shutil
import time
import warnings

import aiohttp
import dask
import pytest
from distributed import Client, Scheduler, Status

from slurm_gateway import gateway_preload

from .conftest import until


@pytest.fixture
def preload(tmp_path):
    """A copy of the preload, as in a cluster's folder: it leaves a file beside itself."""
    return str(shutil.copy(gateway_preload.__file__, tmp_path))


@pytest.fixture
def scheduler(preload):
    """`scheduler(test)` runs a coroutine function with a scheduler that has the preload."""

    def run(test, preload=(preload,)):
        async def body():
            with dask.config.set({"distributed.scheduler.http.routes": ["distributed.http.health"]}):
                async with Scheduler(
                    host="127.0.0.1", port=0, dashboard=False, dashboard_address="127.0.0.1:0", preload=list(preload)
                ) as scheduler:
                    return await test(scheduler)

        return asyncio.run(asyncio.wait_for(body(), 30))

    return run


SERVICE = """
from dask_gateway.scheduler_preload import GatewaySchedulerService

class Gateway:
    token = "secret"
    heartbeats = []
    async def heartbeat(self, message):
        self.heartbeats.append(message)

def dask_setup(scheduler):
    service = GatewaySchedulerService(scheduler, gateway=Gateway(), heartbeat_period=15)
    service.listen(("127.0.0.1", 0))
    scheduler.services["gateway"] = service
"""


@pytest.fixture
def with_service(scheduler, preload, tmp_path):
    """The same, with upstream's preload before it, whose heartbeats are kept."""
    (tmp_path / "service.py").write_text(SERVICE)

    def run(test):
        async def body(scheduler):
            try:
                return await test(scheduler, scheduler.services["gateway"])
            finally:
                scheduler.services["gateway"].stop()

        return scheduler(body, preload=[str(tmp_path / "service.py"), preload])

    return run


def test_the_first_workers_are_counted_and_told_the_address_and_the_gateway_hears_at_once(
    with_service, monkeypatch, tmp_path
):
    path = tmp_path / "scheduler.json"
    path.write_text("")
    path.chmod(0o600)
    monkeypatch.setenv("DASK_GATEWAY_WORKERS", "3")
    monkeypatch.setenv("DASK_GATEWAY_SCHEDULER_FILE", str(path))

    async def test(scheduler, service):
        assert json.loads(path.read_text()) == {"address": scheduler.address}
        await until(lambda: service.gateway.heartbeats, seconds=0.2)  # upstream waits longer
        return service.gateway.heartbeats[0]

    message = with_service(test)
    assert (message["count"], message["active_workers"]) == (3, [])
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("waiting", ["", "queued", "unrunnable"])
def test_a_cluster_whose_tasks_wait_for_a_worker_is_not_idle(with_service, waiting, monkeypatch):
    """Upstream's own idle timeout takes queued tasks for idleness; the first worker may queue for hours."""
    monkeypatch.setitem(dask.config.config["distributed"]["scheduler"], "idle-timeout", "0.5s")

    async def test(scheduler, service):
        assert scheduler.idle_timeout == 0.5
        async with Client(scheduler.address, asynchronous=True) as client:
            if waiting:
                needs = {"GPU": 1} if waiting == "unrunnable" else None
                task = client.submit(lambda: 42, resources=needs)
                await until(lambda: getattr(scheduler, waiting))
            end = time.monotonic() + (4 if waiting else 15)
            while scheduler.status == Status.running and time.monotonic() < end:
                await asyncio.sleep(0.05)
            if waiting:
                assert task.status == "pending"
            return scheduler.status == Status.running

    assert with_service(test) is bool(waiting)


def test_what_is_told_before_the_first_client_comes_waits_for_it(with_service):
    async def test(scheduler, service):
        headers = {"Authorization": "token secret"}
        async with aiohttp.ClientSession(headers=headers, raise_for_status=True) as http:
            async with http.post(f"{service.api_address}/api/tell", json={"text": "too early"}):
                pass
            with warnings.catch_warnings(record=True) as told:
                warnings.simplefilter("always")
                async with Client(scheduler.address, asynchronous=True):
                    await until(lambda: [w for w in told if str(w.message) == "too early"])
                    async with http.post(f"{service.api_address}/api/tell", json={"text": "now"}):
                        pass
                    await until(lambda: [w for w in told if str(w.message) == "now"])
            return [str(w.message) for w in told].count("too early")

    assert with_service(test) == 1
