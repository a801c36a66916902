"""What a monitoring system reads, on a port of the loopback."""

import time
from pathlib import Path

from prometheus_client import REGISTRY, Counter, Histogram, disable_created_metrics, start_http_server
from prometheus_client.core import GaugeMetricFamily

from .failures import REASONS

disable_created_metrics()  # a second series for each, which nobody reads
DECISIONS = Counter(
    "accounts_check_decisions",
    "Decisions of the access check, by outcome and where they came from.",
    ["outcome", "source"],
)
DECISION_SECONDS = Histogram(
    "accounts_check_seconds",
    "How long decisions of the access check took, by where they came from.",
    ["source"],
    buckets=(0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15),
)
PORTAL_ERRORS = Counter(
    "accounts_portal_errors", "Requests to the accounts portal without an answer that could be used, by kind.", ["kind"]
)
for _kind in ("connection", "name", "rubbish", "status_500", "status_502", "status_503", "timeout"):
    PORTAL_ERRORS.labels(_kind)  # a counter that is there from the start shows its first rise
PORTAL_REQUESTS = Counter(
    "accounts_portal_requests", "Requests to the accounts portal, by what they ask for.", ["what"]
)
REVOCATIONS = Counter("accounts_revocations", "Clusters of users who lost the service, by what was done.", ["done"])

START_BUCKETS = (0.5, 1, 2, 5, 10, 20, 60, 300, 900, 3600, 14400, 86400)
CLUSTER_START_SECONDS = Histogram(
    "dask_gateway_cluster_start_seconds",
    "From the request for a cluster until its scheduler runs, the time in SLURM's queue included.",
    buckets=START_BUCKETS,
)
WORKER_START_SECONDS = Histogram(
    "dask_gateway_worker_start_seconds",
    "From the decision to start a worker until it has joined its scheduler, the time in SLURM's queue included.",
    buckets=START_BUCKETS,
)
FAILURES = Counter(
    "dask_gateway_failures",
    "Clusters that failed and submissions of workers that failed, by reason.",
    ["what", "reason"],
)
for _what in ("cluster", "worker"):
    for _reason in REASONS:
        FAILURES.labels(_what, _reason)
LAUNCHER_SECONDS = Histogram(
    "dask_gateway_launcher_seconds",
    "How long the launcher took, sudo and sbatch or scancel included, by action and outcome.",
    ["action", "outcome"],
    buckets=(0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 180),
)
SLURM_SECONDS = Histogram(
    "dask_gateway_slurm_command_seconds",
    "How long SLURM took to answer a question of the gateway's, by command.",
    ["command"],
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
SLURM_ERRORS = Counter(
    "dask_gateway_slurm_command_errors",
    "Questions to SLURM without an answer that could be used, by command.",
    ["command"],
)
for _command in ("squeue", "scontrol", "sacct", "sacctmgr"):
    SLURM_ERRORS.labels(_command)
ORPHANS = Counter("dask_gateway_orphaned_jobs", "Jobs found that belong to no cluster, and were to be cancelled.")


class Population:
    """The clusters and workers that there are, by state, counted when the metrics are read.

    `db` is the gateway's DataManager, which keeps in memory what is in the database. The metrics are read in a thread
    of their own: a list of a dictionary's values is made in one step, so the dictionary may change meanwhile.
    """

    def __init__(self):
        self.db = None

    def collect(self):
        clusters = GaugeMetricFamily("dask_gateway_clusters", "Clusters that have not ended.", labels=["state"])
        workers = GaugeMetricFamily("dask_gateway_workers", "Workers that have not ended.", labels=["state"])
        wait = GaugeMetricFamily(
            "dask_gateway_longest_wait_seconds",
            "How long the cluster or worker that waits longest has been waiting for its start; 0 where none waits.",
            labels=["what"],
        )
        size = GaugeMetricFamily("dask_gateway_database_bytes", "The size of the gateway's database.")
        if self.db is not None:
            known = list(self.db.name_to_cluster.values())
            known_workers = [w for c in known for w in list(c.workers.values())]
            self._count(clusters, known)
            self._count(workers, known_workers)
            wait.add_metric(["cluster"], self._longest_wait(known))
            wait.add_metric(["worker"], self._longest_wait(known_workers))
            bytes_of_files = self._database_bytes()
            if bytes_of_files is not None:
                size.add_metric([], bytes_of_files)
        return [clusters, workers, wait, size]

    @staticmethod
    def _longest_wait(things):
        # dask-gateway counts in milliseconds; the Hub, which has this module for its access check, has no dask-gateway
        return max((time.time() - t.start_time / 1000 for t in things if state_of(t) == "pending"), default=0)

    def _database_bytes(self):
        """With what SQLite has not yet moved into the file; None where it is no file, or is gone."""
        url = self.db.db.url
        if url.get_backend_name() != "sqlite" or not url.database:
            return None
        try:
            log = Path(f"{url.database}-wal")
            return Path(url.database).stat().st_size + (log.stat().st_size if log.exists() else 0)
        except OSError:
            return None

    @staticmethod
    def _count(gauge, things):
        counts = dict.fromkeys(("pending", "running", "stopping"), 0)
        for thing in things:
            state = state_of(thing)
            if state in counts:
                counts[state] += 1
        for state, count in counts.items():
            gauge.add_metric([state], count)


def state_of(thing):
    """pending, running, stopping or ended: the state of a cluster or worker for people who look from outside."""
    if thing.status.name in ("STOPPED", "FAILED"):
        return "ended"
    if thing.target.name != "RUNNING":
        return "stopping"
    return "running" if thing.status.name == "RUNNING" else "pending"


POPULATION = Population()
REGISTRY.register(POPULATION)


def serve(port):
    """Serve them on this port of the loopback; returns what stops that."""
    server, thread = start_http_server(port, addr="127.0.0.1")

    def stop():
        server.shutdown()
        server.server_close()
        thread.join()

    return stop
