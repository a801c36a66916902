"""`gateway-admin health-metrics`: what `gateway-admin health --json` found, as a file of metrics for Prometheus.

It is the format of node_exporter's textfile collector, and is served by the front end as it is.
"""

import json
import os
import sys
import time
from pathlib import Path

from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.exposition import generate_latest

from .health import CRITICAL


def add_commands(commands):
    """Add the command to those of a parser."""
    command = commands.add_parser(
        "health-metrics",
        help="write what `health --json` prints, read from standard input, as metrics",
        description="Write what `gateway-admin health --json` prints, read from standard input, as a file of metrics. "
        "What can't be read counts as critical.",
    )
    command.add_argument("path", help="the file, such as one of node_exporter's textfile folder")
    command.set_defaults(run=_run)


def _run(options):
    write(Path(options.path), text(sys.stdin.read(), time.time()))
    return 0


def text(answer, now):
    """The metrics of an answer of `health --json`."""
    registry = CollectorRegistry()
    code = Gauge(
        "dask_gateway_health",
        "What gateway-admin health ended with: 0 well, 1 warnings, 2 critical.",
        registry=registry,
    )
    parts = Gauge(
        "dask_gateway_health_part",
        "What it found about each part, and about each hop of the canary: 0 well, 1 a warning, 2 critical.",
        ["part"],
        registry=registry,
    )
    seconds = Gauge("dask_gateway_health_part_seconds", "How long it took to find out.", ["part"], registry=registry)
    when = Gauge("dask_gateway_health_timestamp_seconds", "When that was.", registry=registry)
    when.set(now)
    try:
        found = json.loads(answer)
        for finding in found["findings"]:
            parts.labels(finding["part"]).set(finding["code"])
            seconds.labels(finding["part"]).set(finding["seconds"])
        code.set(found["code"])
    except (ValueError, KeyError, TypeError):
        # Without an answer, or with an error in its place
        parts.clear()
        seconds.clear()
        code.set(CRITICAL)
    return generate_latest(registry)


def write(path, content):
    """Put the file in place at once, for it may be read at any time; everybody may read it."""
    new = path.with_name(f".{path.name}.{os.getpid()}")
    new.write_bytes(content)
    new.chmod(0o644)
    new.replace(path)
