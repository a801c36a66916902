"""Runs in a cluster's scheduler and workers: their pages, for requests that come through the gateway and for no others.

The web servers of scheduler and workers listen on the compute node, where everybody on the network can reach them, and
they know no sign-in. So every request must carry the cluster's dashboard key, which the gateway's front end adds once
it knows that the cluster's owner asks. Until the guard stands, nothing but Dask's /health is served (the configuration
of the job says so), and if it can't be put up it stays that way.

A page that is open keeps its websocket for hours. With it comes a ticket, by which the guard asks the gateway's front
end every few seconds whether the person who watches is still signed in, and ends the websocket when not.

The pages are loaded when somebody opens the first one: bokeh takes a second or two to import, which clusters that
nobody looks at never pay.

It is copied into the cluster's folder and imported by the user's Python, so it uses nothing but what a scheduler of the
gateway has anyway. Whatever goes wrong here must not keep the cluster from working.
"""

import asyncio
import hmac
import json
import logging
import os
from pathlib import Path

from tornado import httputil
from tornado.httpclient import AsyncHTTPClient, HTTPClientError
from tornado.routing import PathMatches, RuleRouter

HEADER = "X-Dask-Dashboard-Key"
SESSION_HEADER = "X-Dask-Dashboard-Session"
SESSION_INTERVAL = 10  # seconds between two questions whether somebody is still signed in
GONE = 410

logger = logging.getLogger("distributed.gateway_dashboard")


def dask_setup(server):
    """Put the guard in front of the web server of a scheduler or worker."""
    try:
        key = Path(os.environ["DASK_GATEWAY_DASHBOARD_KEY"]).read_text().strip()
        if not key:
            raise ValueError("the dashboard key is empty")
        load = _load_scheduler if type(server).__name__ == "Scheduler" else _load_worker
        server.http_server.request_callback = Guard(server.http_application, key, lambda: load(server, key))
    except Exception:
        logger.exception("The dashboard of this cluster is not served")


class Guard(httputil.HTTPServerConnectionDelegate):
    """A web server's application behind the question for the key."""

    def __init__(self, application, key, load):
        self.application = application
        self._key = key.encode()
        self._load = load
        self._loading = None
        self._watching = set()

    def start_request(self, server_conn, request_conn):
        """Begin one request; tornado calls it for each, on connections old and new."""
        return GuardedRequest(self, server_conn, request_conn)

    def on_close(self, server_conn):
        """Pass on that a connection has ended."""
        self.application.on_close(server_conn)

    def knows(self, key):
        """Whether this is the cluster's key."""
        return hmac.compare_digest(key.encode("utf8", "replace"), self._key)

    def end_with(self, session, stream):
        """Close a websocket's connection when its session has ended."""
        task = asyncio.ensure_future(_close_after(session, stream))
        self._watching.add(task)
        task.add_done_callback(self._watching.discard)

    async def loaded(self):
        """Load the pages, once; a sentence if that is impossible."""
        if self._loading is None:
            self._loading = asyncio.ensure_future(self._load())
        try:
            await asyncio.shield(self._loading)
        except ImportError as exc:
            return (
                f"This cluster has no dashboard, for its Python environment lacks something: {exc}. "
                "Install bokeh into it and start a new cluster."
            )
        except Exception as exc:
            logger.exception("The pages of the dashboard can't be loaded")
            return f"The dashboard of this cluster can't be loaded: {exc}"
        return ""


class GuardedRequest(httputil.HTTPMessageDelegate):
    """One request: refused without the key, the application's with it."""

    def __init__(self, guard, server_conn, request_conn):
        self._guard = guard
        self._connections = server_conn, request_conn
        self._delegate = None

    async def headers_received(self, start_line, headers):
        """Decide what becomes of the request."""
        keys = headers.get_list(HEADER)
        session = headers.get(SESSION_HEADER, "")
        # Bokeh puts the headers of a request into the page
        headers.pop(HEADER, None)
        headers.pop(SESSION_HEADER, None)
        if len(keys) != 1 or not self._guard.knows(keys[0]):
            self._answer(403, "Forbidden", "")
            return
        problem = await self._guard.loaded()
        if problem:
            self._answer(503, "Service Unavailable", problem)
            return
        if session and "Upgrade" in headers:
            self._guard.end_with(session, self._connections[1].stream)
        self._delegate = self._guard.application.start_request(*self._connections)
        received = self._delegate.headers_received(start_line, headers)
        if received is not None:
            await received

    def _answer(self, status, reason, text):
        _, connection = self._connections
        body = text.encode()
        headers = httputil.HTTPHeaders(
            {"Content-Type": "text/plain; charset=utf-8", "Content-Length": str(len(body)), "Connection": "close"}
        )
        connection.write_headers(httputil.ResponseStartLine("HTTP/1.1", status, reason), headers, body)
        connection.finish()

    def data_received(self, chunk):
        """Pass on a part of the body."""
        return self._delegate.data_received(chunk) if self._delegate else None

    def finish(self):
        """Pass on the end of the request."""
        if self._delegate:
            self._delegate.finish()

    def on_connection_close(self):
        """Pass on that the client is gone."""
        if self._delegate:
            self._delegate.on_connection_close()


async def _close_after(session, stream):
    while not stream.closed():
        await asyncio.sleep(SESSION_INTERVAL)
        if not stream.closed() and await _has_ended(session):
            stream.close()


async def _has_ended(session):
    """Only a clear answer counts: while the front end is away, who was let in stays in."""
    url = os.environ["DASK_GATEWAY_API_URL"].removesuffix("/api") + "/session"
    try:
        answer = await AsyncHTTPClient().fetch(
            url, headers={SESSION_HEADER: session}, connect_timeout=10, request_timeout=20, raise_error=False
        )
    except (OSError, HTTPClientError):
        return False
    return answer.code == GONE


async def _load_scheduler(scheduler, key):
    # The imports in a thread: the scheduler goes on meanwhile
    handlers = await asyncio.to_thread(_scheduler_handlers, scheduler, key)
    import distributed.dashboard.scheduler

    scheduler.http_application.add_handlers(".*$", handlers)
    _mend_sitemap(scheduler.http_application)
    distributed.dashboard.scheduler.connect(scheduler.http_application, scheduler.http_server, scheduler)
    logger.info("The dashboard is loaded")


def _scheduler_handlers(scheduler, key):
    import distributed.dashboard.scheduler  # noqa: F401
    from distributed.http import proxy
    from distributed.http.scheduler import info
    from distributed.http.utils import get_handlers, redirect

    # Dask's own leads one folder too high, which is right only where the dashboard is the whole site
    info.rel_path_statics["rel_path_statics"] = "../.."
    modules = ["distributed.http.scheduler.info", "distributed.http.scheduler.json", "distributed.http.statics"]
    handlers = [_mended(*route) for route in get_handlers(server=scheduler, modules=modules)]
    # Dask's own leads to /status of the whole site
    handlers.append((r"/", redirect("status"), {}))
    # Workers' pages are reached through the scheduler's, by Dask's own proxy, which shows the workers the key
    for path, handler, arguments in proxy.routes:

        class WithKey(handler):
            def proxy_request_headers(self):
                return {**super().proxy_request_headers(), HEADER: key}

            def check_origin(self, origin=None):
                return True  # the front end has looked at it, and knows the name that browsers use

        handlers.append((f"/{path}", WithKey, {**arguments, "dask_server": scheduler}))
    return handlers


def _mended(path, handler, arguments):
    """Dask's own page of JSON fails, for workers' metrics have keys that are no text."""
    if handler.__name__ != "IdentityJSON":
        return path, handler, arguments

    class Identity(handler):
        def get(self):
            self.set_header("Content-Type", "application/json")
            self.write(json.dumps(_with_text_keys(self.server.identity()), default=str))

    return path, Identity, arguments


def _mend_sitemap(application):
    """Dask's list of pages fails at bokeh's handler of static files, which has no folder of its own."""
    from distributed.http.routing import DirectoryHandler

    class Sitemap(DirectoryHandler):
        def get(self):
            found = set(_paths(self.application.default_router, set()))
            for one in self.application.applications:
                found.update(getattr(one, "app_paths", ()))
            self.write({"paths": sorted(found)})

    for rule in _rules(application.default_router, set()):
        if rule.target is DirectoryHandler:
            rule.target = Sitemap


def _rules(router, seen):
    seen.add(router)
    for rule in router.rules:
        if isinstance(rule.target, RuleRouter):
            if rule.target not in seen:
                yield from _rules(rule.target, seen)
        else:
            yield rule


def _paths(router, seen):
    for rule in _rules(router, seen):
        if isinstance(rule.matcher, PathMatches):
            yield rule.matcher.regex.pattern.rstrip("$")


def _with_text_keys(value):
    if isinstance(value, dict):
        return {_as_text(key): _with_text_keys(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_with_text_keys(part) for part in value]
    return value


def _as_text(key):
    return ",".join(map(str, key)) if isinstance(key, tuple) else str(key)


async def _load_worker(worker, key):
    handlers = await asyncio.to_thread(_worker_handlers, worker)
    import distributed.dashboard.worker

    worker.http_application.add_handlers(".*$", handlers)
    distributed.dashboard.worker.connect(worker.http_application, worker.http_server, worker)


def _worker_handlers(worker):
    import distributed.dashboard.worker  # noqa: F401
    from distributed.http.utils import get_handlers, redirect

    return [*get_handlers(server=worker, modules=["distributed.http.statics"]), (r"/", redirect("status"), {})]
