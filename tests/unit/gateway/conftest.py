"""A gateway as it runs on its host, with a notebook service and a batch cluster that the tests control."""

import asyncio
import contextlib
import itertools
import json
import pwd
import sqlite3
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer
from dask_gateway import Gateway
from dask_gateway.auth import JupyterHubAuth
from dask_gateway_server.app import DaskGateway
from dask_gateway_server.routes import default_routes
from traitlets.config import Config

from slurm_gateway import cli, health
from slurm_gateway.accounts import AccountsCheck, Decision
from slurm_gateway.authenticator import SiteAuthenticator
from slurm_gateway.backend import LauncherError, SlurmGatewayBackend
from slurm_gateway.slurm import Job, Slurm, SlurmError

SCOPE = "access:services!service=dask-gateway"
KEY = "A" * 43 + "="


class Batch(Slurm):
    """SLURM and the launcher, in one."""

    def __init__(self):
        super().__init__()
        self.numbers = itertools.count(100)
        self.known = {}  # what slurmctld remembers
        self.accounting = {}  # what only sacct remembers
        self.requests = []  # (user, action, request)
        self.logs = {}
        self.away = False
        self.refuse = None
        self.cancel_fails = 0
        self.lose_answers = False
        self.untidy = {}  # names of users, and what the launcher answers to tidying their folders
        self.logs_left = 1
        self.refuse_workers = None  # what the launcher answers of workers that come with their scheduler
        self.between = None  # called between the two submissions

    # the questions of slurm.Slurm

    async def jobs(self, users=()):
        if self.away:
            raise SlurmError("squeue ended with code 1: Unable to contact slurm controller")
        return {job.id: job for job in self.known.values() if not users or job.user in users}

    async def ending(self, job_id):
        return self.known.get(job_id) or self.accounting.get(job_id)

    async def associations(self, user):
        return [("climate", "", ["standard"], "climate")]

    async def learn(self):
        if self.away:
            raise SlurmError("scontrol ended with code 1: Unable to contact slurm controller")

    # the launcher

    async def do_as_user(self, user, action, **request):
        self.requests.append((user, action, request))
        await asyncio.sleep(0)
        return getattr(self, action)(user, **request)

    def submit(self, user, cluster, kind, batch=None, array=None, workers=None, **_):
        if self.refuse:
            raise self.refuse
        if self.away:
            raise LauncherError("Unable to contact slurm controller", source="sbatch", temporary=True)
        number = self._queue(user, cluster, kind, batch, array)
        answer = {"job": number}
        if workers:
            if self.between:
                self.between()
            if self.refuse_workers:
                answer["workers"] = self.refuse_workers
            else:
                job = self._queue(user, cluster, "worker", workers["batch"], workers.get("array"))
                answer["workers"] = {"job": job}
        if self.lose_answers:
            raise LauncherError("no answer in 180 s", temporary=True)
        return answer

    def _queue(self, user, cluster, kind, batch, array):
        number = str(next(self.numbers))
        submitted = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(time.time() - 3600))
        for job_id in [f"{number}_{i}" for i in range(array)] if array else [number]:
            comment = f"dask-gateway:gateway:{cluster}:{kind}:{batch or '-'}"
            self.known[job_id] = Job(job_id, "PENDING", "Priority", user=user, comment=comment, submitted=submitted)
        return number

    def cancel(self, user, cluster, jobs, last=None, log="", remove=False, **_):
        failed = {}
        for job_id in [*jobs, last] if last else jobs:
            if self.away or self.cancel_fails > 0:
                self.cancel_fails -= 1
                failed[job_id] = "Unable to contact slurm controller"
            elif job_id in self.known and not self.known[job_id].over:
                self.end(job_id, "CANCELLED")
        return {"failed": failed, "log": self.logs.get(log, []), "removed": remove, "problems": []}

    def tidy(self, user, keep):
        if user in self.untidy:
            raise self.untidy[user]
        return {"removed": [], "problems": [], "left": self.logs_left}

    # what the tests do

    def end(self, job_id, state, **changes):
        self.known[job_id] = replace(self.known[job_id], state=state, **changes)

    def set(self, job_id, state):
        self.known[job_id] = replace(self.known[job_id], state=state)

    def living(self, kind=""):
        return sorted(j.id for j in self.known.values() if not j.over and kind in j.comment)

    def submissions(self):
        return [request for _, action, request in self.requests if action == "submit"]

    def tidied(self):
        """The users whose folders were tidied, and the clusters whose folders were to be kept."""
        return [(user, request["keep"]) for user, action, request in self.requests if action == "tidy"]


class Holders(AccountsCheck):
    """An access check whose answers the tests set."""

    holders = {"alice", "carol"}

    async def decide(self, user):
        if user in self.holders:
            return Decision(user, True, "test")
        return self.refused(user, "test")


class Site:
    """A gateway with its clients; started and killed by the tests."""

    def __init__(self, path, batch):
        self.path = path
        self.batch = batch
        self.tokens = {
            f"{name}-token": {"kind": "user", "name": name, "scopes": [SCOPE]} for name in ("alice", "bob", "carol")
        }
        self.hub_status = 200
        self.hub_questions = 0
        self.born = 0  # when the gateway's database came; None for now
        self.settings = {}
        self._stack = contextlib.AsyncExitStack()

    async def _hub_user(self, request):
        self.hub_questions += 1
        if self.hub_status != 200:
            return web.Response(status=self.hub_status, text="<html>oops</html>")
        user = self.tokens.get(request.headers["Authorization"].removeprefix("token "))
        return web.json_response(user) if user is not None else web.json_response({"status": 403}, status=403)

    async def __aenter__(self):
        hub = web.Application()
        hub.router.add_get("/hub/api/user", self._hub_user)
        self.hub = TestServer(hub)
        await self._stack.enter_async_context(self.hub)
        self.http = await self._stack.enter_async_context(ClientSession())
        await self.start()
        return self

    async def __aexit__(self, *exc):
        with contextlib.suppress(Exception):
            await self.kill()
        await self._stack.aclose()

    async def start(self):
        with contextlib.closing(sqlite3.connect(f"{self.path}/gateway.sqlite")) as database, database:
            database.execute("CREATE TABLE IF NOT EXISTS service_facts (name TEXT PRIMARY KEY, value TEXT NOT NULL)")
            if self.born is not None:
                database.execute("INSERT OR REPLACE INTO service_facts VALUES ('born', ?)", [str(self.born)])
        config = Config()
        config.SlurmGatewayBackend.db_url = f"sqlite:///{self.path}/gateway.sqlite"
        config.SlurmGatewayBackend.db_encrypt_keys = [KEY]
        config.SlurmGatewayBackend.api_url = "https://gateway.test/api"
        config.SlurmGatewayBackend.pending_period = 0.05
        config.SlurmGatewayBackend.running_period = 0.1
        config.SlurmGatewayBackend.reconcile_period = 0.1
        config.SlurmGatewayBackend.backoff_base_delay = 0.05
        config.SlurmGatewayBackend.backoff_max_delay = 0.1
        config.SlurmGatewayBackend.scheduler_api_timeout = 1
        config.SlurmGatewayBackend.admin_socket = str(self.path / "admin.sock")
        config.Proxy.externally_managed = True
        config.Proxy.api_token = "proxy-token"
        config.SiteAuthenticator.jupyterhub_api_url = str(self.hub.make_url("/hub/api"))
        config.SiteAuthenticator.token_url = "https://notebooks.test/hub/token"
        settings = dict(self.settings)
        config.Revocations.within = settings.pop("revocations", 0)
        for name, value in settings.items():
            setattr(config.SlurmGatewayBackend, name, value)
        gateway = DaskGateway(config=config)
        gateway.log.setLevel("CRITICAL")
        self.backend = SlurmGatewayBackend(parent=gateway, log=gateway.log)
        self.backend.slurm = self.batch
        self.backend.site_options.slurm = self.batch
        self.backend.do_as_user = self.batch.do_as_user
        self.backend.accounts = Holders(apply_url="https://accounts.test/dask/", allowed_max_age=0, refused_max_age=0)
        self.authenticator = SiteAuthenticator(parent=gateway, log=gateway.log)
        gateway.app = app = web.Application()
        app.add_routes(default_routes)
        app.update(gateway=gateway, backend=self.backend, authenticator=self.authenticator, log=gateway.log)
        await self.authenticator.setup(app)
        await self.backend.setup(app)
        self.server = TestServer(app)
        await self.server.start_server()
        self.url = str(self.server.make_url("")).rstrip("/")

    async def stop(self):
        await self.server.close()
        await self.backend.cleanup()
        await self.authenticator.cleanup()

    async def kill(self):
        """What is left of a gateway after SIGKILL: its database."""
        await self.backend.stop_being_seen()
        await self.backend.task_pool.close()
        for reconciler in self.backend.reconcilers:
            reconciler.cancel()
        await asyncio.gather(*self.backend.reconcilers, return_exceptions=True)
        await self.server.close()
        await self.backend.session.close()
        await self.authenticator.cleanup()
        self.backend.db.db.dispose()

    def client(self, user="alice", token=None):
        return Gateway(self.url, auth=JupyterHubAuth(api_token=token or f"{user}-token"), asynchronous=True)

    async def heartbeat(self, name, count=0, active=(), closing=(), closed=(), **changes):
        cluster = self.backend.db.get_cluster(name)
        message = {
            "scheduler_address": "tls://10.0.0.1:1234",
            "dashboard_address": "http://10.0.0.1:8787",
            "api_address": "http://10.0.0.1:4321",
            "count": count,
            "active_workers": list(active),
            "closing_workers": list(closing),
            "closed_workers": list(closed),
            **changes,
        }
        url = f"{self.url}/api/v1/clusters/{name}/heartbeat"
        headers = {"Authorization": f"token {cluster.token}"}
        async with self.http.post(url, json=message, headers=headers) as response:
            return response.status

    async def submitted(self, user="alice", **options):
        """The name of a new cluster whose scheduler's job waits in the queue."""
        async with self.client(user) as gateway:
            name = await gateway.submit(**options)
        await until(lambda: self.cluster(name).state.get("job_id"))
        return name

    async def running(self, user="alice", **options):
        """The name of a new cluster whose scheduler runs."""
        name = await self.submitted(user, **options)
        self.batch.set(self.cluster(name).state["job_id"], "RUNNING")
        await self.heartbeat(name)
        await until(lambda: self.cluster(name).status.name == "RUNNING")
        return name

    def cluster(self, name):
        return self.backend.db.get_cluster(name)

    def workers(self, name, status=None):
        return [w for w in self.cluster(name).workers.values() if status is None or w.status.name == status]


async def until(condition, seconds=5):
    """Wait for a state."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds} s in vain"
        await asyncio.sleep(0.01)


@pytest.fixture
def batch():
    return Batch()


@pytest.fixture
def site(tmp_path, batch, monkeypatch):
    """`site(test)` runs a coroutine function with a started Site."""
    users = {name: uid for uid, name in enumerate(("alice", "bob", "carol"), 26001)}

    def getpwnam(name):
        return SimpleNamespace(pw_name=name, pw_uid=users[name], pw_gid=27000, pw_dir=f"/home/users/{name}")

    monkeypatch.setattr(pwd, "getpwnam", getpwnam)

    def run(test, **settings):
        async def body():
            site = Site(tmp_path, batch)
            site.settings = settings
            async with site:
                return await test(site)

        return asyncio.run(asyncio.wait_for(body(), 60))

    return run


# -- gateway-admin ------------------------------------------------------------------------------------------------


def run(*arguments, socket):
    """The exit code of a command line."""
    with pytest.raises(SystemExit) as ended:
        cli.main([*arguments, f"--socket={socket}"])
    return ended.value.code


@pytest.fixture
def admin(capsys):
    """``await admin(site, "clusters")``: exit code, standard output and errors of a command."""

    async def ask(site, *arguments):
        code = await asyncio.to_thread(run, *arguments, socket=site.path / "admin.sock")
        return (code, *capsys.readouterr())

    return ask


def gateway_config(site):
    """The path of the configuration file that a site's gateway could have been started with."""
    path = site.path / "dask_gateway_config.py"
    address = site.url.removeprefix("http://")
    path.write_text(
        f"""
c = get_config()
c.DaskGateway.address = "{address}"
c.Proxy.address = "{address}"
c.SlurmGatewayBackend.api_url = "{site.url}/api"
c.SlurmGatewayBackend.db_url = "sqlite:///{site.path}/gateway.sqlite"
c.SlurmGatewayBackend.maintenance_file = "{site.path}/maintenance.json"
c.SiteAuthenticator.jupyterhub_api_url = "{site.hub.make_url("/hub/api")}"
c.Slurm.scontrol = "/nonexistent/scontrol"
c.Slurm.sacctmgr = "/nonexistent/sacctmgr"
"""
    )
    return path


@pytest.fixture
def well(site, batch, monkeypatch):
    """A site at which all is well."""
    batch.ping = answering({"controller": True})
    batch.rights = answering("Operator")

    monkeypatch.setattr(health, "_a_member", lambda usernames, group: "alice")

    def run(test, **settings):
        async def body(site):
            site.authenticator.hub_token = "services-token"
            site.tokens["services-token"] = {"kind": "service", "name": "dask-gateway"}
            site.backend.accounts.probe = answering(["It may ask."])
            original = site.backend.do_as_user

            async def do_as_user(user, action, **request):
                if action == "nothing":
                    raise LauncherError("'action' must be submit, cancel or tidy", source="request")
                return await original(user, action, **request)

            site.backend.do_as_user = do_as_user
            return await test(site)

        return site(body, **settings)

    return run


def answering(value):
    """A coroutine function that answers this, or raises it."""

    async def answer(*_):
        if isinstance(value, Exception):
            raise value
        return value

    return answer


async def examined(site, admin, *arguments):
    """The exit code of `gateway-admin health`, and its findings by their parts."""
    arguments = (f"--config={gateway_config(site)}", f"--accounts-config={site.path}/accounts.json", *arguments)
    code, out, _ = await admin(site, "health", "--json", *arguments)
    answer = json.loads(out)
    assert code == answer["code"]
    return code, {finding["part"]: finding for finding in answer["findings"]}
