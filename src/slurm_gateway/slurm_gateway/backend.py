"""What a cluster's jobs look like on SLURM, and what happens to them."""

import asyncio
import contextlib
import hashlib
import ipaddress
import json
import math
import os
import pwd
import re
import time
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlsplit

import aiohttp
import sqlalchemy as sa
from aiohttp import web
from dask_gateway_server.backends import db_base
from dask_gateway_server.backends.base import PublicException
from dask_gateway_server.backends.db_base import JobStatus
from dask_gateway_server.backends.jobqueue.slurm import SlurmBackend, SlurmClusterConfig
from dask_gateway_server.traitlets import Type
from dask_gateway_server.utils import timestamp
from traitlets import Bool, Dict, Enum, Float, Instance, Integer, Unicode, default

from . import accounts, admin_api, dashboards, failures, jobs, logs, maintenance, messages, metrics, wire
from .accounts import AccountsCheck
from .certificates import new_keypair
from .messages import one_line
from .options import OptionsFor
from .revocations import Revocations
from .slurm import Slurm, SlurmError, parse_comment

MIB = 2**20
PRELOAD = Path(__file__).with_name("gateway_preload.py")
DASHBOARD_PRELOAD = Path(__file__).with_name("dashboard_preload.py")
PROGRAM = Path(__file__).with_name("gateway_job.py")
SCHEDULER_FILE = "scheduler.json"  # where the first workers find their scheduler's address

TIDY_EVERY = 86400  # seconds between two looks at one user's folders
TIDIED_IN_VAIN = 30  # times in a row, after which a user is forgotten until their next cluster
TIDIED = "tidied:"  # and the user: the name of what the database keeps of this


# What a nanny sets before a worker's Python starts (distributed.nanny.pre-spawn-environ): a task has one thread, and
# memory that is free goes back to the system.
NANNYS_ENVIRONMENT = {
    "MALLOC_TRIM_THRESHOLD_": "65536",
    "MKL_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}


class LauncherError(Exception):
    """The launcher did not do what it was asked to.

    `source` is who said no: sudo, request, folder, sbatch or launcher; `temporary` is whether to try again later.
    """

    def __init__(self, message, source="launcher", temporary=False):
        super().__init__(message)
        self.source = source
        self.temporary = temporary


class ClusterFailed(web.HTTPConflict):
    """Why a cluster failed, for the client that waits for it.

    The text goes into the answer's body only, and so may have several lines, which aiohttp refuses in a reason.
    """

    def __init__(self, text):
        super().__init__()
        self.text_for_user = text

    @property
    def reason(self):
        return getattr(self, "text_for_user", "Conflict")


async def _done(flag):
    await flag


class ClustersOfUsers:
    """The clusters as revocations.Revocations sees them."""

    def __init__(self, backend):
        self._backend = backend

    def running(self):
        return [
            SimpleNamespace(name=c.name, username=c.username, lost_since=c.state.get("lost_since"))
            for c in self._backend.db.active_clusters()
        ]

    def remember(self, cluster, lost_since):
        live = self._backend.db.get_cluster(cluster.name)
        self._backend.db.update_cluster(live, state={**live.state, "lost_since": lost_since})

    async def warn(self, cluster, sentence):
        try:
            await self._backend.do_as_user(
                cluster.username,
                "cancel",
                cluster=cluster.name,
                jobs=[],
                log="scheduler",
                lines=1,
                note=f"dask-gateway: {one_line(sentence)}",
            )
        except LauncherError as exc:
            self._backend.log.warning("Cluster %s of %s can't be warned: %s", cluster.name, cluster.username, exc)
        await self._backend.tell(self._backend.db.get_cluster(cluster.name), one_line(sentence))

    async def stop(self, cluster, sentence):
        live = self._backend.db.get_cluster(cluster.name)
        self._backend.db.update_cluster(live, state={**live.state, "problem": sentence})
        await self._backend.stop_cluster(cluster.name)


class SiteClusterConfig(SlurmClusterConfig):
    """The configuration of one cluster."""

    @default("scheduler_cmd")
    def _default_scheduler_cmd(self):
        return ["dask", "scheduler"]  # distributed 2026.6 and later have no dask-scheduler and dask-worker

    @default("worker_cmd")
    def _default_worker_cmd(self):
        return ["dask", "worker"]

    time_limit = Integer(
        0, min=0, help="The time limit of a worker's job, in minutes; 0 for the partition's.", config=True
    )
    workers = Integer(0, min=0, help="How many workers are submitted together with the scheduler.", config=True)
    scheduler_time_limit = Integer(
        0, min=0, help="The time limit of the scheduler's job, with which the cluster ends, in minutes.", config=True
    )


class SlurmGatewayBackend(SlurmBackend):
    """Clusters whose schedulers and workers are SLURM jobs of the users who ask for them."""

    cluster_config_class = Type(
        "slurm_gateway.backend.SiteClusterConfig",
        klass="dask_gateway_server.backends.base.ClusterConfig",
        help="The class of a cluster's configuration.",
        config=True,
    )

    # -- settings ---------------------------------------------------------------------------------------------

    launcher = Unicode(
        "/usr/local/libexec/dask-gateway/launcher",
        help="The program that submits and cancels a user's jobs, as sudo knows it.",
        config=True,
    )
    sudo = Unicode("/usr/bin/sudo", help="The path of sudo.", config=True)
    launcher_timeout = Float(180, help="Seconds to wait for the launcher.", config=True)
    users_group = Unicode("dask", help="The group for whose members sudo runs the launcher.", config=True)
    instance = Unicode(
        "gateway",
        help="The name of this gateway in the comments of its jobs. It never touches jobs with another one.",
        config=True,
    )
    folder = Unicode(".dask-gateway", help="The name of the folder in a user's home folder.", config=True)
    support = Unicode("the site's support", help="Whom a user asks for help.", config=True)

    modules_init = Unicode(
        "/etc/profile.d/modules.sh", help="The file that defines the `module` command for bash.", config=True
    )
    default_setup = Unicode(
        "module load jaspy",
        help="The lines of shell that make `dask` available to jobs; a user's worker_setup takes their place.",
        config=True,
    )
    ca_file = Unicode(
        "/etc/ssl/certs/ca-certificates.crt",
        help="The file of certificate authorities on the compute nodes by which jobs check the gateway's address.",
        config=True,
    )
    job_environment = Dict(
        help="Environment variables of every job that a user can't change, such as DASK_… settings.", config=True
    )
    idle_timeout = Float(
        0,
        help="Seconds after which a cluster without tasks, running or queued, ends by itself; 0 for never.",
        config=True,
    )
    death_timeout = Float(
        300, help="Seconds after which a worker that can't reach its scheduler ends by itself.", config=True
    )
    worker_nanny = Enum(
        ["auto", "always", "never"],
        "auto",
        help="""Whether each worker has a nanny: a process that starts it again when it dies or needs too much memory.

        It costs a second start of Python for each worker. `auto` does without where SLURM itself holds jobs to their
        memory: then a worker that dies ends its job, and is replaced by a new one.
        """,
        config=True,
    )
    dashboards = Bool(
        False, help="Whether schedulers and workers serve their dashboards to the gateway's front end.", config=True
    )
    max_array_size = Integer(
        1000,
        min=1,
        help="The largest job array that the batch cluster takes (its MaxArraySize, less one).",
        config=True,
    )

    pending_period = Float(
        3, help="Seconds between questions to SLURM while a job waits or a cluster starts.", config=True
    )
    running_period = Float(
        4,
        help="Seconds between questions to SLURM while clusters run; a user reads why one failed not much later.",
        config=True,
    )
    reconcile_period = Float(
        300, help="Seconds between comparisons of all of the gateway's jobs with its database.", config=True
    )
    orphan_age = Float(
        60, help="Seconds that a job without a cluster must have existed before it is cancelled.", config=True
    )
    restore_window = Float(
        86400,
        help="Seconds after the database came, empty or restored, in which jobs from before it are left alone.",
        config=True,
    )
    tidied_at_once = Integer(
        10,
        min=1,
        help="How many users' old logs are looked for in one reconcile_period, one after the other.",
        config=True,
    )
    scheduler_api_timeout = Float(
        20, help="Seconds for which a busy scheduler is asked again to scale before the user is told.", config=True
    )

    # Upstream's defaults are for a batch system that starts jobs at once and a gateway that is never restarted.

    @default("cluster_start_timeout")
    def _default_cluster_start_timeout(self):
        return 30 * 86400.0  # a job may queue for days

    @default("worker_start_timeout")
    def _default_worker_start_timeout(self):
        return 30 * 86400.0

    @default("check_timeouts_period")
    def _default_check_timeouts_period(self):
        return 60.0

    @default("cluster_heartbeat_timeout")
    def _default_cluster_heartbeat_timeout(self):
        return 600.0  # and then SLURM is asked; see lost_clusters

    @default("stop_clusters_on_shutdown")
    def _default_stop_clusters_on_shutdown(self):
        return self.db_url in ("sqlite://", "sqlite:///:memory:")

    @default("backoff_max_delay")
    def _default_backoff_max_delay(self):
        return 30.0

    _ends = ()  # what ends that the gateway is seen from outside

    supports_bulk_shutdown = True  # one scancel for all jobs of a cluster

    accounts_class = Type(
        "slurm_gateway.accounts.GroupCheck",
        klass="slurm_gateway.accounts.AccountsCheck",
        help="The class of the access check, asked when a cluster is created or scaled.",
        config=True,
    )
    accounts_file = Unicode(
        help="A file with the access check's class and settings, see accounts.from_file; stands before accounts_class.",
        config=True,
    )
    metrics_port = Integer(0, help="The port of the loopback on which metrics are served; 0 for none.", config=True)
    logfmt = Bool(False, help="Whether the log is written as logfmt, see logs.py.", config=True)
    admin_socket = Unicode(help="The path of the socket that `gateway-admin` asks; empty for none.", config=True)
    maintenance_file = Unicode(
        help="The path of the file that says that nobody gets new clusters for a time, see maintenance.py.", config=True
    )
    accounts = Instance(AccountsCheck)
    revocations = Instance(Revocations)
    slurm = Instance(Slurm)
    site_options = Instance(OptionsFor)

    @default("accounts")
    def _default_accounts(self):
        if self.accounts_file:
            try:
                return accounts.from_file(self.accounts_file, log=self.log)
            except (OSError, ValueError, KeyError) as exc:
                self.log.critical("NOBODY IS LET IN: the access check %s can't be read: %r", self.accounts_file, exc)
                return accounts.NotConfigured(support=self.support, log=self.log)
        return self.accounts_class(parent=self, log=self.log)

    @default("revocations")
    def _default_revocations(self):
        return Revocations(check=self.accounts, clusters=ClustersOfUsers(self), parent=self, log=self.log)

    @default("slurm")
    def _default_slurm(self):
        return Slurm(parent=self, log=self.log)

    @default("site_options")
    def _default_site_options(self):
        return OptionsFor(slurm=self.slurm, parent=self, log=self.log)

    @default("cluster_options")
    def _default_cluster_options(self):
        return self.site_options

    # -- start ------------------------------------------------------------------------------------------------

    async def do_setup(self):
        self._submitting = set()  # names of clusters and workers with a submission under way
        self._missing = {}  # names of those whose jobs SLURM does not list: since when, and when to ask again
        self._holds = {}  # names of clusters whose workers could not start, and until when no new one is tried
        self._failed_batches = {}  # names of clusters, and the submission of workers that failed last
        self._kept_from_growing = set()  # names of clusters whose users were refused more workers
        self._wake = asyncio.Event()
        self._forget_old_route_numbers()
        self._born = self._birth_of_database()
        self._tidied = self._users_with_logs()
        self._strangers = set()  # jobs of clusters from before this database, which a backup may know
        # A submission whose end the gateway before did not live to see: there may be a job.
        self._doubtful = {c.name for c in self.db.active_clusters() if c.status == JobStatus.CREATED}
        self.task_pool.spawn(self.reconcile_loop())
        self.task_pool.spawn(self.tidy_loop())
        self.task_pool.spawn(self.accounts.start())
        self.task_pool.spawn(self.revocations.run())

    def _birth_of_database(self):
        """When this database came to this gateway, in seconds.

        An empty one, or one from a backup, does not know the clusters from before it came, or since the backup.
        """
        with self.db.db.begin() as connection:
            connection.exec_driver_sql(
                "CREATE TABLE IF NOT EXISTS service_facts (name VARCHAR(64) PRIMARY KEY, value VARCHAR(255) NOT NULL)"
            )
            born = connection.exec_driver_sql("SELECT value FROM service_facts WHERE name = 'born'").scalar()
            if born is None:
                born = int(time.time())
                connection.exec_driver_sql(f"INSERT INTO service_facts VALUES ('born', '{born}')")  # noqa: S608
        return int(born)

    def _users_with_logs(self):
        """{user: (when their folders were tidied last, how often in vain since)} of those who may have old logs.

        A cluster's record goes a day after its end, its logs stay for longer; its user may never have another one.
        """
        with self.db.db.begin() as connection:
            rows = connection.execute(
                sa.text("SELECT name, value FROM service_facts WHERE name LIKE :name"), {"name": f"{TIDIED}%"}
            ).all()
        return {name.removeprefix(TIDIED): tuple(int(part) for part in value.split()) for name, value in rows}

    def _remember_tidied(self, username, when=0, in_vain=0):
        self._tidied[username] = (when, in_vain)
        self._write_tidied(username, f"{when:.0f} {in_vain}")

    def _forget_tidied(self, username):
        self._tidied.pop(username, None)
        self._write_tidied(username)

    def _write_tidied(self, username, value=None):
        fact = {"name": f"{TIDIED}{username}", "value": value}
        with self.db.db.begin() as connection:
            connection.execute(sa.text("DELETE FROM service_facts WHERE name = :name"), fact)
            if value is not None:
                connection.execute(sa.text("INSERT INTO service_facts VALUES (:name, :value)"), fact)

    async def do_cleanup(self):
        await self.accounts.close()
        await self.stop_being_seen()

    async def setup(self, app):
        if self.logfmt:
            logs.write_logfmt(self.log)
        self._stopping = asyncio.Event()
        db_base.new_keypair = new_keypair  # upstream has no other place to say which keys clusters get

        async def stop_waiting(_):
            self._stopping.set()

        app.on_shutdown.append(stop_waiting)
        app.middlewares.append(wire.clients_that_hang_up)
        app.middlewares.append(wire.json_objects)
        app.add_routes(dashboards.routes)
        await super().setup(app)
        await self.be_seen(app)

    async def be_seen(self, app):
        """Metrics, the fields of the log and what operators ask; a gateway works without any of them."""
        metrics.POPULATION.db = self.db
        self._ends = [logs.tell_about(self.log, self.db)]
        if self.metrics_port:
            try:
                self._ends.append(metrics.serve(self.metrics_port))
            except OSError as exc:
                self.log.error("No metrics are served on port %d: %s", self.metrics_port, exc)
        if self.admin_socket:
            try:
                self._ends.append(await admin_api.serve(self.admin_socket, self, app["authenticator"]))
            except OSError as exc:
                self.log.error("gateway-admin can't ask this gateway: %s: %s", self.admin_socket, exc)

    async def stop_being_seen(self):
        ends, self._ends = self._ends, ()
        for end in ends:
            ended = end()
            if ended is not None:
                await ended

    def _forget_old_route_numbers(self):
        """Make the proxy load all routes after a restart of the gateway.

        Upstream numbers the changes from 1 in each process, so a proxy that has seen number 57 of the process before
        believes that it is up to date, and never hears of the routes up to 57 of this one. Numbers that only grow
        make it ask for everything.
        """
        base = timestamp()
        self.proxy.offset += base
        self.proxy._next_id += base
        for event in self.proxy.events:
            event["id"] += base

    # -- requests of users ------------------------------------------------------------------------------------

    async def require_service(self, username, action):
        decision = await self.accounts.check(username, action)
        if not decision.allowed:
            self.log.warning("Refused %s: %s", username, decision.rule, extra={"user": username})
            raise PublicException(one_line(decision.message))

    async def process_cluster_options(self, user, request):
        try:
            return await super().process_cluster_options(user, request)
        except PublicException as exc:
            raise PublicException(one_line(exc)) from None  # aiohttp makes a 500 of an error with a line break

    def refuse_in_maintenance(self, username):
        """Raise what a user reads while nobody gets new clusters."""
        ongoing = maintenance.current(self.maintenance_file)
        if ongoing is not None and username not in ongoing.excepted:
            self.log.info("Refused %s: maintenance", username, extra={"user": username})
            raise PublicException(ongoing.sentence)

    async def start_cluster(self, user, cluster_options):
        self.refuse_in_maintenance(user.name)
        await self.require_service(user.name, "create")
        limit = self.site_options.limits_of(user.name).get("clusters")
        mine = self.db.list_clusters(username=user.name)
        if limit is not None and len(mine) >= limit:
            raise PublicException(
                f"You have {len(mine)} clusters and are limited to {limit}. Stop one first: gateway.list_clusters() "
                "lists them, and gateway.stop_cluster(name) stops one."
            )
        return await super().start_cluster(user, cluster_options)

    async def get_cluster(self, cluster_name, wait=False):
        cluster = self.db.get_cluster(cluster_name)
        if cluster is None:
            return None
        if wait:  # only a client that waits for the start asks so
            await self._until_ready(cluster)
            if not cluster.is_active() and cluster.state.get("problem"):
                raise ClusterFailed(cluster.state["problem"])
        return cluster.to_model()

    async def _until_ready(self, cluster):
        """Wait as upstream does, but not while the gateway itself is to stop: a restart would take that long."""
        waits = [asyncio.ensure_future(awaitable) for awaitable in (_done(cluster.ready), self._stopping.wait())]
        try:
            await asyncio.wait(waits, timeout=20, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    async def forward_message_to_scheduler(self, cluster, msg):
        """Tell a scheduler to scale.

        Upstream gives up after three quick tries and then marks the cluster as failed; a scheduler can be busy, or on
        a node that is suspended for a moment. Whether a cluster has failed is decided by its job.
        """
        await self.require_service(cluster.username, str(msg.get("op")))
        self._check_scale(msg)
        live = self.db.get_cluster(cluster.name)
        if live is None or live.status != JobStatus.RUNNING or not live.is_active():
            problem = live is not None and live.state.get("problem")
            raise PublicException(one_line(problem or f"cluster {cluster.name} is not running"))
        self._holds.pop(cluster.name, None)  # the user may have mended what kept workers from starting
        live.worker_start_failure_count = 0
        deadline = time.monotonic() + self.scheduler_api_timeout
        delay = 0.2
        while True:
            try:
                await self.session.post(
                    live.api_address + "/api/comm",
                    json=msg,
                    headers={"Authorization": f"token {live.token}"},
                    raise_for_status=True,
                    timeout=aiohttp.ClientTimeout(total=max(2, deadline - time.monotonic())),
                )
            except Exception as exc:
                if not live.is_active():
                    raise PublicException(f"cluster {cluster.name} is not running") from None
                if time.monotonic() + delay >= deadline:
                    self.log.warning("The scheduler of cluster %s does not answer: %r", cluster.name, exc)
                    raise PublicException(
                        f"The scheduler of cluster {cluster.name} does not answer at the moment. It goes on running; "
                        "try again in a minute."
                    ) from None
            else:
                self.queue.put(live)
                return
            await asyncio.sleep(delay)
            delay = min(delay * 2, 5)

    async def tell(self, cluster, text):
        """Say something to whoever is connected to a cluster; its clients show it as a warning."""
        if cluster is None or cluster.status != JobStatus.RUNNING or not cluster.api_address:
            return
        try:
            await self.session.post(
                cluster.api_address + "/api/tell",
                json={"text": text},
                headers={"Authorization": f"token {cluster.token}"},
                raise_for_status=True,
                timeout=aiohttp.ClientTimeout(total=5),
            )
        except (aiohttp.ClientError, TimeoutError, OSError) as exc:
            self.log.info("The clients of cluster %s can't be told: %r", cluster.name, exc)

    def _check_scale(self, msg):
        numbers = {name: msg[name] for name in ("count", "minimum", "maximum") if msg.get(name) is not None}
        for name, value in numbers.items():
            if type(value) is not int or value < 0:
                raise PublicException(f"'{name}' must be a whole number that is not negative")
        if not isinstance(msg.get("active", True), bool):
            raise PublicException("'active' must be true or false")
        if numbers.get("minimum", 0) > numbers.get("maximum", math.inf):
            raise PublicException(f"the minimum {numbers['minimum']} is above the maximum {numbers['maximum']}")

    async def on_cluster_heartbeat(self, cluster_name, msg):
        self._check_heartbeat(msg)
        if not self.dashboards:
            msg = {**msg, "dashboard_address": ""}
        cluster = self.db.get_cluster(cluster_name)
        starting = [w for w in cluster.workers.values() if w.status < JobStatus.RUNNING] if cluster else []
        count = await self._allowed_count(cluster, msg["count"])
        await super().on_cluster_heartbeat(cluster_name, {**msg, "count": count})
        for worker in starting:
            if worker.status == JobStatus.RUNNING:
                metrics.WORKER_START_SECONDS.observe((timestamp() - worker.start_time) / 1000)

    async def _allowed_count(self, cluster, count):
        """The number of workers that a heartbeat may ask for.

        More than before is scaling like any other: an adaptive scheduler does so by itself for as long as it lives,
        and its user can write what it sends.
        """
        if cluster is None or not cluster.is_active() or count <= cluster.count:
            return count
        decision = await self.accounts.check(
            cluster.username, "grow", audited=cluster.name not in self._kept_from_growing
        )
        if decision.allowed:
            self._kept_from_growing.discard(cluster.name)
            return count
        if cluster.name not in self._kept_from_growing:  # it asks again with each heartbeat
            self._kept_from_growing.add(cluster.name)
            self.log.warning("Cluster %s of %s may not grow: %s", cluster.name, cluster.username, decision.rule)
        return min(count, cluster.count)

    def _check_heartbeat(self, msg):
        """A heartbeat is written by a process of the user, and its addresses go into the proxy's routes."""
        try:
            for key, schemes in (("scheduler_address", ["tls"]), ("api_address", ["http", "https"])):
                address = urlsplit(msg[key])
                host = ipaddress.ip_address(address.hostname)
                if (
                    address.scheme not in schemes
                    or not address.port
                    or (host.is_loopback or host.is_unspecified or host.is_link_local or host.is_multicast)
                ):
                    raise ValueError(f"{key} {one_line(msg[key], 80)} is not one of a compute node")
            if self.dashboards and msg["dashboard_address"]:
                # What the owner's browser is shown under the gateway's name comes from there
                address, scheduler = urlsplit(msg["dashboard_address"]), urlsplit(msg["scheduler_address"])
                if address.scheme != "http" or not address.port or address.hostname != scheduler.hostname:
                    where = one_line(msg["dashboard_address"], 80)
                    raise ValueError(f"dashboard_address {where} is not one of the scheduler's node")
                if address.path.strip("/") or address.query or address.username is not None:
                    raise ValueError("dashboard_address is more than an address")
            if type(msg["count"]) is not int or msg["count"] < 0:
                raise ValueError("the count of workers is not a number")
            for key in ("active_workers", "closing_workers", "closed_workers"):
                if not isinstance(msg[key], list) or not all(isinstance(name, (str, int)) for name in msg[key]):
                    raise ValueError(f"{key} is not a list of names")
        except (KeyError, TypeError, ValueError) as exc:
            raise PublicException(one_line(f"not a heartbeat: {exc}")) from None

    # -- the jobs ---------------------------------------------------------------------------------------------

    def get_staging_directory(self, cluster):
        return f"{pwd.getpwnam(cluster.username).pw_dir}/{self.folder}/{cluster.name}"

    def log_path(self, cluster, job_id=None):
        """The path of a log for people: that of the scheduler, or of a worker by its job."""
        name = f"worker-{job_id}.log" if job_id else "scheduler.log"
        return f"~/{self.folder}/logs/{cluster.name}/{name}"

    def get_env(self, cluster):
        """What the gateway needs in a job; the user's own variables are set before, see job_script."""
        staging = self.get_staging_directory(cluster)
        environment = {
            "DASK_GATEWAY_API_URL": self.api_url,
            "DASK_GATEWAY_API_TOKEN": f"{staging}/dask.token",  # upstream reads a file if it is a path
            "DASK_GATEWAY_CLUSTER_NAME": cluster.name,
            "DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION": "True",
            "DASK_DISTRIBUTED__SCHEDULER__IDLE_TIMEOUT": f"{self.idle_timeout:g}s" if self.idle_timeout else "null",
            **{str(name): str(value) for name, value in self.job_environment.items()},
        }
        if cluster.config.get("workers"):
            environment["DASK_GATEWAY_WORKERS"] = str(self.first_workers(cluster))
            environment["DASK_GATEWAY_SCHEDULER_FILE"] = f"{staging}/{SCHEDULER_FILE}"
        if self.ca_file:
            environment["SSL_CERT_FILE"] = self.ca_file
        # The web servers of scheduler and workers have no sign-in: they would tell anybody who can reach the node. What
        # the dashboard needs is added by its preload, behind a guard.
        environment["DASK_DISTRIBUTED__SCHEDULER__HTTP__ROUTES"] = "['distributed.http.health']"
        environment["DASK_DISTRIBUTED__WORKER__HTTP__ROUTES"] = "['distributed.http.health']"
        if self.dashboards:
            environment["DASK_GATEWAY_DASHBOARD_KEY"] = f"{staging}/{dashboards.KEY_FILE}"
        return environment

    def dashboard_arguments(self, cluster):
        if not self.dashboards:
            return ["--no-dashboard", "--dashboard-address", "127.0.0.1:0"]
        preload = f"{self.get_staging_directory(cluster)}/{DASHBOARD_PRELOAD.name}"
        return ["--no-dashboard", "--dashboard-address", f"{self.default_host}:0", "--preload", preload]

    def get_scheduler_command(self, cluster):
        return [*cluster.config.scheduler_cmd, *self.scheduler_arguments(cluster)]

    def scheduler_arguments(self, cluster):
        return [
            *("--protocol", "tls"),
            *("--host", self.default_host),
            *("--port", "0"),
            *self.dashboard_arguments(cluster),
            *("--preload", "dask_gateway.scheduler_preload"),
            *("--preload", f"{self.get_staging_directory(cluster)}/{PRELOAD.name}"),
            *("--dg-api-address", f"{self.default_host}:0"),
            *("--dg-heartbeat-period", str(self.cluster_heartbeat_period)),
            *("--dg-adaptive-period", str(cluster.config.adaptive_period)),
            *("--dg-idle-timeout", "0"),  # upstream's own takes queued tasks for idleness
        ]

    def worker_arguments(self, cluster, worker_name, lifetime=""):
        arguments = [
            *("--name", worker_name),
            *("--nthreads", str(cluster.config.worker_threads)),
            *("--memory-limit", str(cluster.config.worker_memory)),
            *("--death-timeout", f"{self.death_timeout:g}"),
            *self.dashboard_arguments(cluster),
            "--nanny" if self.has_nanny() else "--no-nanny",
        ]
        return [*arguments, "--lifetime", lifetime] if lifetime else arguments

    def has_nanny(self):
        if self.worker_nanny == "auto":
            return not self.slurm.enforces_memory
        return self.worker_nanny == "always"

    def first_workers(self, cluster):
        """How many workers are submitted together with the scheduler."""
        limit = cluster.config.get("cluster_max_workers")
        workers = cluster.config.get("workers", 0)
        return workers if limit is None else min(workers, limit)

    @staticmethod
    def lifetime(cluster, worker):
        """How long a worker works before it hands over what it has, in dask's form; before its job's time is up.

        Workers that start together must not end together: the last ones would have nobody to hand over to, and until
        a replacement has come through the queue takes a while. So they are spread over a quarter of their time,
        evenly whatever their number is (by the golden ratio), and not by chance as with --lifetime-stagger.
        """
        seconds = 60 * cluster.config.get("time_limit", 0)
        if not seconds:
            return ""
        margin = min(600, max(20, seconds / 20))
        return f"{max(seconds / 3, seconds - margin - (worker.id * 0.618034 % 1) * seconds / 4):.0f}s"

    def job_script(self, cluster, workers=()):
        staging = self.get_staging_directory(cluster)
        program = [f"{staging}/{PROGRAM.name}"]
        tasks = {}
        if workers:
            environment = self.get_worker_env(cluster)
            if cluster.scheduler_address:
                at = cluster.scheduler_address
                where = [at]
            else:
                at = f"{staging}/{SCHEDULER_FILE}"
                where = ["--scheduler-file", at]
            program += ["worker", at, f"{self.death_timeout:g}"]
            instead = [*cluster.config.worker_cmd, *where]
            names = [worker.name for worker in workers]
            lifetimes = [self.lifetime(cluster, worker) for worker in workers]
            if len(workers) == 1:
                arguments = self.worker_arguments(cluster, names[0], lifetimes[0])
            else:
                tasks = {"worker_name": names, "worker_lifetime": lifetimes}
                arguments = self.worker_arguments(cluster, "worker_name", lifetimes[0] and "worker_lifetime")
        else:
            environment = self.get_scheduler_env(cluster)
            program += ["scheduler"]
            instead = cluster.config.scheduler_cmd
            arguments = self.scheduler_arguments(cluster)
        if list(instead[:2]) != ["dask", program[1]]:
            arguments, program = [*instead, *arguments], None  # the site's own command
        before = NANNYS_ENVIRONMENT if workers and not self.has_nanny() else {}
        return jobs.script(
            modules_init=self.modules_init,
            setup=cluster.config.worker_setup or self.default_setup,
            environment={**before, **cluster.config.environment},
            gateway_environment=environment,
            command=arguments,
            program=program,
            instead=instead,
            tasks=tasks,
            check=f"{self.get_staging_directory(cluster)}/{PRELOAD.name}" if workers else "",
        )

    def job_request(self, cluster, workers=()):
        """What the launcher is asked to submit."""
        config = cluster.config
        kind = "worker" if workers else "scheduler"
        request = {
            "cluster": cluster.name,
            "kind": kind,
            "script": self.job_script(cluster, workers),
            "cpus": config[f"{kind}_cores"],
            "memory": math.ceil(config[f"{kind}_memory"] / MIB),
            "time": config.get("time_limit" if workers else "scheduler_time_limit", 0) or None,
            "partition": config.partition,
            "account": config.account,
            "qos": config.qos,
        }
        if len(workers) > 1:
            request["array"] = len(workers)
        if not workers:
            request["files"] = {
                "dask.crt": cluster.tls_cert.decode("utf8"),
                "dask.pem": cluster.tls_key.decode("utf8"),
                "dask.token": cluster.token,
                SCHEDULER_FILE: "",
                **self.programs(cluster),
            }
        return request

    def programs(self, cluster):
        """What a cluster's jobs run or import from its folder, besides its keys."""
        files = {path.name: path.read_text() for path in (PRELOAD, PROGRAM)}
        if self.dashboards:
            files[DASHBOARD_PRELOAD.name] = DASHBOARD_PRELOAD.read_text()
            files[dashboards.KEY_FILE] = dashboards.key_of(cluster)
        return files

    def programs_digest(self, cluster):
        """By which it is known whether a cluster's folder has the programs of this release."""
        return hashlib.sha256(json.dumps(self.programs(cluster), sort_keys=True).encode("utf8")).hexdigest()[:12]

    async def do_as_user(self, user, action, **request):
        """One request to the launcher, run by sudo as the user."""
        began, outcome = time.monotonic(), "error"
        try:
            answer = await self._run_launcher(user, action, **request)
            outcome = "done"
            return answer
        except LauncherError as exc:
            outcome = "refused" if exc.source in ("request", "sbatch", "sudo") and not exc.temporary else "error"
            raise
        finally:
            metrics.LAUNCHER_SECONDS.labels(action, outcome).observe(time.monotonic() - began)

    async def _run_launcher(self, user, action, **request):
        try:
            process = await asyncio.create_subprocess_exec(
                self.sudo, "-n", "-H", "-u", user, "--", self.launcher,
                env={}, cwd="/",
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            )  # fmt: skip
        except OSError as exc:
            raise LauncherError(f"{self.sudo} can't be run: {exc}", temporary=True) from None
        try:
            data = json.dumps({"action": action, **request}).encode("utf8")
            async with asyncio.timeout(self.launcher_timeout):
                stdout, stderr = await process.communicate(data)
        except TimeoutError:
            # It runs as another user, so it can't be killed from here; it ends by itself, see launcher.TIME.
            with contextlib.suppress(OSError):
                process._transport.close()
            raise LauncherError(f"no answer in {self.launcher_timeout:g} s", temporary=True) from None
        try:
            answer = json.loads(stdout)
            ok = answer["ok"]
        except (ValueError, TypeError, KeyError):
            said = one_line(stderr.decode("utf8", "replace"), 500)
            if "not allowed" in said or "password is required" in said or "unknown user" in said:
                raise LauncherError(said, source="sudo") from None
            raise LauncherError(f"no answer (code {process.returncode}): {said}", temporary=True) from None
        if not ok:
            raise LauncherError(
                str(answer.get("error")), str(answer.get("source")), bool(answer.get("temporary", False))
            )
        return answer

    async def submit(self, cluster, workers, batch):
        """Submit one or many workers, and answer with the id of the job."""
        request = self.job_request(cluster, workers) | {"batch": batch}
        digest = self.programs_digest(cluster)
        if cluster.state.get("programs") != digest:
            # It was made before an upgrade: this release's workers need this release's programs
            request["files"] = self.programs(cluster)
        answer = await self._submit(cluster, f"{len(workers)} workers", request)
        if "files" in request:
            live = self.db.get_cluster(cluster.name)
            self.db.update_cluster(live, state={**live.state, "programs": digest})
        return answer["job"]

    async def submit_scheduler(self, cluster, workers):
        """Submit the scheduler, with new workers if there are any: the id of its job, and what became of theirs."""
        request = self.job_request(cluster)
        what = "the scheduler"
        if workers:
            job = self.job_request(cluster, workers) | {"batch": workers[0].state["batch"]}
            request["workers"] = {name: value for name, value in job.items() if name not in ("cluster", "kind")}
            what += f" and {len(workers)} workers"
        answer = await self._submit(cluster, what, request)
        return answer["job"], answer.get("workers", {})

    async def _submit(self, cluster, what, request):
        began = time.monotonic()
        answer = await self.do_as_user(cluster.username, "submit", **request)
        self.log.info(
            "Job %s submitted for %s of cluster %s of %s in %.0f ms",
            answer["job"], what, cluster.name, cluster.username, 1000 * (time.monotonic() - began),
            extra={"job": answer["job"]},
        )  # fmt: skip
        return answer

    def refusal(self, cluster, what, exc):
        """What the user reads when a job could not be submitted."""
        said = one_line(exc, 700)
        if exc.source == "sudo":
            return (
                f"{cluster.username} is not in the group '{self.users_group}', for whose members this service submits "
                f"jobs. Ask {self.support}."
            )
        if exc.source == "sbatch":
            return f"SLURM refused {what}: {said.rstrip('.')}. {messages.advice(said)}".strip()
        if exc.source == "folder":
            return (
                f"The folder ~/{self.folder} can't be written: {said}. Check that your home folder is not full and "
                f"that ~/{self.folder} is a folder of yours."
            )
        self.log.error("The launcher refused %s of cluster %s: %s", what, cluster.name, said)
        return f"{what[0].upper()}{what[1:]} could not be submitted: {said}. Ask {self.support}."

    # -- a cluster starts -------------------------------------------------------------------------------------

    async def _cluster_to_submitted(self, cluster):
        """Submit the scheduler, and its first workers with it: a busy batch cluster is queued for once.

        The workers' records come first, so that their jobs are found again whatever happens between the two.
        """
        self._submitting.add(cluster.name)
        workers = []
        try:
            job_id, fate = None, {}
            if cluster.name in self._doubtful:
                job_id = next(iter(await self.jobs_from_before(cluster, "scheduler", "-")), None)
            if job_id is None:
                workers = self._first_workers(cluster)
                self._submitting.update(w.name for w in workers)
                job_id, fate = await self.submit_scheduler(cluster, workers)
        except SlurmError:
            raise  # and be tried again
        except LauncherError as exc:
            if exc.temporary:
                self._doubtful.add(cluster.name)
                raise
            reason = failures.of_refusal(exc.source, str(exc))
            await self.fail_cluster(cluster, self.refusal(cluster, "the scheduler's job", exc), reason)
        except Exception as exc:
            self.log.error("Cluster %s could not be submitted", cluster.name, exc_info=True)
            await self.fail_cluster(
                cluster, f"The cluster could not be submitted ({type(exc).__name__}). Ask {self.support}."
            )
        else:
            self._doubtful.discard(cluster.name)
            self.db.update_cluster(
                cluster,
                status=JobStatus.SUBMITTED,
                state={**cluster.state, "job_id": job_id, "programs": self.programs_digest(cluster)},
            )
            if "job" in fate:
                self._record_submitted(workers, fate["job"])
            elif "error" in fate and not fate.get("temporary"):
                await self.first_workers_refused(cluster, workers, fate)
            self.queue.put(cluster)  # for the first workers that are not submitted yet
            self._wake.set()
        finally:
            self._submitting.discard(cluster.name)
            self._submitting.difference_update(w.name for w in workers)

    def _first_workers(self, cluster):
        """The records of those workers that go in with the scheduler: one submission of them."""
        count = min(self.first_workers(cluster), self.max_array_size)
        if cluster.workers or not count:
            workers = [w for w in cluster.workers.values() if w.status == JobStatus.CREATED]
            whole = [w.state.get("index") for w in workers] in ([None], list(range(len(workers))))
            return workers if whole and workers and workers[0].target == JobStatus.RUNNING else []
        self.db.update_cluster(cluster, count=self.first_workers(cluster))
        return self.create_workers(cluster, count)

    async def first_workers_refused(self, cluster, workers, fate):
        """The scheduler is fine, its workers are not: that is told, and the user decides."""
        exc = LauncherError(str(fate["error"]), str(fate.get("source", "launcher")))
        problem = (
            self.refusal(cluster, "the workers' job", exc)
            + " The cluster has no workers; `cluster.scale(n)` tries again."
        )
        self._forget(workers)
        self._holds[cluster.name] = math.inf  # until the user asks for workers
        reason = failures.of_refusal(exc.source, str(exc))
        metrics.FAILURES.labels("worker", reason).inc()
        self.log.warning(
            "The first workers of cluster %s are refused: %s", cluster.name, one_line(problem), extra={"reason": reason}
        )
        self.db.update_cluster(cluster, state={**cluster.state, "worker_problem": problem[:8000]})

    async def reconcile_cluster(self, cluster):
        await super().reconcile_cluster(cluster)
        if cluster.status == JobStatus.SUBMITTED and cluster.target == JobStatus.RUNNING:
            await self._check_cluster_scale(cluster)

    async def _cluster_to_running(self, cluster):
        """Its routes come first: its user's client connects as soon as it hears of this."""
        await self._check_cluster_proxied(cluster)
        await super()._cluster_to_running(cluster)
        if cluster.state.get("worker_problem"):
            self.task_pool.spawn(self.tell(cluster, cluster.state["worker_problem"]))
        metrics.CLUSTER_START_SECONDS.observe((timestamp() - cluster.start_time) / 1000)

    async def jobs_from_before(self, cluster, kind, batch):
        """The living jobs of a submission of which it is not known whether it came through."""
        found = [
            job.id
            for job in (await self.slurm.jobs([cluster.username])).values()
            if parse_comment(job.comment) == (self.instance, cluster.name, kind, batch) and not job.over
        ]
        if found:
            self.log.info("Cluster %s: found jobs %s of an earlier submission", cluster.name, ", ".join(found))
        return found

    async def fail_cluster(self, cluster, problem, reason="other"):
        """Mark a cluster as failed, with the sentence that its user reads; `reason` is one of failures.REASONS."""
        metrics.FAILURES.labels("cluster", reason).inc()
        self.log.warning(
            "Cluster %s of %s failed: %s", cluster.name, cluster.username, one_line(problem), extra={"reason": reason}
        )
        self.db.update_cluster(cluster, target=JobStatus.FAILED, state={**cluster.state, "problem": problem[:8000]})
        cluster.ready.set()
        self.queue.put(cluster)

    # -- workers start ----------------------------------------------------------------------------------------

    async def reconcile_worker(self, worker):
        if worker.status == JobStatus.CREATED and worker.target == JobStatus.RUNNING:
            self.queue.put(worker.cluster)  # which submits all its new workers together
            return
        if worker.name in self._submitting:
            return  # its submission puts it back into the queue
        await super().reconcile_worker(worker)

    async def _check_cluster_scale(self, cluster):
        hold = self._holds.get(cluster.name, 0) - time.monotonic()
        if hold > 0:
            if hold < math.inf:
                self.queue.put_after(cluster, hold + 0.1)
            return
        # Workers of a submission of which it is not known whether it came through.
        doubtful = {}
        for worker in cluster.workers.values():
            if worker.status == JobStatus.CREATED and worker.target == JobStatus.RUNNING:
                doubtful.setdefault(worker.state.get("batch", ""), []).append(worker)
        for batch, workers in doubtful.items():
            found = set(await self.jobs_from_before(cluster, "worker", batch))
            ids = {worker: self._worker_job(worker, found) for worker in workers}
            self.db.update_workers([(w, self._submitted(w, ids[w])) for w in workers if ids[w]])
            lost = [w for w in workers if not ids[w]]
            if lost and not await self._submit_workers(cluster, lost):
                return
        # While the scheduler waits, those that failed or waited for it in vain are not replaced.
        waiting = cluster.status == JobStatus.SUBMITTED
        missing = cluster.count - len(cluster.workers if waiting else cluster.active_workers())
        while missing > 0:
            workers = self.create_workers(cluster, min(missing, self.max_array_size))
            missing -= len(workers)
            if not await self._submit_workers(cluster, workers):
                return

    @staticmethod
    def _worker_job(worker, found):
        """The worker's job among the jobs of its batch: the task of an array, or a job of its own."""
        index = worker.state.get("index")
        return next((job for job in found if job.partition("_")[2] == ("" if index is None else str(index))), None)

    @staticmethod
    def _submitted(worker, job_id):
        return {"status": JobStatus.SUBMITTED, "state": {**worker.state, "job_id": job_id}}

    def create_workers(self, cluster, count):
        """Records of new workers, in one transaction, with the mark by which their jobs are found again."""
        now = timestamp()
        batch = os.urandom(8).hex()
        workers = []
        with self.db.db.begin() as connection:
            for index in range(count):
                values = {
                    "name": os.urandom(16).hex(),
                    "status": JobStatus.CREATED,
                    "target": JobStatus.RUNNING,
                    "state": {"batch": batch, "index": index if count > 1 else None},
                    "start_time": now,
                    "close_expected": False,
                }
                result = connection.execute(db_base.workers.insert().values(cluster_id=cluster.id, **values))
                workers.append(db_base.Worker(id=result.inserted_primary_key[0], cluster=cluster, **values))
        cluster.workers.update((worker.name, worker) for worker in workers)
        return workers

    async def _submit_workers(self, cluster, workers):
        """Submit new workers with one sbatch. False if SLURM does not take any at the moment."""
        names = [w.name for w in workers]
        batch = workers[0].state["batch"]
        if len(workers) > 1 and [w.state["index"] for w in workers] != list(range(len(workers))):
            batch = os.urandom(8).hex()  # what is left of an older batch: an array of its own
            self.db.update_workers([(w, {"state": {"batch": batch, "index": i}}) for i, w in enumerate(workers)])
        elif len(workers) == 1 and workers[0].state["index"] is not None:
            batch = os.urandom(8).hex()
            self.db.update_workers([(workers[0], {"state": {"batch": batch, "index": None}})])
        self._submitting.update(names)
        try:
            job_id = await self.submit(cluster, workers, batch)
        except LauncherError as exc:
            if exc.temporary:
                self.log.warning("Workers of cluster %s are not submitted yet: %s", cluster.name, exc)
                self._hold(cluster, 10)
                return False
            self._forget(workers)
            reason = failures.of_refusal(exc.source, str(exc))
            await self.workers_failed(cluster, batch, self.refusal(cluster, "the workers' job", exc), reason)
            return False
        else:
            self._record_submitted(workers, job_id)
        finally:
            self._submitting.difference_update(names)
            for worker in workers:
                if worker.target != JobStatus.RUNNING:
                    self.queue.put(worker)  # it was told to stop meanwhile
        self._wake.set()
        return True

    def _record_submitted(self, workers, job_id):
        """The jobs of new workers: one of its own, or the tasks of an array."""
        one = len(workers) == 1
        self.db.update_workers(
            [(w, self._submitted(w, job_id if one else f"{job_id}_{i}")) for i, w in enumerate(workers)]
        )

    def _hold(self, cluster, seconds):
        """No new workers for this cluster for a while."""
        self._holds[cluster.name] = time.monotonic() + seconds
        self.queue.put_after(cluster, seconds + 0.1)

    def _forget(self, workers):
        """Workers that have no job."""
        now = timestamp()
        self.db.update_workers(
            [(w, {"status": JobStatus.FAILED, "target": JobStatus.FAILED, "stop_time": now}) for w in workers]
        )

    async def workers_failed(self, cluster, batch, problem, reason="other"):
        """Workers could not start. The cluster lives on while it has others; if it has none, it fails."""
        if self._failed_batches.get(cluster.name) == batch:
            self.queue.put(cluster)  # the rest of an array of which others have failed already
            return
        self._failed_batches[cluster.name] = batch
        cluster.worker_start_failure_count += 1
        count = cluster.worker_start_failure_count
        metrics.FAILURES.labels("worker", reason).inc()
        self.log.warning(
            "Workers of cluster %s failed to start (%d): %s", cluster.name, count, one_line(problem),
            extra={"reason": reason},
        )  # fmt: skip
        self.db.update_cluster(cluster, state={**cluster.state, "worker_problem": problem[:8000]})
        if count <= self.worker_start_failure_limit:
            await self.tell(cluster, problem)
        running = any(w.status == JobStatus.RUNNING and w.is_active() for w in cluster.workers.values())
        if count >= self.worker_start_failure_limit and not running:
            await self.fail_cluster(cluster, problem, reason)
            return
        self._hold(cluster, min(300, 2.0**count))

    # -- clusters and workers end -----------------------------------------------------------------------------

    def worker_jobs(self, cluster):
        """The jobs of workers that are not known to have ended."""
        return [
            w.state["job_id"]
            for w in cluster.workers.values()
            if w.status < JobStatus.STOPPED and w.state.get("job_id")
        ]

    def living_jobs(self, cluster):
        """The jobs of a cluster that may still run."""
        scheduler = [cluster.state["job_id"]] if cluster.state.get("job_id") else []
        return scheduler + self.worker_jobs(cluster)

    async def cancel(self, cluster, job_ids, **request):
        """Cancel jobs; an error unless SLURM took all of it."""
        answer = await self.do_as_user(cluster.username, "cancel", cluster=cluster.name, jobs=job_ids, **request)
        for problem in answer["problems"]:
            self.log.warning("Cluster %s of %s: %s", cluster.name, cluster.username, problem)
        if answer["failed"]:
            job, said = next(iter(answer["failed"].items()))
            raise LauncherError(f"{len(answer['failed'])} jobs are not cancelled yet; {job}: {said}", temporary=True)
        return answer

    async def do_stop_cluster(self, cluster):
        scheduler = cluster.state.get("job_id")
        try:
            await self.cancel(cluster, self.worker_jobs(cluster), last=scheduler, remove=True)
        except LauncherError as exc:
            # Nothing is ever submitted for a user whom sudo does not let us act for. And what is over needs no cancel,
            # also if it can't be had any more, as for a user who has left the group meanwhile.
            never_submitted = exc.source == "sudo" and not self.living_jobs(cluster)
            if not never_submitted and not await self.is_over(cluster):
                raise
            self.log.warning("Cluster %s of %s: %s", cluster.name, cluster.username, exc)

    async def is_over(self, cluster):
        """Whether SLURM says of each job of a cluster that it has ended."""
        ids = self.living_jobs(cluster)
        known = await self.slurm.jobs([cluster.username])
        if any(job_id in known and not known[job_id].over for job_id in ids):
            return False
        for job_id in ids:
            ending = known.get(job_id) or await self.slurm.ending(job_id)
            if ending is None or not ending.over:
                return False
        return bool(ids)

    async def _cluster_to_stopped(self, cluster):
        """Cancel first; the cluster counts as stopped when SLURM has taken that. Upstream forgets what failed."""
        await self.proxy.remove_route(kind="PATH", path=f"/clusters/{cluster.name}")
        await self.proxy.remove_route(kind="SNI", sni=cluster.name)
        await self.do_stop_cluster(cluster)
        self.log.info("Cluster %s of %s stopped", cluster.name, cluster.username)
        now = timestamp()
        self.db.update_workers(
            [
                (w, {"status": JobStatus.STOPPED, "target": JobStatus.STOPPED, "stop_time": now})
                for w in cluster.workers.values()
                if w.status < JobStatus.STOPPED
            ]
        )
        self.db.update_cluster(cluster, status=cluster.target, stop_time=now)
        self._holds.pop(cluster.name, None)
        self._failed_batches.pop(cluster.name, None)
        self._doubtful.discard(cluster.name)
        self._kept_from_growing.discard(cluster.name)
        cluster.ready.set()
        cluster.shutdown.set()
        self.task_pool.spawn(self.tidy(cluster.username))

    async def tidy(self, username):
        """Once a day at most: remove the user's expired logs and what failed stops have left.

        It begins with the end of a cluster, and goes on until nothing is left, whether or not the user comes back.
        """
        last, in_vain = self._tidied.get(username, (0, 0))
        now = int(time.time())
        if now - last < TIDY_EVERY:
            return
        self._remember_tidied(username, now, in_vain + 1)  # until there is an answer
        mine = list(self.db.username_to_clusters.get(username, {}).values())
        keep = [c.name for c in mine if c.status < JobStatus.STOPPED]
        try:
            await asyncio.to_thread(pwd.getpwnam, username)  # a directory may be slow, or away
            answer = await self.do_as_user(username, "tidy", keep=keep)
        except (KeyError, LauncherError) as exc:
            why = exc if isinstance(exc, LauncherError) else "the directory does not know this user"
            self.log.warning("The folders of %s are not tidied: %s", username, why, extra={"user": username})
            if in_vain + 1 >= TIDIED_IN_VAIN and not mine:
                self._forget_tidied(username)
            return
        if answer["removed"]:
            self.log.info("Removed %d old folders of %s", len(answer["removed"]), username)
        for problem in answer["problems"][:10]:
            self.log.warning("A folder of %s is not tidied: %s", username, problem, extra={"user": username})
        if answer["left"] or self.db.username_to_clusters.get(username):
            self._remember_tidied(username, now)
        else:
            self._forget_tidied(username)

    async def tidy_loop(self):
        """Tidy up after those who do not come back, a few at a time."""
        while True:
            await asyncio.sleep(self.reconcile_period)
            try:
                await self.tidy_some()
            except Exception:
                self.log.warning("Exception while looking for old logs", exc_info=True)

    async def tidy_some(self):
        """Tidy the folders of some users whose clusters have ended: of those first who have waited longest for it."""
        ended = {c.username for c in self.db.name_to_cluster.values() if c.status >= JobStatus.STOPPED}
        waiting = sorted((self._tidied.get(user, (0, 0))[0], user) for user in ended | set(self._tidied))
        due = [user for last, user in waiting if time.time() - last >= TIDY_EVERY]
        for user in due[: self.tidied_at_once]:
            try:
                await self.tidy(user)
            except Exception:
                self.log.warning("Exception while tidying the folders of %s", user, exc_info=True)

    async def _worker_to_stopped(self, worker):
        job_id = worker.state.get("job_id")
        if job_id and worker.status > JobStatus.CREATED:
            await self.cancel(worker.cluster, [job_id])
        self.db.update_worker(worker, status=worker.target, stop_time=timestamp())

    # -- what SLURM says about the jobs -----------------------------------------------------------------------

    async def check_clusters_loop(self):
        """Follow the jobs. In upstream this asks about schedulers that have not started; here about all jobs."""
        while True:
            busy = any(self.is_waiting(c) for c in self.db.active_clusters())
            self._wake.clear()
            # Not asyncio.wait_for, which loses a cancellation that comes together with the event (python/cpython#86296)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.pending_period if busy else self.running_period):
                    await self._wake.wait()
                    await asyncio.sleep(min(1, self.pending_period))  # a job that was submitted just now
            try:
                await self.check_jobs_once()
            except SlurmError as exc:
                self.log.warning("SLURM gives no answer about jobs, nothing is concluded from that: %s", exc)
            except Exception:
                self.log.warning("Exception while checking jobs", exc_info=True)

    async def check_workers_loop(self):
        """Nothing: check_clusters_loop asks about workers too."""

    def is_waiting(self, cluster):
        return cluster.status == JobStatus.SUBMITTED or any(
            w.status == JobStatus.SUBMITTED for w in cluster.active_workers()
        )

    async def check_jobs_once(self):
        """Compare the jobs of the active clusters with what SLURM says about them."""
        schedulers = [
            c
            for c in self.db.active_clusters()
            if c.status in (JobStatus.SUBMITTED, JobStatus.RUNNING) and c.state.get("job_id")
        ]
        # A running worker is its scheduler's to watch.
        workers = [
            w
            for c in schedulers
            for w in c.active_workers()
            if w.status == JobStatus.SUBMITTED and w.state.get("job_id")
        ]
        if not schedulers:
            self._missing.clear()
            return
        known = await self.slurm.jobs({c.username for c in schedulers})
        now = time.monotonic()
        missing, ended = {}, {}
        for thing in [*schedulers, *workers]:
            job = known.get(thing.state["job_id"])
            if job is not None and not job.over:
                continue
            # Not listed may be not listed yet, or hidden. Only a record of its end counts, which is asked for less
            # and less often, as each question costs SLURM something.
            since, again = self._missing.get(thing.name, (now, now if job else now + self.pending_period / 2))
            if now >= again and len(ended) < 20:
                ending = await self.slurm.ending(thing.state["job_id"]) or job
                if ending is not None and ending.over:
                    ended[thing] = ending
                    continue
                if ending is None:
                    self.job_unknown(thing)
                again = time.monotonic() + min(60, max(self.pending_period, now - since))
            missing[thing.name] = (since, again)
        self._missing = missing
        workers_of = {}
        for thing, ending in ended.items():
            if isinstance(thing, db_base.Cluster):
                await self.scheduler_ended(thing, ending)
            else:
                workers_of.setdefault(thing.cluster.name, []).append((thing, ending))
        for group in workers_of.values():
            await self.workers_ended(group)

    def job_unknown(self, thing):
        """SLURM knows nothing of a job. That alone is no proof: jobs can be hidden from us, and records can be lost."""
        if not isinstance(thing, db_base.Cluster) or thing.status != JobStatus.RUNNING:
            return
        silent = (timestamp() - (thing.last_heartbeat or 0)) / 1000
        if silent > self.cluster_heartbeat_timeout:
            self.log.warning("Cluster %s: SLURM does not know job %s", thing.name, thing.state["job_id"])
            problem = f"The scheduler's job {thing.state['job_id']} is gone, and SLURM has no record of its end."
            metrics.FAILURES.labels("cluster", "lost").inc()
            self.db.update_cluster(thing, target=JobStatus.FAILED, state={**thing.state, "problem": problem})
            self.queue.put(thing)

    async def scheduler_ended(self, cluster, job):
        if not cluster.is_active():
            return
        if cluster.status == JobStatus.RUNNING and job.state == "COMPLETED":
            # It closed by itself: idle for too long, or told to by its user.
            self.log.info("Cluster %s of %s ended by itself", cluster.name, cluster.username)
            await self.stop_cluster(cluster.name)
            return
        log = await self.tail(cluster, "scheduler")
        if cluster.status == JobStatus.RUNNING:
            what = messages.with_log(
                f"The scheduler (job {job.id}) ended as {job.state}. Its tasks are lost.", self.log_path(cluster), log
            )
        else:
            what = messages.ended("The cluster's scheduler", job, self.log_path(cluster), log, self.support)
        if cluster.is_active():
            await self.fail_cluster(cluster, what, failures.of_job(job, log))

    async def workers_ended(self, ended):
        """Jobs of workers that ended before the workers came up."""
        cluster = ended[0][0].cluster
        ended = [(w, job) for w, job in ended if w.status == JobStatus.SUBMITTED and w.target == JobStatus.RUNNING]
        if not ended or not cluster.is_active():
            return
        worker, job = ended[0]
        log = await self.tail(cluster, f"worker-{job.id}")
        self._forget([w for w, _ in ended])
        if any(messages.NO_SCHEDULER in line for line in log):
            self.log.info("Cluster %s: workers waited for the scheduler in vain", cluster.name)
            self.queue.put(cluster)  # new ones are submitted once it runs
            return
        what = "A worker" if len(ended) == 1 else f"{len(ended)} workers, of them one"
        sentence = messages.ended(what, job, self.log_path(cluster, job.id), log, self.support)
        await self.workers_failed(cluster, worker.state.get("batch"), sentence, failures.of_job(job, log))

    async def tail(self, cluster, log):
        """The last lines of a log of a user."""
        try:
            answer = await self.do_as_user(cluster.username, "cancel", cluster=cluster.name, jobs=[], log=log, lines=15)
        except LauncherError as exc:
            self.log.warning("The log %s of cluster %s can't be read: %s", log, cluster.name, exc)
            return []
        return answer["log"]

    async def _check_timeouts(self):
        """Nothing ends by the clock. Upstream ends a cluster by two missed heartbeats, and a job that queues long.

        A cluster ends with its job, which has a time limit; see check_jobs_once.
        """
        cutoff = timestamp() - self.cluster_heartbeat_timeout * 1000
        for cluster in self.db.active_clusters():
            if cluster.status == JobStatus.RUNNING and cluster.last_heartbeat < cutoff:
                self.log.warning("Cluster %s of %s sends no heartbeats", cluster.name, cluster.username)
                self._wake.set()

    # -- jobs without a cluster -------------------------------------------------------------------------------

    async def reconcile_loop(self):
        while True:
            try:
                await self.slurm.learn()
            except SlurmError as exc:
                self.log.warning("SLURM's configuration can't be read: %s", exc)
            try:
                await self.cancel_orphans()
            except SlurmError as exc:
                self.log.warning("Jobs are not compared with the database: %s", exc)
            except Exception:
                self.log.warning("Exception while comparing jobs with the database", exc_info=True)
            await asyncio.sleep(self.reconcile_period)

    async def find_orphans(self, all_of_them=False):
        """{(user, cluster): jobs}: living jobs of this gateway that belong to no cluster that it knows to be alive.

        They are left by a gateway that was killed between sbatch and its own record. Those from before its database
        came may be clusters that are at work, of which a backup knows that is still to be restored: they count only
        when the time for that is over, or for an operator who asks for `all_of_them`.
        """
        orphans, strangers = {}, set()
        all_of_them = all_of_them or time.time() - self._born >= self.restore_window
        for job in (await self.slurm.jobs()).values():
            mark = parse_comment(job.comment)
            if job.over or mark is None or mark[0] != self.instance or job.state == "COMPLETING":
                continue
            if not re.fullmatch(r"[0-9-]+T[0-9:]+", job.submitted):
                continue
            submitted = time.mktime(time.strptime(job.submitted, "%Y-%m-%dT%H:%M:%S"))
            if time.time() - submitted < self.orphan_age:
                continue
            cluster = self.db.get_cluster(mark[1])
            if cluster is not None and cluster.username == job.user and cluster.status < JobStatus.STOPPED:
                undecided = cluster.status == JobStatus.CREATED or any(
                    w.status == JobStatus.CREATED for w in cluster.workers.values()
                )
                if undecided or job.id in self.living_jobs(cluster):
                    continue
            if cluster is None and submitted < self._born and not all_of_them:
                strangers.add(job.id)
                continue
            orphans.setdefault((job.user, mark[1]), []).append(job)
        if strangers - self._strangers:
            self.log.warning(
                "%d jobs belong to no cluster, and are older than this database: restore a backup that knows them, or "
                "let `gateway-admin reconcile` cancel them; at %s they are cancelled",
                len(strangers),
                time.strftime("%Y-%m-%d %H:%M", time.localtime(self._born + self.restore_window)),
            )
        self._strangers |= strangers
        return orphans

    async def cancel_orphans(self, orphans=None):
        """Cancel jobs without a cluster, and say for each user's and cluster's what became of it."""
        done = []
        for (user, cluster_name), found in (await self.find_orphans() if orphans is None else orphans).items():
            ids = [job.id for job in found]
            about = {"user": user, "cluster": cluster_name, "job": ids[0]}
            metrics.ORPHANS.inc(len(ids))
            self.log.warning("Jobs %s of %s belong to no cluster: cancelled", ", ".join(ids), user, extra=about)
            problem = None
            try:
                answer = await self.do_as_user(user, "cancel", cluster=cluster_name, jobs=ids)
                if answer["failed"]:
                    problem = "; ".join(f"{job}: {said}" for job, said in answer["failed"].items())
            except LauncherError as exc:
                problem = str(exc)
            if problem:
                self.log.error("Jobs %s of %s can't be cancelled: %s", ", ".join(ids), user, problem, extra=about)
            done.append({"user": user, "cluster": cluster_name, "jobs": ids, "cancelled": not problem, "said": problem})
        return done

    async def find_vanished(self):
        """Active clusters whose scheduler's job SLURM knows as over, or does not know; the loop above sees to them."""
        known = await self.slurm.jobs()
        found = []
        for cluster in list(self.db.active_clusters()):
            job_id = cluster.state.get("job_id")
            job = known.get(job_id)
            if job_id and (job is None or job.over):
                found.append(
                    {
                        "cluster": cluster.name,
                        "user": cluster.username,
                        "job": job_id,
                        "slurm": job.state if job else "unknown",
                    }
                )
        return found
