#!/usr/bin/python3
"""Find the environments of a folder that processes of this host run from."""

from __future__ import annotations

import os
import re
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = """
module: environments_in_use
author: The maintainers of this service
short_description: The environments of a folder that processes of this host run from
description:
  - Looks at what each process has mapped, was started as, and was given as its environment.
  - Sees the processes of all users as root only.
options:
  folder: {description: The folder of the environments., type: path, required: true}
"""


def in_use(folder: str, proc: Path = Path("/proc")) -> list[str]:
    """Return the names of the folders below `folder` that stand in what the kernel knows of some process."""
    pattern = re.compile(re.escape(os.fsencode(folder)) + rb"/([^/\x00\n: ]+)/")
    found: set[bytes] = set()
    for process in proc.iterdir():
        if process.name.isdigit() and process.name != str(os.getpid()):
            for file in ("maps", "cmdline", "environ"):
                try:
                    found.update(pattern.findall((process / file).read_bytes()))
                except OSError:
                    continue  # it has ended meanwhile
    return sorted(os.fsdecode(name) for name in found)


def main() -> None:
    """Run as a module of Ansible."""
    module = AnsibleModule(argument_spec={"folder": {"type": "path", "required": True}}, supports_check_mode=True)
    module.exit_json(changed=False, names=in_use(module.params["folder"]))


if __name__ == "__main__":
    main()
