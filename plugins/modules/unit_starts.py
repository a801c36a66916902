#!/usr/bin/python3
"""`unit_starts` tells which units have started before what they read has changed. It changes nothing."""

from __future__ import annotations

import os
import time
from glob import glob

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = """
module: unit_starts
author: The maintainers of this service
short_description: Which units have to be restarted for what they read
description:
  - A run that stops half way has changed files whose restarts it was to do at its end, and the next one finds
    nothing to change.
  - A link counts by its own time, so that one which leads elsewhere has changed.
options:
  units:
    description: For each unit, the files that it reads when it starts; patterns, which may match none.
    type: dict
    required: true
"""
RETURN = """
outdated:
  description: The units that run and have started before the newest of their files.
  type: list
  elements: str
"""


def main() -> None:
    """Answer with the units' names."""
    module = AnsibleModule(argument_spec={"units": {"type": "dict", "required": True}}, supports_check_mode=True)
    outdated = []
    for unit, files in module.params["units"].items():
        command = ["systemctl", "show", "--timestamp=unix", "--property=ActiveState,ActiveEnterTimestamp", unit]
        _, shown, _ = module.run_command(command, check_rc=True)
        if older(shown, files, time.time()):
            outdated.append(unit)
    module.exit_json(changed=False, outdated=outdated)


def older(shown: str, files: list[str], now: float) -> bool:
    """Whether a unit runs that has started before one of the files has changed.

    Parameters
    ----------
    shown : str
        What systemctl shows of it, with times as @ and seconds (systemctl(1), --timestamp=unix).
    files : list of str
        Patterns of paths.
    now : float
        Seconds since the epoch; a file that is to change later only has a time that nobody can trust.
    """
    properties = dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)
    started = properties.get("ActiveEnterTimestamp", "")
    if properties.get("ActiveState") != "active" or not started.startswith("@"):
        return False
    changed = [os.lstat(path).st_mtime for pattern in files for path in glob(pattern)]  # noqa: PTH207
    return any(int(started[1:]) < int(moment) <= now for moment in changed)


if __name__ == "__main__":
    main()
