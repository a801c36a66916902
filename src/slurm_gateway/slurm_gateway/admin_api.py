"""What operators ask of the running gateway, on a socket that only they can open. No answer holds a secret."""

import os
import pwd
import re
import socket
import struct
from datetime import datetime
from pathlib import Path

from aiohttp import web
from dask_gateway_server.utils import timestamp

from . import health, maintenance
from .messages import one_line
from .metrics import state_of
from .slurm import SlurmError, parse_comment


def asked(sentence, status=400):
    """The answer to a request that can't be carried out: a sentence for the operator."""
    kind = web.HTTPNotFound if status == 404 else web.HTTPServiceUnavailable if status == 503 else web.HTTPBadRequest
    return kind(text=sentence)


class AdminApi:
    """Clusters, their jobs, stopping and comparing them, maintenance, and the health of what they need."""

    def __init__(self, backend, authenticator):
        self.backend = backend
        self.authenticator = authenticator
        self.log = backend.log

    def routes(self):
        return [
            web.get("/clusters", self.clusters),
            web.get("/jobs", self.jobs),
            web.post("/stop", self.stop),
            web.post("/reconcile", self.reconcile),
            web.get("/maintenance", self.maintenance),
            web.post("/maintenance", self.set_maintenance),
            web.get("/health", self.health),
        ]

    # -- what there is ----------------------------------------------------------------------------------------

    async def clusters(self, request):
        user, ended = request.query.get("user"), "ended" in request.query
        try:
            jobs, said = await self.backend.slurm.jobs([user] if user else ()), None
        except SlurmError as exc:
            jobs, said = None, one_line(exc)
        found = [
            self._cluster(cluster, jobs)
            for cluster in self.backend.db.name_to_cluster.values()
            if user in (None, cluster.username) and (ended or state_of(cluster) != "ended")
        ]
        return web.json_response({"clusters": found, "slurm": said})

    def _cluster(self, cluster, jobs):
        ids = self.backend.living_jobs(cluster)
        known = [jobs[job_id] for job_id in ids if job_id in jobs] if jobs is not None else []
        states = [state_of(worker) for worker in cluster.workers.values()]
        state = state_of(cluster)
        waiting = [
            {"job": job.id, "reason": job.reason, "estimated_start": estimate(job)} for job in known if job.pending
        ]
        if state == "pending" and not cluster.state.get("job_id"):
            waiting = [{"job": None, "reason": "not submitted yet", "estimated_start": None}]
        return {
            "cluster": cluster.name,
            "user": cluster.username,
            "state": cluster.status.name.lower() if state == "ended" else state,
            "created": datetime.fromtimestamp(cluster.start_time / 1000).astimezone().isoformat(timespec="seconds"),
            "age": ((cluster.stop_time or timestamp()) - cluster.start_time) // 1000,
            "workers": {name: states.count(name) for name in ("running", "pending")} | {"wanted": cluster.count},
            "jobs": ids if state != "ended" else [],
            "cores": None if jobs is None else sum(job.cpus for job in known if not job.pending and not job.over),
            "waiting": waiting,
            "problem": cluster.state.get("problem") or cluster.state.get("worker_problem"),
        }

    async def jobs(self, request):
        user = request.query.get("user")
        found = []
        for job in (await self._all_jobs()).values():
            mark = parse_comment(job.comment)
            if mark is None or mark[0] != self.backend.instance or job.over or user not in (None, job.user):
                continue
            cluster = self.backend.db.get_cluster(mark[1])
            found.append(
                {
                    "job": job.id,
                    "user": job.user,
                    "cluster": mark[1],
                    "kind": mark[2],
                    "state": job.state,
                    "reason": job.reason if job.pending else "",
                    "estimated_start": estimate(job),
                    "cores": job.cpus,
                    "submitted": job.submitted,
                    "known": cluster is not None and job.id in self.backend.living_jobs(cluster),
                }
            )
        return web.json_response({"jobs": found})

    async def _all_jobs(self):
        try:
            return await self.backend.slurm.jobs()
        except SlurmError as exc:
            raise asked(f"SLURM gives no answer about jobs: {one_line(exc)}", 503) from None

    # -- what is to be done -----------------------------------------------------------------------------------

    async def stop(self, request):
        data = await request.json()
        found = self._chosen(data.get("cluster"), data.get("user"))
        why = one_line(data.get("reason") or "", 300)
        sentence = "This cluster was stopped by the operators of this service" + (f": {why}" if why else ".")
        by = caller(request, data.get("by"))
        for cluster in found:
            self.log.warning("Cluster %s of %s is stopped by %s", cluster.name, cluster.username, by, extra={"by": by})
            await self.backend.tell(cluster, sentence)
            self.backend.db.update_cluster(cluster, state={**cluster.state, "problem": sentence})
            await self.backend.stop_cluster(cluster.name)
        return web.json_response({"stopped": [{"cluster": c.name, "user": c.username} for c in found]})

    def _chosen(self, name, user):
        active = list(self.backend.db.active_clusters())
        if user is not None:
            found = [c for c in active if c.username == user]
            if not found:
                raise asked(f"{one_line(user, 80)} has no cluster that could be stopped.", 404)
            return found
        if not isinstance(name, str) or not re.fullmatch("[0-9a-f]{4,32}", name):
            raise asked("A cluster is named by its name, or by the first 4 or more characters of it.")
        found = [c for c in active if c.name.startswith(name)]
        if not found:
            raise asked(f"There is no active cluster {name}. `gateway-admin clusters` lists them.", 404)
        if len(found) > 1:
            raise asked(f"{len(found)} clusters begin with {name}: give more of the name.")
        return found

    async def reconcile(self, request):
        data = await request.json()
        try:
            vanished = await self.backend.find_vanished()
            orphans = await self.backend.find_orphans(all_of_them=True)
            if data.get("dry_run"):
                found = [
                    {
                        "user": user,
                        "cluster": cluster,
                        "jobs": [job.id for job in jobs],
                        "cancelled": False,
                        "said": None,
                    }
                    for (user, cluster), jobs in orphans.items()
                ]
            else:
                by = caller(request, data.get("by"))
                self.log.info("Jobs and clusters are compared for %s", by, extra={"by": by})
                found = await self.backend.cancel_orphans(orphans)
                await self.backend.check_jobs_once()
        except SlurmError as exc:
            raise asked(f"SLURM gives no answer, so nothing was compared: {one_line(exc)}", 503) from None
        return web.json_response({"dry_run": bool(data.get("dry_run")), "orphans": found, "vanished": vanished})

    # -- maintenance ------------------------------------------------------------------------------------------

    async def maintenance(self, request):
        ongoing = maintenance.current(self.backend.maintenance_file)
        return web.json_response(ongoing.to_dict() if ongoing else {"on": False})

    async def set_maintenance(self, request):
        data, path = await request.json(), self.backend.maintenance_file
        if not path:
            raise asked(
                "This gateway has no place to keep a maintenance: SlurmGatewayBackend.maintenance_file is empty."
            )
        by = caller(request, data.get("by"))
        try:
            if data["on"]:
                ongoing = maintenance.announced(data.get("message"), data.get("until"), by, data.get("excepted") or ())
                maintenance.begin(path, ongoing)
                self.log.warning("Maintenance, by %s: %s", by, ongoing.sentence, extra={"by": by})
            elif maintenance.end(path):
                self.log.warning("The maintenance is over, says %s", by, extra={"by": by})
        except maintenance.MaintenanceError as exc:
            raise asked(str(exc)) from None
        except OSError as exc:
            raise asked(f"{path} can't be written: {exc.strerror}") from None
        return await self.maintenance(request)

    # -- whether all is well ----------------------------------------------------------------------------------

    async def health(self, request):
        backend = self.backend
        me = pwd.getpwuid(os.getuid()).pw_name
        usernames = sorted({c.username for c in backend.db.active_clusters()})
        findings = await health.examine(
            {
                "database": lambda: health.database(backend.db),
                "slurmctld": lambda: health.slurmctld(backend.slurm),
                "slurmdbd": lambda: health.slurmdbd(backend.slurm, me),
                "hub": lambda: health.hub(self.authenticator),
                "accounts": lambda: health.accounts(backend.accounts),
                "maintenance": lambda: health.maintenance(backend.maintenance_file),
                "launcher": lambda: health.launcher(backend.do_as_user, usernames, backend.users_group),
            }
        )
        return web.json_response({"findings": [finding.to_dict() for finding in findings]})


def estimate(job):
    """SLURM's estimate of the start of a waiting job, or None where it has none."""
    return job.start if job.pending and re.fullmatch(r"[0-9-]+T[0-9:]+", job.start) else None


def caller(request, said):
    """Who asks, for the log: the user whose process it is, and whom that one says to act for."""
    connection = request.transport.get_extra_info("socket")
    _, uid, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = f"uid {uid}"
    said = said if isinstance(said, str) and re.fullmatch(r"[A-Za-z0-9_.@-]{1,64}", said) else None
    return f"{said} as {name}" if said and said != name else name


@web.middleware
async def sentences(request, handler):
    """An error as JSON with a sentence."""
    try:
        return await handler(request)
    except web.HTTPException as exc:
        return web.json_response({"error": exc.text}, status=exc.status)
    except (ValueError, AttributeError, TypeError):
        return web.json_response({"error": "The request is not one that this gateway knows."}, status=400)


async def serve(path, backend, authenticator):
    """Serve it at this path; returns what ends that."""
    app = web.Application(middlewares=[sentences])
    app.add_routes(AdminApi(backend, authenticator).routes())
    runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=5)
    await runner.setup()
    try:
        await web.UnixSite(runner, path).start()
        # The folder says who may come near it: root, and the operators' group where there is one.
        Path(path).chmod(0o660)
    except OSError:
        await runner.cleanup()
        raise
    return runner.cleanup
