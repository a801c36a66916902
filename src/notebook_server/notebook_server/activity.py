"""A kernel that computes is activity, for a time, also when it prints nothing.

Jupyter Server takes the last message of a kernel for its last activity. A computation of hours that prints nothing
looks idle to it, and to the service of JupyterHub that stops idle servers.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from tornado.ioloop import PeriodicCallback
from traitlets import Integer
from traitlets.config import LoggingConfigurable

# Jupyter Server counts every setting whose name ends so
SETTING = "busy_kernels_last_activity"


class BusyKernels(LoggingConfigurable):
    """Looks for kernels that compute, and tells the server."""

    busy_timeout = Integer(
        0,
        help="Seconds for which a kernel that computes, and says nothing, is activity.",
    ).tag(config=True)

    interval = Integer(
        30,
        help="Seconds between two looks.",
    ).tag(config=True)

    def follow(self, kernel_manager: Any, settings: dict[str, Any]) -> None:
        """Look from now on."""

        def look() -> None:
            kernels = [kernel_manager.get_kernel(name) for name in kernel_manager.list_kernel_ids()]
            now = datetime.now(UTC)
            if any_busy(kernels, now - timedelta(seconds=self.busy_timeout)):
                settings[SETTING] = now

        if self.busy_timeout > 0:
            PeriodicCallback(look, self.interval * 1000).start()


def any_busy(kernels: Iterable[Any], since: datetime) -> bool:
    """Tell whether one computes whose last message is not older than a time: the one that it has begun."""
    return any(
        getattr(kernel, "execution_state", None) == "busy" and kernel.last_activity >= since for kernel in kernels
    )
