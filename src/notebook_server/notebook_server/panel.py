"""Dask's panel in JupyterLab and the gateway's dashboards.

The panel asks this server whether there is a dashboard at an address, and which plots it has. The gateway tells that
the cluster's owner alone, so this server asks with the token that it has of the Hub. The plots themselves are shown by
the browser, which is signed in to the gateway.
"""

from __future__ import annotations

import json
import os
from urllib.parse import unquote

import dask
import dask_labextension
from dask_labextension.dashboardhandler import DaskDashboardCheckHandler
from jupyter_server.utils import url_path_join
from tornado import web

from notebook_server.dashboards import of_the_gateway, plots_of


class CheckHandler(DaskDashboardCheckHandler):
    """The panel's question, for dashboards of the gateway too."""

    @web.authenticated
    async def get(self, url):
        """Answer as upstream does."""
        dashboard = of_the_gateway(unquote(url), dask.config.get("gateway.address", None) or "")
        if not dashboard:
            await super().get(url)
            return
        plots = await plots_of(dashboard, os.environ.get("JUPYTERHUB_API_TOKEN", ""))
        self.finish(
            json.dumps({"url": dashboard, "isActive": plots is not None, "effectiveUrl": None, "plots": plots or {}})
        )


def load(app):
    """Load Dask's extension after ours: of two handlers of an address the first answers."""
    path = url_path_join(app.web_app.settings["base_url"], "dask/dashboard-check/(?P<url>.+)")
    app.web_app.add_handlers(".*$", [(path, CheckHandler)])
    dask_labextension.load_jupyter_server_extension(app)
