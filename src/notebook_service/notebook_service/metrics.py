"""What a monitoring system reads at the Hub, beside JupyterHub's own metrics."""

from contextlib import suppress
from functools import cache
from pathlib import Path

from prometheus_client import REGISTRY
from prometheus_client.core import GaugeMetricFamily


class DatabaseSize:
    """The size of the Hub's database, looked up when the metrics are read."""

    def __init__(self, path):
        self.path = Path(path)

    def collect(self):
        size = GaugeMetricFamily("jupyterhub_database_bytes", "The size of the Hub's database.")
        with suppress(OSError):  # it is gone, which is another alert's to tell
            size.add_metric([], self.path.stat().st_size)
        return [size]


@cache  # the configuration may be read more than once
def serve_database_size(path, registry=REGISTRY):
    """Have the size of this file among the metrics."""
    registry.register(DatabaseSize(path))
