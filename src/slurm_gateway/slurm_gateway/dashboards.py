"""What the pages for browsers ask the gateway, each time with the token of the user who is there."""

import hashlib
import hmac

from aiohttp import web
from dask_gateway_server.backends.db_base import JobStatus
from dask_gateway_server.routes import api_handler

KEY_FILE = "dask.dashboard"  # in a cluster's folder

routes = web.RouteTableDef()


def key_of(cluster):
    """The key without which a cluster's scheduler and workers show nothing.

    It is made from the cluster's token, so there is nothing more to keep, and tells nothing about it.
    """
    return hmac.new(cluster.token.encode(), b"dashboard", hashlib.sha256).hexdigest()


def summary(cluster):
    """A cluster as its owner's list shows it."""
    workers = list(cluster.active_workers())
    running = [w for w in workers if w.status == JobStatus.RUNNING]
    return {
        "name": cluster.name,
        "status": cluster.model_status.name,
        "dashboard": bool(cluster.status == JobStatus.RUNNING and cluster.dashboard_address),
        "started": cluster.start_time,
        "workers": len(running),
        "workers_waiting": len(workers) - len(running),
        "cores": len(running) * int(cluster.config.get("worker_cores", 1)),
        "memory": len(running) * int(cluster.config.get("worker_memory", 0)),
    }


@routes.get("/api/v1/summaries")
@api_handler(user_authenticated=True)
async def list_summaries(request):
    """The user's clusters that have not ended, the newest first."""
    mine = request.app["backend"].db.list_clusters(username=request["user"].name)
    return web.json_response([summary(c) for c in sorted(mine, key=lambda c: c.start_time, reverse=True)])


@routes.get("/api/v1/dashboards/{cluster_name}")
@api_handler(user_authenticated=True)
async def get_dashboard(request):
    """The key of a dashboard, for the owner alone."""
    name = request.match_info["cluster_name"]
    cluster = request.app["backend"].db.get_cluster(name)
    if cluster is None:
        raise web.HTTPNotFound(reason="There is no such cluster.")
    if cluster.username != request["user"].name:
        raise web.HTTPForbidden(reason="This cluster belongs to somebody else.")
    if cluster.status > JobStatus.RUNNING or not cluster.is_active():
        raise web.HTTPGone(reason="This cluster has ended.")
    if not summary(cluster)["dashboard"]:
        raise web.HTTPConflict(reason="This cluster has no dashboard yet.")
    return web.json_response({"key": key_of(cluster)})
