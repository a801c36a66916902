#!/usr/bin/python3
"""Pack environments of a shared tree into one file each, for hosts that keep a copy on a disk of their own."""

from __future__ import annotations

import os
import re
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.environment_build import BuildError, advice, only_builder
from ansible.module_utils.environment_local import pack, packed_digest

DOCUMENTATION = """
module: packed_environments
author: The maintainers of this service
short_description: Pack environments of a shared tree into one file each
description:
  - Packs what each link leads to unless it was, and removes the files of all other environments.
  - Answers C(archives), a list of name, folder, archive and sha256.
options:
  links: {description: Links to environments., type: list, elements: path, required: true}
  archives: {description: The folder of the files., type: path, required: true}
"""

ARGUMENTS = {
    "links": {"type": "list", "elements": "path", "required": True},
    "archives": {"type": "path", "required": True},
}

# Nothing else in that folder is this module's
ARCHIVE = re.compile(r"\.?(?P<name>.+-[0-9a-f]{12})\.tar(\.sha256|\.partial)?")


def packed(links: list[str], archives: Path, dry: bool = False) -> tuple[bool, list[dict]]:
    """Pack what is missing, remove what is left over; whether anything changed, and what there is."""
    changed, found = False, []
    for link in links:
        folder = Path(os.path.realpath(link))
        archive = archives / f"{folder.name}.tar"
        sha256 = packed_digest(archive)
        if not sha256:
            changed = True
            if dry:
                continue
            sha256 = pack(folder, archive)
        found.append({"name": folder.name, "folder": str(folder), "archive": str(archive), "sha256": sha256})
    wanted = {Path(os.path.realpath(link)).name for link in links}
    for path in list(archives.iterdir()) if archives.is_dir() else []:
        match = ARCHIVE.fullmatch(path.name)
        if match and match["name"] not in wanted:
            changed = True
            if not dry:
                path.unlink()
    return changed, found


def main() -> None:
    """Run as a module of Ansible."""
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    os.umask(0o022)
    archives = Path(module.params["archives"])
    try:
        if module.check_mode:
            changed, found = packed(module.params["links"], archives, dry=True)
        else:
            archives.mkdir(parents=True, exist_ok=True)
            with only_builder(archives):
                changed, found = packed(module.params["links"], archives)
    except (BuildError, OSError) as error:
        module.fail_json(msg=f"An environment could not be packed: {error}{advice(str(error))}")
    module.exit_json(changed=changed, archives=found)


if __name__ == "__main__":
    main()
