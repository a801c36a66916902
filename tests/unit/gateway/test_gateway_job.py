"""The program of a cluster's jobs, in processes of its own."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from slurm_gateway import gateway_job, gateway_preload

PROGRAM = Path(gateway_job.__file__)
WORKER = ["--no-nanny", "--nthreads", "1", "--no-dashboard", "--dashboard-address", "127.0.0.1:0", "--host",
          "127.0.0.1", "--death-timeout", "30"]  # fmt: skip


@pytest.fixture
def start(tmp_path):
    """`start(kind, …)` runs the program; what it wrote is in `process.log`."""
    started = []

    def run(*arguments):
        log = tmp_path / f"{len(started)}.log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, PROGRAM, *arguments], stdout=file, stderr=file, cwd=tmp_path, env=os.environ.copy()
            )
        process.log = log
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.wait()


def appears(process, text, seconds=30):
    """Wait until it wrote this."""
    end = time.monotonic() + seconds
    while text not in process.log.read_text():
        assert time.monotonic() < end, process.log.read_text()
        assert process.poll() is None, process.log.read_text()
        time.sleep(0.05)


@pytest.fixture
def scheduler_process(start, tmp_path):
    """A scheduler in a process of its own; its address is in `process.address`."""
    own = tmp_path / "own.json"
    process = start("scheduler", "--port", "0", "--host", "127.0.0.1", "--no-dashboard", "--dashboard-address",
                    "127.0.0.1:0", "--scheduler-file", str(own))  # fmt: skip
    appears(process, "Registering Worker plugin")  # it has written the file
    process.address = json.loads(own.read_text())["address"]
    return process


@pytest.fixture
def scheduler(scheduler_process):
    """The address of a scheduler that runs in a process of its own."""
    return scheduler_process.address


def test_a_worker_waits_for_the_address_and_ends_soon_when_told_whatever_it_computes(start, scheduler, tmp_path):
    from distributed import Client

    file = tmp_path / "scheduler.json"
    file.write_text("")
    worker = start("worker", str(file), "60", *WORKER)
    time.sleep(0.5)
    file.write_text('{"addr')  # half written
    time.sleep(0.2)
    file.write_text(json.dumps({"address": scheduler}))
    with Client(scheduler) as client:
        assert client.submit(lambda: 42).result(timeout=30) == 42
        client.submit(time.sleep, 60)
        time.sleep(0.2)
        worker.send_signal(signal.SIGTERM)
        began = time.monotonic()
        worker.wait(timeout=20)
        assert time.monotonic() - began < gateway_job.END_WITHIN + 2


def test_a_worker_that_is_closing_ends_soon_when_told(start, scheduler):
    from distributed import Client

    worker = start("worker", scheduler, "0", *WORKER)
    with Client(scheduler) as client:
        client.wait_for_workers(1, timeout=30)
        client.submit(time.sleep, 60)
        time.sleep(0.2)
        client.shutdown()  # the worker closes, and waits for its task
        worker.send_signal(signal.SIGTERM)
        began = time.monotonic()
        worker.wait(timeout=20)
        assert time.monotonic() - began < gateway_job.END_WITHIN + 2


def test_a_worker_whose_scheduler_does_not_come_ends_with_a_sentence(start, tmp_path):
    worker = start("worker", str(tmp_path / "scheduler.json"), "0.3", *WORKER)
    assert worker.wait(timeout=30) == gateway_job.NO_SCHEDULER_CODE
    assert worker.log.read_text().endswith(
        f"{gateway_job.NO_SCHEDULER} 0.3 s, for which this worker waited. Its job ends.\n"
    )


def worker_arguments(nanny, death_timeout):
    """What a worker is started with, with a nanny or without."""
    changed = {"--no-nanny": nanny, "30": death_timeout}
    return [changed.get(word, word) for word in WORKER]


@pytest.mark.parametrize("nanny", ["--nanny", "--no-nanny"])
def test_a_worker_whose_scheduler_dies_ends_by_itself_with_all_its_processes(start, scheduler_process, nanny):
    """As after the scheduler's job ran out of memory, where nobody cancels the worker's."""
    # In which a nanny's worker must also have started
    worker = start("worker", scheduler_process.address, "0", *worker_arguments(nanny, "10"))
    appears(worker, "Registered to")
    processes = [psutil.Process(worker.pid), *psutil.Process(worker.pid).children(recursive=True)]
    assert len(processes) > 1 or nanny == "--no-nanny"
    scheduler_process.kill()
    try:
        worker.wait(timeout=40)
        psutil.wait_procs(processes, timeout=5)
        assert [process for process in processes if process.is_running()] == []
    finally:
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


@pytest.mark.parametrize("nanny", ["--nanny", "--no-nanny"])
def test_a_worker_whose_scheduler_is_dead_already_ends_by_its_death_timeout(start, scheduler_process, nanny):
    """It came through the queue too late; with the time for its own start."""
    scheduler_process.kill()
    scheduler_process.wait()
    began = time.monotonic()
    worker = start("worker", scheduler_process.address, "0", *worker_arguments(nanny, "3"))
    worker.wait(timeout=20)
    assert time.monotonic() - began > 3
    assert worker.returncode != 0


def test_a_worker_that_does_not_fit_its_scheduler_ends_with_a_sentence(tmp_path):
    for name in ("gateway_job.py", "gateway_preload.py"):
        (tmp_path / name).write_text(PROGRAM.with_name(name).read_text())
    (tmp_path / "versions.json").write_text('{"distributed": "2020.1.0"}')
    file = tmp_path / "scheduler.json"
    file.write_text('{"address": "tls://127.0.0.1:1"}')
    done = subprocess.run(
        [sys.executable, tmp_path / "gateway_job.py", "worker", file, "5", *WORKER],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 1
    assert f"{gateway_preload.MISFIT}: distributed" in done.stderr


def test_a_worker_that_waits_ends_at_once_when_told(start, tmp_path):
    worker = start("worker", str(tmp_path / "scheduler.json"), "60", *WORKER)
    time.sleep(1)
    worker.send_signal(signal.SIGTERM)
    began = time.monotonic()
    assert worker.wait(timeout=10) == -signal.SIGTERM
    assert time.monotonic() - began < 1


def test_files_beside_the_program_shadow_no_module(tmp_path):
    program = tmp_path / PROGRAM.name
    program.write_text(PROGRAM.read_text())
    (tmp_path / "distributed.py").write_text("raise SystemExit('shadowed')")
    done = subprocess.run(
        [sys.executable, program, "worker", "tls://127.0.0.1:1", "0", "--help"], capture_output=True, text=True,
        cwd=tmp_path, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "dask worker" in done.stdout
