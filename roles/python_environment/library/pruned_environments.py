#!/usr/bin/python3
"""Remove the environments of a folder that nobody needs any more."""

from __future__ import annotations

import re
import shutil
import time
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.environment_build import BuildError, only_builder
from ansible.module_utils.environment_local import unmount

DOCUMENTATION = """
module: pruned_environments
author: The maintainers of this service
short_description: Remove the environments of a folder that nobody needs any more
description:
  - An environment that no kept link leads to gets a mark, and is removed C(keep_days) after that, so that what was
    started from it has its files until then. What an interrupted build left is removed at once.
  - What is in use on one of the hosts that were asked stays in any case, and as long as not all could be asked,
    everything that is complete does.
options:
  folder: {description: The folder of the environments and their links., type: path, required: true}
  keep: {description: Names of the links that stay., type: list, elements: str, required: true}
  remove: {description: Names of links that go at once with what they lead to., type: list, elements: str, default: []}
  keep_days: {description: Days for which an environment without a link is kept., type: int, required: true}
  in_use: {description: Names of folders from which something runs., type: list, elements: str, default: []}
  unasked: {description: Hosts that were not asked what runs on them., type: list, elements: str, default: []}
  names: {description: "The environments to look at; [] for all.", type: list, elements: str, default: []}
  keep_builds: {description: Paths of environments that stay without a link., type: list, elements: path, default: []}
  keep_newest: {description: How many of each name without a link stay however old they are., type: int, default: 0}
"""

ARGUMENTS = {
    "folder": {"type": "path", "required": True},
    "keep": {"type": "list", "elements": "str", "required": True},
    "remove": {"type": "list", "elements": "str", "default": []},
    "keep_days": {"type": "int", "required": True},
    "in_use": {"type": "list", "elements": "str", "default": []},
    "unasked": {"type": "list", "elements": "str", "default": []},
    "names": {"type": "list", "elements": "str", "default": []},
    "keep_builds": {"type": "list", "elements": "path", "default": []},
    "keep_newest": {"type": "int", "default": 0},
}

BUILD = re.compile(r"(?P<name>.+)-(?P<digest>[0-9a-f]{12})")
MARK = ".superseded"


class Pruning:
    """One look through a folder; `dry` only says what would be done."""

    def __init__(self, arguments: dict, dry: bool = False, now: float | None = None):
        self.folder = Path(arguments["folder"])
        self.arguments = arguments
        self.dry = dry
        self.now = time.time() if now is None else now
        self.marked: list[str] = []
        self.removed: list[str] = []
        self.in_use: list[str] = []
        self.uncertain: list[str] = []

    def run(self) -> None:
        """Mark what is superseded, and remove what is due."""
        if not self.folder.is_dir():
            return
        with only_builder(self.folder):
            names = self.arguments.get("names") or []
            links = [path for path in self.folder.iterdir() if path.is_symlink() and (not names or path.name in names)]
            kept = {link.resolve() for link in links if link.name in self.arguments["keep"]}
            kept |= {Path(build).resolve() for build in self.arguments.get("keep_builds") or []}
            builds = [(build, BUILD.fullmatch(build.name)) for build in sorted(self.folder.iterdir())]
            builds = [
                (build, match)
                for build, match in builds
                if match and not build.is_symlink() and build.is_dir() and self.looks_at(match)
            ]
            newest = self.newest([(build, match) for build, match in builds if build.resolve() not in kept])
            for build, match in builds:
                if build.resolve() in kept:
                    self.unmark(build)
                    continue
                if build in newest:
                    continue
                # A copy that is mounted there can't be written to
                if not self.dry:
                    unmount(build)
                if self.is_due(build, match):
                    self.remove(build, [link for link in links if link.resolve() == build.resolve()])
            for link in links:
                if link.name not in self.arguments["keep"] and not link.exists() and not self.dry:
                    link.unlink(missing_ok=True)

    def looks_at(self, match: re.Match) -> bool:
        """Whether an environment is one of those that are asked for."""
        names = self.arguments.get("names") or []
        return not names or match["name"] in names

    def newest(self, builds: list[tuple[Path, re.Match]]) -> set[Path]:
        """Those complete ones without a link that were built last: as many of each name as are kept."""
        count = self.arguments.get("keep_newest") or 0
        found: dict[str, list[tuple[float, Path]]] = {}
        for build, match in builds:
            marker = build / f".complete-{match['digest']}"
            if marker.exists():
                found.setdefault(match["name"], []).append((marker.stat().st_mtime, build))
        return {build for of_name in found.values() for _, build in sorted(of_name, reverse=True)[:count]}

    def unmark(self, build: Path) -> None:
        """A link leads to it again."""
        if (build / MARK).exists() and not self.dry:
            (build / MARK).unlink()

    def is_due(self, build: Path, match: re.Match) -> bool:
        """Whether its time is over; it gets its mark where it has none."""
        if match["name"] in self.arguments["remove"] or not (build / f".complete-{match['digest']}").exists():
            return True
        try:
            since = (build / MARK).stat().st_mtime
        except FileNotFoundError:
            self.marked.append(build.name)
            if not self.dry:
                (build / MARK).touch()
            return self.arguments["keep_days"] == 0
        return self.now - since >= 86400 * self.arguments["keep_days"]

    def remove(self, build: Path, links: list[Path]) -> None:
        """Remove it with its links, unless something runs from it or might."""
        if build.name in self.arguments["in_use"] or {link.name for link in links} & set(self.arguments["in_use"]):
            self.in_use.append(build.name)
            return
        # Nobody was given what an interrupted build has left
        if self.arguments["unasked"] and any(build.glob(".complete-*")):
            self.uncertain.append(build.name)
            return
        self.removed.append(build.name)
        if self.dry:
            return
        for link in links:
            link.unlink()
        # First what says that it is complete: the rest of a removal that is interrupted is nothing that counts
        for marker in build.glob(".complete-*"):
            marker.unlink()
        shutil.rmtree(build)


def main() -> None:
    """Run as a module of Ansible."""
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    pruning = Pruning(module.params, dry=module.check_mode)
    try:
        pruning.run()
    except (BuildError, OSError) as error:
        module.fail_json(msg=f"Old environments could not be removed: {error}")
    module.exit_json(
        changed=bool(pruning.marked or pruning.removed),
        superseded=pruning.marked,
        removed=pruning.removed,
        in_use=pruning.in_use,
        uncertain=pruning.uncertain,
    )


if __name__ == "__main__":
    main()
