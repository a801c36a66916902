"""What a user writes by hand: a job script for the scheduler, another for workers, and a file with the address."""

import subprocess
import time
import uuid
from pathlib import Path

from distributed import Client

from .base import Competitor


class ByHand(Competitor):
    """Calls of sbatch. Several workers are one job array."""

    def __init__(self, settings: dict):
        super().__init__(settings)
        self.folder = Path(settings["folder"]) / uuid.uuid4().hex
        self.folder.mkdir(parents=True)
        self.address = self.folder / "scheduler.json"
        self.jobs: list[str] = []
        self.workers = 0

    def can_submit_together(self) -> bool:
        return True

    def _sbatch(self, kind: str, command: str, *options: str) -> None:
        call = [
            "sbatch", "--parsable", f"--job-name=by-hand-{kind}", f"--partition={self.settings['partition']}",
            f"--cpus-per-task={self.settings['cores']}", f"--mem={self.settings['memory_mib']}M",
            f"--output={self.folder}/{kind}-%j.log", *options,
        ]  # fmt: skip
        script = f"#!/bin/bash\n{self.settings['setup']}\n{command}\n"
        done = subprocess.run(call, input=script, capture_output=True, text=True, timeout=60)
        if done.returncode:
            raise RuntimeError(f"sbatch: {done.stderr.strip()}")
        self.jobs.append(done.stdout.strip().partition(";")[0])

    def create(self, workers: int) -> None:
        self._sbatch("scheduler", f"dask scheduler --port 0 --scheduler-file {self.address}")
        if workers:
            self.scale(workers)

    def connect(self) -> None:
        # A client waits for the file too, but for 5 s only.
        deadline = time.monotonic() + self.settings["timeout"]
        while not self.address.exists():
            if time.monotonic() > deadline:
                raise TimeoutError(f"the scheduler has not written {self.address}")
            time.sleep(0.02)
        self.client = Client(scheduler_file=str(self.address), timeout=self.settings["timeout"])

    def scale(self, workers: int) -> None:
        missing = workers - self.workers
        self._sbatch(
            "worker",
            f"dask worker --scheduler-file {self.address} --nthreads {self.settings['cores']} "
            f"--memory-limit {self.settings['memory_mib']}MiB --death-timeout 300",
            *([f"--array=0-{missing - 1}"] if missing > 1 else []),
        )
        self.workers = workers

    def close(self) -> None:
        super().close()
        if self.jobs:
            subprocess.run(["scancel", *self.jobs], check=True, timeout=60)
