#!/usr/bin/python3
"""Take away what a role has put on a host, and give back what was there before."""

from __future__ import annotations

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.host_before import Before, GivingBack, HostBeforeError

DOCUMENTATION = """
module: host_given_back
author: The maintainers of this service
short_description: Take away what a role has put on a host, and give back what was there before
description:
  - What host_remembered has written down decides. Where it has not, the service's own things are removed, and
    C(left) names what stays.
options:
  folder: {description: Where it was written., type: path, required: true}
  units: {description: Units that are stopped and removed., type: list, elements: str, default: []}
  host_units: {description: Units of the distribution., type: list, elements: str, default: []}
  files: {description: "Files, folders and patterns that are the service's.", type: list, elements: str, default: []}
  originals: {description: Files of the distribution that were changed., type: list, elements: str, default: []}
  environments: {description: Links to environments., type: list, elements: str, default: []}
  environment_folders: {description: Folders of environments., type: list, elements: str, default: []}
  folders: {description: Folders that go where they are empty., type: list, elements: str, default: []}
  users: {description: System users., type: list, elements: str, default: []}
  commands: {description: "What commands undo: unless_before, needed, run.", type: list, elements: dict, default: []}
"""

LISTS = ("units", "host_units", "files", "originals", "environments", "environment_folders", "folders", "users")
ARGUMENTS = {
    "folder": {"type": "path", "required": True},
    **{name: {"type": "list", "elements": "str", "default": []} for name in LISTS},
    "commands": {"type": "list", "elements": "dict", "default": []},
}


def main() -> None:
    """Run as a module of Ansible."""
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    given = module.params
    try:
        giving = GivingBack(Before.read(Path(given["folder"])), module.check_mode)
        giving.units(given["units"])
        giving.commands(given["commands"])
        giving.files(given["files"], given["originals"])
        giving.environments(given["environments"])
        giving.environments_of(given["environment_folders"])
        giving.folders(given["folders"])
        giving.host_units(given["host_units"])
        giving.users(given["users"])
    except (HostBeforeError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=bool(giving.done), done=giving.done, left=giving.left)


if __name__ == "__main__":
    main()
