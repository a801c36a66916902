"""Whether an environment can be used with the gateway at all. Runs in any Python 3, also as a file of its own."""

import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

OLDEST_PYTHON = (3, 10)  # dask's own
NEEDED = ("dask", "distributed", "dask-gateway", "lz4")


def version_of(package):
    """Return a package's version, or None."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def problems():
    """Yield what is wrong, worst first, each with what to do."""
    if sys.version_info < OLDEST_PYTHON:
        yield "Python {}.{} is too old for Dask: make an environment with {}.{} or newer.".format(
            *sys.version_info[:2], *OLDEST_PYTHON
        )
    found = {package: version_of(package) for package in NEEDED}
    missing = [package for package, version in found.items() if version is None]
    if missing:
        yield "Missing: {}. {} -m pip install {}".format(", ".join(missing), sys.executable, " ".join(missing))
    if found["dask"] and found["distributed"] and found["dask"] != found["distributed"]:
        yield "dask {dask} and distributed {distributed} do not belong together. {python} -m pip install {what}".format(
            **found, python=sys.executable, what="dask=={dask} distributed=={dask}".format(**found)
        )
    if not missing:
        yield from import_problems()
    yield from tls_problems()


def import_problems():
    """Yield what can't be imported, and what jobs would not find."""
    done = subprocess.run(
        [sys.executable, "-c", "import dask, distributed, dask_gateway, lz4.block"], capture_output=True, text=True
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        yield f"The packages are there and can't be imported: {last}"
    elif shutil.which("dask", path=str(Path(sys.executable).parent)) is None and sys.prefix == sys.base_prefix:
        yield f"There is no command dask beside {sys.executable}, so jobs would not find it: install dask there."


def tls_problems():
    """Yield what is wrong with this Python's TLS."""
    try:
        try:
            from dask_user_tools import tls
        except ImportError:
            import tls  # this file was started by itself, so what lies beside it can be imported
        fault = tls.fault()
        if fault is not None:
            yield tls.sentence(fault)
    except Exception as error:
        yield f"This Python's TLS can't be checked: {error!r}"


def summary():
    """Say in one line what was looked at."""
    packages = ", ".join(f"{package} {version_of(package)}" for package in NEEDED)
    return "{} (Python {}.{}.{}; {})".format(sys.prefix, *sys.version_info[:3], packages)


def main():
    """Print what is wrong, and answer 1 if anything is."""
    found = list(problems())
    for problem in found:
        print(problem)
    if not found:
        print(f"Fit for the gateway: {summary()}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
