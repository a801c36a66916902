#!/usr/bin/python3
"""Remove the packages that came with the service."""

from __future__ import annotations

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.host_before import (
    Before,
    HostBeforeError,
    installed_packages,
    purge,
    removable,
    remove_remains,
)

DOCUMENTATION = """
module: packages_given_back
author: The maintainers of this service
short_description: Remove the packages that came with the service
description:
  - Those that the host did not have before, with what came with them and their configuration, unless another package
    needs them.
  - Where nothing is remembered of the host, none; C(said) tells so.
options:
  folder: {description: Where host_remembered has written., type: path, required: true}
  packages: {description: What the roles install., type: list, elements: str, required: true}
  remains: {description: "What packages leave behind: package, paths.", type: list, elements: dict, default: []}
"""

ARGUMENTS = {
    "folder": {"type": "path", "required": True},
    "packages": {"type": "list", "elements": "str", "required": True},
    "remains": {"type": "list", "elements": "dict", "default": []},
}


def main() -> None:
    """Run as a module of Ansible."""
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    given = module.params
    try:
        before = Before.read(Path(given["folder"]))
        there = sorted(set(given["packages"]) & set(installed_packages()))
        if not before.known:
            said = f"Nobody knows which packages this host had before, so these stay: {', '.join(there)}."
            module.exit_json(changed=False, removed=[], said=said if there else "")
        if module.check_mode:
            ours = sorted(set(there) - before.packages)
            module.exit_json(changed=bool(ours), removed=ours, said="")
        gone, needed = removable(before, given["packages"])
        if gone:
            purge(gone)
        for one in given["remains"]:
            if one["package"] in gone:
                for path in one["paths"]:
                    remove_remains(path)
    except (HostBeforeError, OSError) as error:
        module.fail_json(msg=str(error))
    said = f"These stay, as other packages need them: {', '.join(needed)}." if needed else ""
    module.exit_json(changed=bool(gone), removed=gone, said=said)


if __name__ == "__main__":
    main()
