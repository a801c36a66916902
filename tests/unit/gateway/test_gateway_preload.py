"""What runs in the jobs: a worker that does not fit its scheduler ends with a sentence that the gateway knows."""

import json
import shutil
import subprocess
import sys

import pytest

from slurm_gateway import gateway_preload, jobs, messages, slurm


@pytest.fixture
def start_worker(tmp_path):
    """``start_worker(schedulers)``: the job of a worker whose scheduler has told these versions, or none."""
    shutil.copy(gateway_preload.__file__, tmp_path)
    packages = tmp_path / "packages" / "distributed-2026.8.0.dist-info"
    packages.mkdir(parents=True)
    (packages / "METADATA").write_text("Name: distributed\nVersion: 2026.8.0\n")
    (tmp_path / "python").write_text(f'#!/bin/bash\nPYTHONPATH={tmp_path}/packages exec {sys.executable} "$@"\n')
    (tmp_path / "dask").write_text("#!/bin/bash\necho goes on\n")
    for name in ("python", "dask"):
        (tmp_path / name).chmod(0o755)

    def start(schedulers):
        if schedulers:
            python = ".".join(map(str, sys.version_info[:3]))
            versions = {"python": python, "distributed": "2026.8.0"} | schedulers
            (tmp_path / "versions.json").write_text(json.dumps(versions))
        script = jobs.script(
            modules_init="",
            setup=f'PATH="{tmp_path}:$PATH"',
            environment={},
            gateway_environment={},
            command=["dask", "worker"],
            check=str(tmp_path / "gateway_preload.py"),
        )
        return subprocess.run(["bash"], input=script, capture_output=True, text=True, check=False)

    return start


@pytest.mark.parametrize("schedulers", [{}, {"distributed": "2026.8.0"}, {"distributed": "2026.8.1"}], ids=str)
def test_a_worker_that_fits_or_cannot_know_goes_on(start_worker, schedulers):
    assert start_worker(schedulers).stdout == "goes on\n"


@pytest.mark.parametrize(
    ("schedulers", "said"),
    [
        ({"distributed": "2026.3.0"}, "distributed 2026.8.0 here and 2026.3.0 there"),
        ({"python": "3.8.1"}, "here and 3.8.1 there"),
    ],
    ids=str,
)
def test_a_worker_that_does_not_fit_ends_and_the_user_reads_why(start_worker, schedulers, said):
    done = start_worker(schedulers)
    assert (done.returncode, done.stdout) == (1, "")
    job = slurm.Job("7", "FAILED", exit_code="1:0")
    sentence = messages.ended("A worker", job, "~/log", done.stderr.splitlines(), "support")
    assert f"too far from its scheduler's ({said}" in sentence.replace(f"python {sys.version.split()[0]} ", "")
    assert "make a new cluster" in sentence


def test_the_mark_is_the_same_on_both_sides():
    assert gateway_preload.MISFIT == messages.MISFIT
