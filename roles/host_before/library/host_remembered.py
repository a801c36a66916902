#!/usr/bin/python3
"""Remember what a host has before the service comes."""

from __future__ import annotations

import os
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.host_before import RECORD, HostBeforeError, remember

DOCUMENTATION = """
module: host_remembered
author: The maintainers of this service
short_description: Remember what a host has before the service comes
description:
  - Writes it down once. What is remembered is not changed, and a host that has the service already is left out.
options:
  folder: {description: Where it is written., type: path, required: true}
  mark: {description: What is on a host that has the service already., type: path, default: ""}
"""

ARGUMENTS = {"folder": {"type": "path", "required": True}, "mark": {"type": "path", "default": ""}}


def main() -> None:
    """Run as a module of Ansible."""
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    folder, mark = Path(module.params["folder"]), module.params["mark"]
    if (folder / RECORD).exists() or (mark and os.path.lexists(mark)):
        module.exit_json(changed=False)
    try:
        if not module.check_mode:
            remember(folder)
    except (HostBeforeError, OSError) as error:
        module.fail_json(msg=f"What this host has can't be written down: {error}")
    module.exit_json(changed=True)


if __name__ == "__main__":
    main()
