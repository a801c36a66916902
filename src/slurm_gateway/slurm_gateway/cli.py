"""`gateway-admin`: what operators ask and do on the gateway's host."""

import argparse
import sys
import traceback
from importlib.metadata import PackageNotFoundError, version

from . import accounts_cli, admin_cli, health_metrics


def _release():
    try:
        return version("slurm-gateway")
    except PackageNotFoundError:  # run from a source tree
        return "(not installed)"


def main(arguments=None):
    """Run the command line. Exit code 2 is for everything of which neither yes nor no is known, mistakes of use too."""
    parser = argparse.ArgumentParser(prog="gateway-admin", description=__doc__)
    parser.add_argument("--version", action="version", version=f"%(prog)s {_release()}")
    commands = parser.add_subparsers(required=True, metavar="command")
    admin_cli.add_commands(commands)
    accounts_cli.add_commands(commands)
    health_metrics.add_commands(commands)
    options = parser.parse_args(arguments)
    try:
        code = options.run(options)
    except KeyboardInterrupt:
        code = 2
    except Exception:
        traceback.print_exc()
        code = 2  # Python's own 1 is a no
    sys.exit(code)


if __name__ == "__main__":
    main()
