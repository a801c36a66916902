#!/usr/bin/python3
"""Keep copies of environments on the host's own disk."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.environment_build import BuildError, advice, build_once
from ansible.module_utils.environment_local import copy_and_unpack, lines_of_copies, unmount

DOCUMENTATION = """
module: local_environments
author: The maintainers of this service
short_description: Keep copies of environments on the host's own disk
description:
  - Copies each archive, checks its hash, and unpacks it; a copy counts only when it is complete.
  - Unmounts and removes the copies of everything else. C(forgotten) tells where /etc/fstab still mounts one of those.
options:
  archives: {description: "What packed_environments answers.", type: list, elements: dict, required: true}
  directory: {description: The folder of the copies., type: path, required: true}
"""

ARGUMENTS = {
    "archives": {"type": "list", "elements": "dict", "required": True},
    "directory": {"type": "path", "required": True},
}

# Nothing else in that folder is this module's
COPY = re.compile(r".+-[0-9a-f]{12}|\..+-[0-9a-f]{12}\.tar")


class Copies:
    """One look at the copies of this host; `dry` only says what would be done."""

    def __init__(self, archives: list[dict], directory: Path, dry: bool = False, fstab: Path = Path("/etc/fstab")):
        self.archives = archives
        self.directory = directory
        self.dry = dry
        self.mounted = lines_of_copies(fstab.read_text(), str(directory)) if fstab.exists() else []
        self.changed = False

    def make(self) -> None:
        """Make those that are missing."""
        for one in self.archives:
            folder, marker = self.directory / one["name"], f".copy-{one['sha256'][:12]}"
            if (folder / marker).exists():
                continue
            self.changed = True
            if not self.dry:
                # One that something is mounted from is not changed under it
                unmount(Path(one["folder"]))
                build_once(
                    folder,
                    marker,
                    lambda made, lock, one=one: copy_and_unpack(Path(one["archive"]), one["sha256"], made),
                )

    def remove(self) -> list[str]:
        """Remove the others; the places in /etc/fstab that are of no use any more."""
        names = {one["name"] for one in self.archives}
        folders = {one["folder"] for one in self.archives}
        forgotten = [place for place in self.mounted if place not in folders]
        for place in forgotten:
            self.changed = True
            if not self.dry:
                unmount(Path(place))
        for path in sorted(self.directory.iterdir()) if self.directory.is_dir() else []:
            if path.name not in names and COPY.fullmatch(path.name):
                self.changed = True
                if not self.dry:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
        return forgotten


def main() -> None:
    """Run as a module of Ansible."""
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    os.umask(0o022)
    copies = Copies(module.params["archives"], Path(module.params["directory"]), module.check_mode)
    try:
        forgotten = copies.remove()
        copies.make()
    except (BuildError, OSError) as error:
        module.fail_json(msg=f"An environment could not be copied to this host: {error}{advice(str(error))}")
    module.exit_json(changed=copies.changed, forgotten=forgotten)


if __name__ == "__main__":
    main()
