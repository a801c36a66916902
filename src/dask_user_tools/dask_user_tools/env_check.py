"""dask-env-check: does this environment fit the gateway, and a live cluster?"""

import argparse
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from dask_user_tools import environment, versions


def all_packages() -> list[str]:
    """Names of everything that is installed here."""
    return sorted({name for d in metadata.distributions() if (name := d.metadata["Name"])}, key=str.lower)


# What all_packages answers, for another Python: as text, for a function of ours could not be read by it
ALL_PACKAGES = "sorted({d.name for d in __import__('importlib.metadata').metadata.distributions() if d.name})"


def of_cluster(name: str, gateway) -> list[versions.Difference]:
    """Compare this environment with those of a cluster's scheduler and workers.

    What is not installed here counts if the cluster's own jobs differ in it, or if distributed itself needs it.
    """
    from distributed.versions import get_versions

    mine = {normal(package): package for package in all_packages()}
    with gateway.connect(name, shutdown_on_close=False) as cluster, cluster.get_client() as client:
        theirs = {normal(package): package for package in client.run_on_scheduler(eval, ALL_PACKAGES)}
        # As a message of distributed, for the same reason
        answer = client.get_versions(packages=list((theirs | mine).values()))
    workers = {address: one["packages"] for address, one in answer["workers"].items() if isinstance(one, dict)}
    found = versions.differences(answer["client"]["packages"], answer["scheduler"]["packages"], workers)
    needed = get_versions()["packages"]
    return [one for one in found if one.client or one.package in needed or one.mixed]


def normal(package: str) -> str:
    """The one spelling of a package's name, which releases of it write in several ways."""
    return re.sub(r"[-_.]+", "-", package).lower()


def table(found: list[versions.Difference]) -> str:
    """The differences for people."""
    rows = [("package", "here", "scheduler", "workers"), *(difference.shown() for difference in found)]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join(
        "  ".join([*(text.ljust(width) for text, width in zip(row, widths, strict=False)), row[3]]).rstrip()
        for row in rows
    )


def check_clusters(names: list[str], gateway) -> int:
    """Tell what differs in each cluster."""
    result = 0
    for name in names:
        found = of_cluster(name, gateway)
        if not found:
            print(f"Cluster {name} has the same versions as this environment.")
            continue
        result = 1
        print(f"Cluster {name} has other versions than this environment:\n{table(found)}\n{versions.mend(found)}")
    return result


def parser() -> argparse.ArgumentParser:
    """Return the command's options."""
    this = argparse.ArgumentParser(
        prog="dask-env-check",
        description="Check that an environment can be used with the Dask Gateway service, and name every package whose "
        "version differs between it and your running clusters. Exit code 1 when something is to be mended.",
    )
    this.add_argument("cluster", nargs="*", help="names of clusters; all of yours when none is given")
    this.add_argument("--no-cluster", action="store_true", help="look at the environment only")
    this.add_argument("--python", help="the Python of another environment to look at, without a cluster")
    return this


def main(arguments: list[str] | None = None) -> int:
    """Run the command."""
    options = parser().parse_args(arguments)
    if options.python:
        return subprocess.run([options.python, Path(environment.__file__)]).returncode
    result = environment.main()
    if result or options.no_cluster:
        return result
    import dask_gateway

    try:
        with dask_gateway.Gateway() as gateway:
            running = [report.name for report in gateway.list_clusters()]
            unknown = set(options.cluster) - set(running)
            if unknown:
                print(f"You have no cluster {', '.join(sorted(unknown))}; yours are {', '.join(running) or 'none'}.")
                return 1
            if not running:
                print("You have no running cluster to compare with.")
            return check_clusters(options.cluster or running, gateway)
    except Exception as error:  # of aiohttp, distributed, dask_gateway: their texts are for users
        print(f"The gateway or a cluster can't be asked: {type(error).__name__}: {error}")
        return 1


if __name__ == "__main__":
    sys.exit(main())
