"""What the notebook service adds to each user's Jupyter server, as a Jupyter server extension."""

from __future__ import annotations


def _jupyter_server_extension_points():
    return [{"module": "notebook_server"}]


def _load_jupyter_server_extension(app):
    """Offer the examples, lead Dask's panel to the gateway's dashboards, see what kernels do, and who signs out."""
    from . import activity, examples, panel, sign_out

    settings = examples.Examples(parent=app)
    examples.offer(settings, app.root_dir, app.log)
    panel.load(app)
    activity.BusyKernels(parent=app).follow(app.kernel_manager, app.web_app.settings)
    sign_out.OpenWebsockets(parent=app).follow(app.identity_provider)
