"""The service: started by its unit, with a file of settings."""

import asyncio
import logging
import os
import sys
from importlib.resources import files

from jupyterhub.services.auth import HubOAuth
from tornado import web
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets

from . import handlers
from .gateway import Gateway
from .sessions import Sessions
from .settings import Settings

log = logging.getLogger("cluster_pages")


def hub_oauth(site):
    """JupyterHub's sign-in for services, for one that is not behind the Hub's own proxy."""
    return HubOAuth(
        hub_host=site.hub_url,
        hub_prefix="/hub/",
        api_url=f"{site.hub_url}/hub/api",
        api_token=site.api_token,
        base_url="/",
        oauth_client_id=f"service-{site.service_name}",
        oauth_redirect_uri=f"{site.url}/oauth_callback",
        access_scopes={"access:services", f"access:services!service={site.service_name}"},
        # The cookie goes to this host alone and over https alone; a link elsewhere that leads here brings it
        cookie_host_prefix_enabled=True,
        cookie_options={"samesite": "Lax"},
        allow_token_in_url=False,
        # Who has signed out is asked to sign in; for the many requests of a dashboard the gateway is asked instead
        cache_max_age=1,
    )


def application(site):
    """The web application."""
    HubOAuth.clear_instance()
    handlers.Page.hub_auth = hub_oauth(site)
    package = files("cluster_pages")
    return web.Application(
        [
            (r"/", handlers.Clusters),
            (r"/stop", handlers.Stop),
            (r"/oauth_callback", handlers.Callback),
            (r"/clusters/([^/]+)(?:/.*)?", handlers.Dashboard),
            (r"/authorize", handlers.Authorize),
            (r"/session", handlers.Session),
            (r"/health", handlers.Health),
        ],
        default_handler_class=handlers.NotFound,
        site=site,
        gateway=Gateway(site.gateway_api, site.check_interval),
        sessions=Sessions(site.session_key),
        cookie_secret=site.cookie_secret,
        xsrf_cookies=True,
        xsrf_cookie_kwargs={"secure": True, "httponly": True, "samesite": "Lax"},
        template_path=str(package / "templates"),
        static_path=str(package / "static"),
        log_function=log_request,
    )


def log_request(handler):
    """One line a request, without the query: the Hub's codes stand there."""
    request = handler.request
    if handler.get_status() >= 400 and not isinstance(handler, handlers.Authorize):
        log.info("%d %s %s %s", handler.get_status(), request.method, request.path, request.remote_ip)


async def serve(site):
    """Serve until the process is told to end."""
    # The front end, on the same host, says where a request comes from
    server = HTTPServer(application(site), xheaders=True)
    server.add_sockets(bind_sockets(site.port, site.address))
    log.info("Serving %s on %s:%d", site.url, site.address, site.port)
    await asyncio.Event().wait()


def main():
    """Run the service: cluster-pages FILE, with the Hub's token for it in JUPYTERHUB_API_TOKEN."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("tornado.access").setLevel(logging.ERROR)
    # JupyterHub's module tells what it makes cookies of
    logging.getLogger("tornado.application").setLevel(logging.WARNING)
    if len(sys.argv) != 2 or not os.environ.get("JUPYTERHUB_API_TOKEN"):
        sys.exit("usage: JUPYTERHUB_API_TOKEN=… cluster-pages FILE")
    try:
        site = Settings.read(sys.argv[1], os.environ["JUPYTERHUB_API_TOKEN"])
    except (OSError, ValueError, TypeError) as error:
        sys.exit(f"{sys.argv[1]} can't be used: {error}")
    asyncio.run(serve(site))


if __name__ == "__main__":
    main()
