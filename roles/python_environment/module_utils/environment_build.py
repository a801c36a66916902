"""What the build of every environment stands on: folders that count only when complete, and commands that tell why."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import tempfile
import time
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path

# uv lists every hash that a package might have had.
NOISE = re.compile(r"\s*(sha256:[0-9a-f]{64}|Expected:|Computed:)?\s*")

# A registry can fail once and answer the next time, but asking again does not mend these.
FINAL = (
    "hash mismatch",
    "do not match the hashes",
    "no solution found",
    "--require-hashes",
    "no usable wheels",
    "no space left",
    "disk quota exceeded",
    "no such file",
)
HASH_MISMATCH = " (the registry has another file than the lock was made from: find out why before you make a new lock)"
FULL = " (the disk is full: make room, or name a folder elsewhere, and run the play again)"


class BuildError(Exception):
    """A build that failed; its text is a sentence for the person who runs the play."""


@contextmanager
def only_builder(parent: Path):
    """Keep other builds beside this one waiting, those of an interrupted play included.

    The programs that a build starts hold the lock too: one that outlives its parent still writes into the folder.
    """
    descriptor = os.open(parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with suppress(OSError):  # a network file system may have no locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


def build_once(folder: Path, marker: str, build) -> bool:
    """Build a folder unless it is complete; whatever happens, an incomplete one never looks complete."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with only_builder(folder.parent) as lock:
        if (folder / marker).exists():
            return False
        if folder.exists():
            shutil.rmtree(folder)
        try:
            build(folder, lock)
            protect(folder)
            (folder / marker).touch()
            (folder / marker).chmod(0o644)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
    return True


def protect(folder: Path) -> None:
    """Let everybody read, and nobody but the owner write."""
    for path in [folder, *folder.rglob("*")]:
        if not path.is_symlink():
            mode = path.stat().st_mode & 0o7777
            wanted = (mode | 0o444 | (0o111 if path.is_dir() or mode & 0o100 else 0)) & ~0o022
            if wanted != mode:
                path.chmod(wanted)


def move_link(link: Path, target: Path) -> None:
    """Point a link elsewhere without a moment in which it is not there."""
    if not link.is_symlink() or link.readlink() != target:
        temporary = link.with_name(f".{link.name}.{os.getpid()}")
        temporary.symlink_to(target)
        temporary.replace(link)


def advice(printed: str) -> str:
    """What to do about what a command printed, where that is known."""
    said = printed.lower()
    if "hash mismatch" in said:
        return HASH_MISMATCH
    return FULL if "no space left" in said or "disk quota exceeded" in said else ""


class Commands:
    """Runs the commands of a build, with the environment that its tools need."""

    def __init__(self, arguments: dict):
        self.arguments = arguments
        self.environment = {
            name: value for name, value in os.environ.items() if name not in {"PYTHONHOME", "PYTHONPATH", "VIRTUAL_ENV"}
        } | {
            "NO_COLOR": "1",
            "PIP_CERT": arguments["ca_bundle"],
            "SSL_CERT_FILE": arguments["ca_bundle"],
            "UV_CACHE_DIR": f"{arguments['cache']}/uv",
            "UV_NO_PROGRESS": "1",
            "UV_PYTHON_DOWNLOADS": "never",
        }
        # In the environment, because an address may hold a password, and everybody sees a command's arguments.
        for names, value in [
            (("PIP_INDEX_URL", "UV_DEFAULT_INDEX"), arguments["index_url"]),
            (("PIP_FIND_LINKS", "UV_FIND_LINKS"), arguments["find_links"]),
            (("PIP_NO_INDEX", "UV_NO_INDEX"), "1" if arguments["no_index"] else ""),
        ]:
            self.environment |= dict.fromkeys(names, value) if value else {}

    def verify(self, *command: str | Path, failure: str, lock: int) -> None:
        """Run a command in a home of its own: packages write there when they are imported, dask_gateway for one."""
        with tempfile.TemporaryDirectory() as home:
            self.run(*command, failure=failure, lock=lock, home=home)

    def run(
        self, *command: str | Path, failure: str, lock: int, attempts: int = 1, text: str = "", home: str = ""
    ) -> None:
        """Run a command, `text` being its input, or say what has failed and what it printed last."""
        environment = self.environment | ({"HOME": home} if home else {})
        for attempt in range(1, attempts + 1):
            done = subprocess.run(
                [str(part) for part in command],
                env=environment,
                cwd="/",
                pass_fds=[lock],
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
                input=text,
            )
            if done.returncode == 0:
                return
            lines = [line for line in (done.stdout + done.stderr).splitlines() if not NOISE.fullmatch(line)]
            printed = "\n".join(lines[-15:]) or f"exit code {done.returncode}"
            if attempt == attempts or any(sign in printed.lower() for sign in FINAL):
                raise BuildError(f"{failure}{advice(printed)}: {printed}")
            time.sleep(5)

    def tool(self, name: str) -> bool:
        """Install a tool of the build from a lock of its own, unless it is there; True when it was not."""
        tool = self.arguments[name]
        digits = sha256(tool["lock"].encode()).hexdigest()[:12]
        link = Path(tool["path"])
        folder = link.with_name(f"{link.name}-{digits}")

        def install(folder: Path, lock: int) -> None:
            """Use the distribution's own means; pip checks it against the lock."""
            venv = [self.arguments["system_python"], "-m", "venv", folder]
            self.run(*venv, failure=f"The environment of {name} could not be made", lock=lock)
            requirements = folder / "requirements.txt"
            requirements.write_text(tool["lock"])
            pip = [folder / "bin/python", "-m", "pip", "--disable-pip-version-check", "--no-cache-dir", "--quiet"]
            options = ["install", "--require-hashes", "--only-binary=:all:", "--requirement", requirements]
            self.run(*pip, *options, failure=f"{name} could not be installed", lock=lock, attempts=3)

        built = build_once(folder, ".complete", install)
        move_link(link, folder)
        return built
