"""The provider pip: a Python of the host, and wheels that a requirements file with hashes names."""

from __future__ import annotations

from pathlib import Path

from ansible.module_utils.environment_build import BuildError, Commands


class PipProvider:
    """Makes an environment of a host's Python and locked wheels, by uv."""

    tools = ("uv",)

    def __init__(self, commands: Commands):
        self.commands = commands
        self.arguments = commands.arguments

    def check(self) -> None:
        """Refuse what can't be built before anything is made."""
        if not Path(self.arguments["python"]).exists():
            raise BuildError(
                f"{self.arguments['python']} is not on this host: install that Python, or name another one"
            )

    def make(self, folder: Path, lock: int) -> None:
        """Install what the lock names and nothing else, and compile it."""
        uv = Path(self.arguments["uv"]["path"]) / "bin/uv"
        prompt = ["--prompt", self.arguments["prompt"]]
        venv = [uv, "venv", "--python", self.arguments["python"], *prompt, folder]
        self.commands.run(*venv, failure="The environment could not be made", lock=lock)
        requirements = folder / "requirements.txt"
        requirements.write_text(self.arguments["lock"])
        options = ["--quiet", "--python", folder / "bin/python", "--compile-bytecode", "--only-binary=:all:"]
        options += ["--no-index"] if self.arguments["no_index"] else []
        sync = [uv, "pip", "sync", "--require-hashes", *options, requirements]
        failure = "The packages of the lock could not be installed, and nothing was changed"
        self.commands.run(*sync, failure=failure, lock=lock, attempts=3)
