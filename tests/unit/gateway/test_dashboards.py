"""Dashboards: nothing on a compute node answers without the key, and the gateway tells the key to the owner alone."""

import asyncio
import os
import subprocess
import sys
import textwrap

import aiohttp
import pytest
from tornado import web as tornado_web
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port

from slurm_gateway import dashboard_preload, dashboards
from slurm_gateway.backend import DASHBOARD_PRELOAD

from .conftest import until

ELSEWHERE = [
    "http://10.0.0.2:8787",
    "http://127.0.0.1:8000",
    "https://10.0.0.1:8787",
    "http://10.0.0.1",
    "http://10.0.0.1:8787/admin?x=",
    "http://me@10.0.0.1:8787",
]


async def asked(site, path, user="alice"):
    """Status and body of a question with a user's token."""
    headers = {"Authorization": f"token {user}-token"}
    async with aiohttp.ClientSession() as session, session.get(site.url + path, headers=headers) as response:
        return response.status, await response.json()


def test_the_key_is_told_to_the_owner_while_the_cluster_runs_and_to_nobody_else(site):
    async def test(site):
        name = await site.submitted()
        path = f"/api/v1/dashboards/{name}"
        starting = await asked(site, path)
        site.batch.set(site.cluster(name).state["job_id"], "RUNNING")
        await site.heartbeat(name)
        await until(lambda: site.cluster(name).status.name == "RUNNING")
        running, others = await asked(site, path), await asked(site, path, "carol")
        unknown = await asked(site, f"/api/v1/dashboards/{'0' * 32}")
        nobody = await asked(site, path, "mallory")
        key, token = dashboards.key_of(site.cluster(name)), site.cluster(name).token
        async with site.client() as gateway:
            await gateway.stop_cluster(name)
        await until(lambda: site.cluster(name).status.name == "STOPPED")
        return starting, running, others, unknown, nobody, await asked(site, path), key, token

    starting, running, others, unknown, nobody, ended, key, token = site(test, dashboards=True)
    assert running == (200, {"key": key})
    assert [answer[0] for answer in (starting, others, unknown, nobody, ended)] == [409, 403, 404, 422, 410]
    assert token not in key


def test_a_users_list_has_the_users_clusters_and_no_secret(site):
    async def test(site):
        name = await site.running(worker_cores=2, worker_memory=1.5)
        await site.heartbeat(name, count=2)
        await until(lambda: len(site.workers(name, "SUBMITTED")) == 2)
        await site.heartbeat(name, count=2, active=[site.workers(name)[0].name])
        await until(lambda: site.workers(name, "RUNNING"))
        await site.running("carol")
        return name, await asked(site, "/api/v1/summaries"), site.cluster(name)

    name, (status, (mine,)), cluster = site(test, dashboards=True)
    assert status == 200
    assert mine["name"] == name
    assert (mine["status"], mine["dashboard"]) == ("RUNNING", True)
    assert (mine["workers"], mine["workers_waiting"], mine["cores"]) == (1, 1, 2)
    assert mine["memory"] == 1.5 * 2**30
    assert cluster.token not in str(mine)
    assert dashboards.key_of(cluster) not in str(mine)


@pytest.mark.parametrize("address", ELSEWHERE)
def test_the_proxy_is_led_nowhere_but_to_the_schedulers_node(site, address):
    async def test(site):
        name = await site.submitted()
        return await site.heartbeat(name, dashboard_address=address), site.backend.proxy.routes

    status, routes = site(test, dashboards=True)
    assert status == 409
    assert not [path for _, path in routes if path.startswith("/clusters")]


def test_a_job_gets_the_key_as_a_file_and_not_in_its_script(site):
    async def test(site):
        await site.submitted()
        return site.batch.submissions()[0]

    request = site(test, dashboards=True)
    key = request["files"][dashboards.KEY_FILE]
    assert key not in request["script"]
    assert DASHBOARD_PRELOAD.name in request["script"]
    assert "--no-dashboard" in request["script"]  # the preload adds it, behind the guard


PROGRAM = """
import asyncio, sys, types
sys.path[:0] = {path!r}
import dask
dask.config.set({{"distributed.scheduler.http.routes": ["distributed.http.health"],
                  "distributed.worker.http.routes": ["distributed.http.health"]}})
from distributed import Client, Scheduler, Worker
from tornado.httpclient import AsyncHTTPClient
sys.modules["bokeh"] = None  # this environment lacks it

async def main():
    preload = {preload!r}
    options = dict(dashboard_address="127.0.0.1:0", dashboard=False, host="127.0.0.1")
    async with Scheduler(port=0, preload=[preload], **options) as scheduler:
        async with Worker(scheduler.address, preload=[preload], **options) as worker:
            for server in scheduler, worker:
                for path in "/", "/health", "/status", "/info/main/workers.html", "/sitemap.json":
                    for headers in {{}}, {{"X-Dask-Dashboard-Key": "wrong"}}, {{"X-Dask-Dashboard-Key": "{key}"}}:
                        url = f"http://127.0.0.1:{{server.http_server.port}}" + path
                        answer = await AsyncHTTPClient().fetch(url, headers=headers, raise_error=False)
                        print(type(server).__name__, path, headers.get("X-Dask-Dashboard-Key", "none"), answer.code,
                              len(answer.body or b""), "bokeh" in str(answer.body))

asyncio.run(main())
"""


def test_scheduler_and_worker_answer_nothing_without_the_key(tmp_path):
    """With the key they try to load the dashboard, and say what a Python without bokeh lacks."""
    key = tmp_path / "dask.dashboard"
    key.write_text("k" * 64)
    program = textwrap.dedent(PROGRAM).format(path=sys.path, preload=str(DASHBOARD_PRELOAD), key="k" * 64)
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"DASK_GATEWAY_DASHBOARD_KEY": str(key)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert len(lines) == 30
    for server, path, sent, status, length, bokeh in lines:
        if sent == "k" * 64:
            assert (status, bokeh) == ("503", "True"), (server, path)
        else:
            assert (status, length) == ("403", "0"), (server, path, sent)


def test_a_job_that_lost_its_key_serves_no_dashboard(tmp_path):
    program = textwrap.dedent(PROGRAM).format(path=sys.path, preload=str(DASHBOARD_PRELOAD), key="k" * 64)
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"DASK_GATEWAY_DASHBOARD_KEY": str(tmp_path / "missing")},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    for server, path, _, status, *_ in (line.split() for line in done.stdout.splitlines()):
        assert status == ("200" if path in ("/health", "/sitemap.json") else "404"), (server, path)


class Stream:
    """A connection, as far as it can be closed."""

    def __init__(self):
        self.is_closed = False

    def closed(self):
        return self.is_closed

    def close(self):
        self.is_closed = True


@pytest.mark.parametrize(("answers", "asked"), [([204, 503, 410], 3), ([410], 1)])
def test_a_websocket_ends_when_the_session_of_its_watcher_has_ended(monkeypatch, answers, asked):
    seen = []

    class Session(tornado_web.RequestHandler):
        def get(self):
            seen.append(self.request.headers[dashboard_preload.SESSION_HEADER])
            self.set_status(answers[len(seen) - 1])

    async def body():
        socket, port = bind_unused_port(address="127.0.0.1")
        server = HTTPServer(tornado_web.Application([("/session", Session)]))
        server.add_socket(socket)
        monkeypatch.setenv("DASK_GATEWAY_API_URL", f"http://127.0.0.1:{port}/api")
        monkeypatch.setattr(dashboard_preload, "SESSION_INTERVAL", 0.01)
        stream = Stream()
        guard = dashboard_preload.Guard(None, "key", None)
        guard.end_with("ticket", stream)
        await until(stream.closed)
        server.stop()

    asyncio.run(asyncio.wait_for(body(), 20))
    assert seen == ["ticket"] * asked


def test_a_front_end_that_is_away_ends_no_websocket(monkeypatch):
    monkeypatch.setenv("DASK_GATEWAY_API_URL", "http://127.0.0.1:9/api")
    assert asyncio.run(dashboard_preload._has_ended("ticket")) is False


def test_keys_that_json_does_not_know_become_text():
    metrics = {("execute", "x", "seconds"): 1.5, 7: [{None: 2}], "cpu": (1, 2)}
    assert dashboard_preload._with_text_keys(metrics) == {
        "execute,x,seconds": 1.5,
        "7": [{"None": 2}],
        "cpu": [1, 2],
    }
