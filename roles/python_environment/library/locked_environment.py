#!/usr/bin/python3
"""Build a Python environment from a lock, into a folder that counts only when it is complete."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = """
module: locked_environment
author: The maintainers of this service
short_description: Build a Python environment from a lock
description:
  - Does nothing when the folder is complete. Removes what an interrupted build left in it, and the folder when the
    build fails.
  - Installs uv, from a lock of its own, where that version is not there yet.
options:
  folder: {description: The environment., type: path, required: true}
  marker: {description: The file in the folder whose presence says that it is complete., type: str, required: true}
  prompt: {description: The environment's name in a shell's prompt., type: str, required: true}
  lock: {description: The text of the lock., type: str, required: true}
  wheels: {description: Folder of wheels to install over the lock; removed afterwards., type: path, required: true}
  uv: {description: Where uv is installed; a link., type: path, required: true}
  uv_lock: {description: The text of uv's lock., type: str, required: true}
  python: {description: The Python that the environment is made with., type: path, required: true}
  system_python: {description: A Python that has the module venv., type: path, required: true}
  imports: {description: Modules that must import., type: list, elements: str, default: []}
  checks: {description: Calls of the environment's Python that must exit 0., type: list, elements: list, default: []}
  index_url: {description: The registry's simple index., type: str, default: ""}
  find_links: {description: A folder or page of further wheels., type: str, default: ""}
  ca_bundle: {description: The certificate authorities to trust., type: path, required: true}
  cache: {description: A folder for downloads., type: path, required: true}
"""

ARGUMENTS = {
    "folder": {"type": "path", "required": True},
    "marker": {"type": "str", "required": True},
    "prompt": {"type": "str", "required": True},
    "lock": {"type": "str", "required": True},
    "wheels": {"type": "path", "required": True},
    "uv": {"type": "path", "required": True},
    "uv_lock": {"type": "str", "required": True},
    "python": {"type": "path", "required": True},
    "system_python": {"type": "path", "required": True},
    "imports": {"type": "list", "elements": "str", "default": []},
    "checks": {"type": "list", "elements": "list", "default": []},
    "index_url": {"type": "str", "default": ""},
    "find_links": {"type": "str", "default": ""},
    "ca_bundle": {"type": "path", "required": True},
    "cache": {"type": "path", "required": True},
}

IMPORT_ALL = """
import importlib, sys
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
    except Exception as error:
        sys.exit(f"{name}: {type(error).__name__}: {error}")
"""

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
)
HASH_MISMATCH = " (the registry has another file than the lock was made from: find out why before you make a new lock)"


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


class Builder:
    """One call of the module."""

    def __init__(self, arguments: dict):
        self.arguments = arguments
        self.uv = Path(arguments["uv"]) / "bin" / "uv"
        self.environment = {
            name: value for name, value in os.environ.items() if name not in {"PYTHONHOME", "PYTHONPATH", "VIRTUAL_ENV"}
        } | {
            "NO_COLOR": "1",
            "PIP_CERT": arguments["ca_bundle"],
            "SSL_CERT_FILE": arguments["ca_bundle"],
            "UV_CACHE_DIR": arguments["cache"],
            "UV_NO_PROGRESS": "1",
            "UV_PYTHON_DOWNLOADS": "never",
        }
        # In the environment, because an address may hold a password, and everybody sees a command's arguments.
        for names, value in [
            (("PIP_INDEX_URL", "UV_DEFAULT_INDEX"), arguments["index_url"]),
            (("PIP_FIND_LINKS", "UV_FIND_LINKS"), arguments["find_links"]),
        ]:
            self.environment |= dict.fromkeys(names, value) if value else {}

    def build(self) -> bool:
        """Make uv and the environment; True when something was built."""
        python = Path(self.arguments["python"])
        if not python.exists():
            raise BuildError(f"{python} is not on this host: install that Python, or name another one")
        digits = sha256(self.arguments["uv_lock"].encode()).hexdigest()[:12]
        link = Path(self.arguments["uv"])
        folder = link.with_name(f"{link.name}-{digits}")
        built = build_once(folder, ".complete", self.build_uv)
        move_link(link, folder)
        return build_once(Path(self.arguments["folder"]), self.arguments["marker"], self.build_environment) or built

    def run(self, *command: str | Path, failure: str, lock: int, attempts: int = 1) -> None:
        """Run a command, or say what has failed and what it printed last."""
        for attempt in range(1, attempts + 1):
            done = subprocess.run(
                [str(part) for part in command],
                env=self.environment,
                cwd="/",
                pass_fds=[lock],
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
            )
            if done.returncode == 0:
                return
            lines = [line for line in (done.stdout + done.stderr).splitlines() if not NOISE.fullmatch(line)]
            printed = "\n".join(lines[-15:]) or f"exit code {done.returncode}"
            if attempt == attempts or any(sign in printed.lower() for sign in FINAL):
                mismatch = "hash mismatch" in printed.lower()
                raise BuildError(f"{failure}{HASH_MISMATCH if mismatch else ''}: {printed}")
            time.sleep(5)

    def build_uv(self, folder: Path, lock: int) -> None:
        """Install uv with the distribution's own means; pip checks it against uv's lock."""
        venv = [self.arguments["system_python"], "-m", "venv", folder]
        self.run(*venv, failure="The environment of uv could not be made", lock=lock)
        requirements = folder / "requirements.txt"
        requirements.write_text(self.arguments["uv_lock"])
        pip = [folder / "bin/python", "-m", "pip", "--disable-pip-version-check", "--no-cache-dir", "--quiet"]
        install = ["install", "--require-hashes", "--only-binary=:all:", "--requirement", requirements]
        self.run(*pip, *install, failure="uv could not be installed", lock=lock, attempts=3)

    def build_environment(self, folder: Path, lock: int) -> None:
        """Install what the lock names and nothing else, compile it, and see that it works."""
        python = folder / "bin/python"
        venv = [self.uv, "venv", "--python", self.arguments["python"], "--prompt", self.arguments["prompt"], folder]
        self.run(*venv, failure="The environment could not be made", lock=lock)

        requirements = folder / "requirements.txt"
        requirements.write_text(self.arguments["lock"])
        pip_options = ["--quiet", "--python", python, "--compile-bytecode"]
        sync = [self.uv, "pip", "sync", *pip_options, "--require-hashes", "--only-binary=:all:"]
        failure = "The packages of the lock could not be installed, and nothing was changed"
        self.run(*sync, requirements, failure=failure, lock=lock, attempts=3)
        wheels = sorted(Path(self.arguments["wheels"]).glob("*.whl"))
        if wheels:
            install = [self.uv, "pip", "install", *pip_options, "--offline", "--no-deps"]
            self.run(*install, *wheels, failure="The wheels of this repository could not be installed", lock=lock)

        check = [self.uv, "pip", "check", "--python", python]
        self.run(*check, failure="The packages of the lock do not fit together", lock=lock)
        imports = [python, "-I", "-c", IMPORT_ALL, *self.arguments["imports"]]
        self.run(*imports, failure="A module that the environment is for can't be imported", lock=lock)
        for arguments in self.arguments["checks"]:
            self.run(python, *arguments, failure=f"The check '{' '.join(arguments)}' failed", lock=lock)
        shutil.rmtree(self.arguments["wheels"], ignore_errors=True)


def main() -> None:
    """Run as a module of Ansible."""
    module = AnsibleModule(argument_spec=ARGUMENTS)
    os.umask(0o022)
    try:
        changed = Builder(module.params).build()
    except (BuildError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=changed)


if __name__ == "__main__":
    sys.exit(main())
