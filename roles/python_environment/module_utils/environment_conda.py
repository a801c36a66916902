"""The provider conda: packages of any channel, Python included, as an explicit lock names them."""

from __future__ import annotations

import json
import re
from pathlib import Path

from ansible.module_utils import environment_rattler
from ansible.module_utils.environment_build import BuildError, Commands

PACKAGE = re.compile(
    r"(?P<url>(?:https?|file)://\S+/(?P<name>[^/\s#]+)\.(?:conda|tar\.bz2))"
    r"#(?:(?P<sha256>(?:sha256:)?[0-9a-f]{64})|(?P<md5>[0-9a-f]{32}))"
)


def packages(lock: str) -> list[dict[str, str]]:
    """Read an explicit lock: the line @EXPLICIT, then the address and the checksum of each package."""
    lines = [line.strip() for line in lock.splitlines()]
    lines = [(number, line) for number, line in enumerate(lines, 1) if line and not line.startswith("#")]
    if not lines or lines[0][1] != "@EXPLICIT":
        raise BuildError(
            "The lock of a conda environment begins with the line @EXPLICIT; "
            "`conda list --explicit --sha256` writes one"
        )
    found = []
    for number, line in lines[1:]:
        match = PACKAGE.fullmatch(line)
        if not match:
            raise BuildError(
                f"Line {number} of the lock is not the address of a package and its checksum, "
                f"https://…/name-version-build.conda#<sha256>: {line[:200]}"
            )
        sha256 = (match["sha256"] or "").removeprefix("sha256:")
        found.append({"url": match["url"], "sha256": sha256, "md5": match["md5"] or ""})
    if not any(re.match(r"python-[0-9]", package["url"].rpartition("/")[2]) for package in found):
        raise BuildError("The lock names no package python-…: a conda environment brings its own Python")
    return found


class CondaProvider:
    """Makes an environment of locked conda packages, by py-rattler."""

    tools = ("rattler", "uv")

    def __init__(self, commands: Commands):
        self.commands = commands
        self.arguments = commands.arguments

    def check(self) -> None:
        """Refuse a lock that can't be read before anything is made."""
        packages(self.arguments["lock"])

    def make(self, folder: Path, lock: int) -> None:
        """Install what the lock names and nothing else, and compile it."""
        rattler = Path(self.arguments["rattler"]["path"]) / "bin/python"
        # This module may lie in an archive, so the program is handed over as text.
        program = environment_rattler.__loader__.get_source(environment_rattler.__name__)
        request = {
            "packages": packages(self.arguments["lock"]),
            "prefix": str(folder),
            "cache": f"{self.arguments['cache']}/conda",
        }
        self.commands.run(
            *(rattler, "-I", "-c", program),
            failure="The packages of the lock could not be installed, and nothing was changed",
            lock=lock,
            attempts=3,
            text=json.dumps(request),
        )
        (folder / "explicit.txt").write_text(self.arguments["lock"])
        compile_all = [folder / "bin/python", "-I", "-m", "compileall", "-q", "-j", "0", folder / "lib"]
        # Packages carry files that are no Python of this version, or none at all: those are told and left alone
        self.commands.run(
            "sh", "-c", '"$@" >/dev/null || true', "sh", *compile_all, failure="Byte code could not be made", lock=lock
        )
