"""Programs on the login host that do what a user does, and tell how long it took."""

import json
import queue
import subprocess
import tarfile
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path

import scenario

from bench import hosts


def folder() -> str:
    """Where the programs and what they write are: in the user's home folder, which the batch nodes see too."""
    return f"{scenario.site()['site_home_directory']}/{hosts.USER}/dask-bench"


class DriverError(Exception):
    """A run that failed, and why."""


def install() -> None:
    """Build the environment and copy the competitors to the login host."""
    playbook = Path(__file__).with_name("environment.yml")
    call = ["ansible-playbook", "--inventory", str(scenario.INVENTORY), str(playbook)]
    done = subprocess.run(call, cwd=scenario.REPOSITORY, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"the environment of the benchmark could not be built:\n{done.stdout}{done.stderr}")
    archive = BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        tar.add(
            Path(__file__).with_name("competitors"), "competitors",
            filter=lambda entry: None if entry.name.endswith("__pycache__") else entry,
        )  # fmt: skip
    command = f"rm -rf {folder()} && mkdir -p {folder()} && tar -x --no-same-owner -C {folder()}"
    call = ["docker", "exec", "-i", f"{scenario.PREFIX}-login", "runuser", "-l", hosts.USER, "-c", command]
    subprocess.run(call, input=archive.getvalue(), check=True, capture_output=True)


def remove() -> None:
    """Remove the environment and the folder."""
    hosts.run("login", f"rm -rf {folder()} {hosts.ENVIRONMENT} {hosts.ENVIRONMENT}-*")


class Driver:
    """One such program; see competitors/__main__.py for what it is asked."""

    def __init__(self, process: subprocess.Popen, errors, timeout: float):
        self.process = process
        self.errors = errors
        self.timeout = timeout
        self.pid = 0
        self._lines: queue.SimpleQueue = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put("")

    def send(self, message: dict) -> None:
        try:
            self.process.stdin.write(json.dumps(message) + "\n")
            self.process.stdin.flush()
        except OSError:
            pass  # receive tells why

    def receive(self):
        try:
            line = self._lines.get(timeout=self.timeout)
        except queue.Empty:
            raise DriverError(f"no answer in {self.timeout:g} s{self._said()}") from None
        if not line:
            raise DriverError(f"the program ended{self._said()}")
        answer = json.loads(line)
        if "error" in answer:
            raise DriverError(answer["error"])
        return answer["answer"]

    def ask(self, what: str, **more):
        """Have something done, and return the answer.

        Raises
        ------
        DriverError
            When it fails, or gives no answer in time.
        """
        self.send({"do": what, **more})
        return self.receive()

    def _said(self) -> str:
        self.errors.seek(0)
        last = self.errors.read().strip().splitlines()[-3:]
        return f": {' | '.join(last)}" if last else ""


@contextmanager
def driver(competitor: str, settings: dict, patience: float = 30) -> Iterator[Driver]:
    """A started driver, with everything imported; ended with all that it has started on leaving the block."""
    command = f"cd {folder()} && exec {hosts.ENVIRONMENT}/bin/python -m competitors"
    call = ["docker", "exec", "-i", f"{scenario.PREFIX}-login", "runuser", "-l", hosts.USER, "-c", command]
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(call, stdin=-1, stdout=-1, stderr=errors, text=True)
        started = Driver(process, errors, 60)
        try:
            # The settings hold tokens: not on a command line.
            started.send({"competitor": competitor, "settings": settings})
            started.pid = started.receive()
            started.timeout = settings["timeout"] + patience  # it knows better why it is late
            yield started
        finally:
            process.stdin.close()
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=20)
            if started.pid:
                hosts.run("login", f"kill -KILL -- -{started.pid} 2>/dev/null; :")
            process.kill()
            process.wait()
