"""The access check runs on the Hub's host too, in an environment that has no dask-gateway."""

import subprocess
import sys

PROGRAM = """
import sys
sys.modules["dask_gateway_server"] = None  # importing it fails as if it was not there
import slurm_gateway.cli
"""


def test_its_command_needs_no_dask_gateway():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, env={"PYTHONPATH": ":".join(sys.path)}
    )
    assert done.returncode == 0, done.stderr
