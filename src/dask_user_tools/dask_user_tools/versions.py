"""What differs between the environments of a client, a scheduler and workers, worst first, and how it is mended.

Only the standard library, because the environments that have the trouble may lack everything else.
"""

import os
import re
import shlex
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

# Functions are sent as the byte code of one Python, and messages as one distributed writes them.
BREAKING = ("python", "distributed", "dask")
# What messages and results are packed with; in one environment and not in the other, nothing gets through.
PACKING = ("cloudpickle", "msgpack", "lz4", "toolz", "tornado")
# What tasks mostly send to each other
DATA = ("numpy", "pandas", "xarray", "pyarrow")

RELEASE = re.compile(r"/(jaspy[0-9.]+-v[0-9]{8})(-[0-9a-f]{12})?(/|$)")


@dataclass(frozen=True)
class Difference:
    """One package that is not the same everywhere; versions are None where it is missing."""

    package: str
    client: str | None
    scheduler: str | None
    workers: tuple[tuple[str | None, int], ...] = ()

    @property
    def rank(self) -> int:
        """How bad it is: 0 does not work, 1 is likely to fail, 2 may give other results, 3 the rest."""
        if self.package in BREAKING:
            # Of these, the patch releases work together
            alike = len({release(version) for version in self.versions()}) == 1
            return 1 if alike else 0
        return 1 if self.package in PACKING else 2 if self.package in DATA else 3

    @property
    def mixed(self) -> bool:
        """Whether the cluster's own jobs differ from each other."""
        return len({self.scheduler, *dict(self.workers)}) > 1

    def versions(self) -> list[str | None]:
        """All versions there are."""
        return [self.client, self.scheduler, *(version for version, _ in self.workers)]

    def shown(self) -> tuple[str, str, str, str]:
        """The row of a table."""
        workers = ", ".join(
            (version or "missing") + (f" ({count} workers)" if len(self.workers) > 1 else "")
            for version, count in self.workers
        )
        return self.package, self.client or "missing", self.scheduler or "missing", workers or "-"


def plain(package: str, version: str | None) -> str | None:
    """The version as people write it; distributed tells Python's with its release level."""
    return ".".join(version.split(".")[:3]) if package == "python" and version else version


def release(version: str | None) -> tuple[str, ...]:
    """The first two numbers: what has to be the same of Python, dask and distributed."""
    return tuple(re.findall(r"\d+", version or "")[:2])


def differences(client: dict, scheduler: dict, workers: dict[str, dict] | None = None) -> list[Difference]:
    """Compare versions by package, worst first. A package that only one kind was asked for does not count."""
    found = []
    for package in sorted(set(client) & set(scheduler)):
        counted = Counter(plain(package, packages.get(package)) for packages in (workers or {}).values())
        one = Difference(
            package,
            plain(package, client[package]),
            plain(package, scheduler[package]),
            tuple(sorted(counted.items(), key=lambda item: (-item[1], str(item[0])))),
        )
        if len(set(one.versions())) > 1:
            found.append(one)
    return sorted(found, key=lambda difference: (difference.rank, order(difference.package), difference.package))


def order(package: str) -> int:
    """The place of a package among those that matter most."""
    known = BREAKING + PACKING + DATA
    return known.index(package) if package in known else len(known)


def this_release() -> str | None:
    """The name of the jaspy release that this Python is of, if it is of one."""
    match = RELEASE.search(f"{Path(sys.prefix).resolve()}/") or RELEASE.search(f"{sys.prefix}/")
    return match[1] if match else None


def mend(found: list[Difference]) -> str:
    """What to do: a command for a shell or a notebook."""
    # What is missing here as well can't be mended here
    if any(difference.mixed and (difference.rank < 2 or not difference.client) for difference in found):
        return (
            "The cluster's own jobs differ from each other: its environment was changed while it ran, or worker_setup "
            "does not do the same on every node. Make a new one: cluster.shutdown(); cluster = gateway.new_cluster(…)"
        )
    name = this_release()
    if name:
        return f'Make a cluster with the release of this Python: gateway.new_cluster(jaspy="{name}")'
    python = next((difference for difference in found if difference.package == "python"), None)
    if python and python.rank == 0:
        return (
            f"Make this environment anew with Python {python.scheduler}, or let the cluster's jobs run in it: "
            f'gateway.new_cluster(worker_setup="source {shlex.quote(sys.prefix)}/bin/activate")'
        )
    wanted = [f"{d.package}=={d.scheduler}" for d in found if d.scheduler and d.package != "python"]
    return f"{shlex.quote(sys.executable)} -m pip install {' '.join(shlex.quote(w) for w in wanted)}"


def in_a_job() -> bool:
    """Whether this process belongs to a cluster's job."""
    return "DASK_GATEWAY_CLUSTER_NAME" in os.environ
