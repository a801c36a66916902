"""Runs in a cluster's scheduler, after dask_gateway.scheduler_preload: what each has to say reaches the other soon.

It is copied into the cluster's folder and imported by the user's Python, so it uses nothing but what a scheduler
of the gateway has anyway. Whatever goes wrong here must not keep the scheduler from working.
"""

import logging

logger = logging.getLogger("distributed.scheduler")


def dask_setup(scheduler):
    """Add what upstream's part of the scheduler lacks."""
    _let_the_gateway_speak(scheduler)
    _tell_the_gateway_of_workers(scheduler)


def _tell_the_gateway_of_workers(scheduler):
    """Let a worker that joined be in a heartbeat within 3 s; the next one by itself may be 15 s away."""
    try:
        from distributed.diagnostics.plugin import SchedulerPlugin

        class SoonKnown(SchedulerPlugin):
            def add_worker(self, scheduler, worker):
                scheduler.services["gateway"].waiter.interrupt_soon()

        scheduler.add_plugin(SoonKnown(), name="dask-gateway-soon-known")
    except Exception:
        logger.exception("The gateway will hear of workers with the usual heartbeats only")


def _let_the_gateway_speak(scheduler):
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
