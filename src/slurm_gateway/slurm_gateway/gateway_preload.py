"""Runs in a cluster's scheduler, after dask_gateway.scheduler_preload: what the gateway says reaches the clients.

It is copied into the cluster's folder and imported by the user's Python, so it uses nothing but what a scheduler
of the gateway has anyway. Whatever goes wrong here must not keep the scheduler from working.
"""

import logging

logger = logging.getLogger("distributed.scheduler")


def dask_setup(scheduler):
    """Add an address to the scheduler's API at which the gateway leaves a text for the user."""
    try:
        from dask_gateway.scheduler_preload import BaseHandler
        from tornado import web

        class TellHandler(BaseHandler):
            @web.authenticated
            async def post(self):
                text = str(self.json_data["text"])
                logger.warning("The gateway says: %s", text)
                scheduler.log_event("warn", text)  # each client shows it as a Python warning

        scheduler.services["gateway"].app.add_handlers(".*$", [("/api/tell", TellHandler)])
    except Exception:
        logger.exception("What the gateway says will not reach the clients")
