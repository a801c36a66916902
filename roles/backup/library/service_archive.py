#!/usr/bin/python3
"""Make, examine or put back an archive of what a part of the service remembers."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path
from typing import Any

from ansible.module_utils.archive import (
    ArchiveError,
    builds_to_go_back_to,
    create,
    missing_builds,
    newest,
    newest_in_mysql,
    of_another_schema,
    opened,
    prune,
    put_back,
    same_builds,
)
from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = """
module: service_archive
author: The maintainers of this service
short_description: Archives of what a part of the service remembers
description:
  - C(created) makes one while the service runs, and removes the oldest sets beside it.
  - C(examined) opens it, compares everything in it with its manifest, and tells whether there is something newer.
  - C(restored) does the same and puts it back; databases that were there before stay beside it under another name.
  - C(listed) tells what the links of all archives in the clear below a folder led to.
options:
  state: {description: What to do., type: str, required: true, choices: [created, examined, restored, listed]}
  path:
    description: The archive, in a folder that is named by a time; for C(listed) what such folders are in.
    type: path
    required: true
  part: {description: "Its name, databases, files, links, mysql, newer, newer_mysql, secrets.", type: dict, default: {}}
  recipients: {description: The public keys of age that it is encrypted for., type: list, elements: str, default: []}
  identity: {description: The private key that opens it., type: str, default: ""}
  about: {description: What else its manifest tells., type: dict, default: {}}
  keep: {description: Sets that are kept beside it; 0 keeps all., type: int, default: 0}
  what: {description: "What is put back, see archive.put_back.", type: list, elements: str, default: []}
  keep_secrets: {description: Whether secrets keep the values that they have., type: bool, default: false}
  over_newer: {description: Whether to put it back also over what is newer., type: bool, default: false}
"""

ARGUMENTS = {
    "state": {"type": "str", "required": True, "choices": ["created", "examined", "restored", "listed"]},
    "path": {"type": "path", "required": True},
    "part": {"type": "dict", "default": {}},
    "recipients": {"type": "list", "elements": "str", "default": []},
    "identity": {"type": "str", "default": "", "no_log": True},
    "about": {"type": "dict", "default": {}},
    "keep": {"type": "int", "default": 0},
    "what": {"type": "list", "elements": "str", "default": []},
    "keep_secrets": {"type": "bool", "default": False, "no_log": False},
    "over_newer": {"type": "bool", "default": False},
}


def written_last(part: dict[str, Any]) -> float:
    """When the part's databases were last written to by people or their clusters."""
    times = [newest(Path(name), questions) for name, questions in part.get("newer", {}).items()]
    if part["mysql"] and part.get("newer_mysql"):
        times.append(newest_in_mysql(part["mysql"], **part["newer_mysql"]))
    return max(times, default=0)


def refuse_over_newer(manifest: dict[str, Any], last: float) -> None:
    """Refuse to lose what has happened since the archive was made."""
    if last > manifest["taken"]:
        raise ArchiveError(
            f"The {manifest['part']} has data of {shown(last)}, newer than the archive of {shown(manifest['taken'])}, "
            "and would lose it. If that is what you want, say -e restore_over_newer=true."
        )


def shown(seconds: float) -> str:
    """A time for people."""
    return time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(seconds))


def main() -> None:
    """Run as a module of Ansible."""
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    given = module.params
    path, part = Path(given["path"]), given["part"]
    try:
        if given["state"] == "listed":
            module.exit_json(changed=False, builds=builds_to_go_back_to(path))
        if given["state"] == "created":
            if module.check_mode:
                module.exit_json(changed=True, removed=prune(path.parent.parent, given["keep"], dry=True))
            manifest = create(path, part, given["recipients"], given["about"])
            removed = prune(path.parent.parent, given["keep"])
            module.exit_json(changed=True, manifest=manifest, removed=removed, bytes=path.stat().st_size)
        with opened(path, given["identity"]) as (work, manifest):
            if manifest["part"] != part["name"]:
                raise ArchiveError(f"{path} is of the part {manifest['part']} and not of {part['name']}")
            last = written_last(part)
            if not given["over_newer"]:
                refuse_over_newer(manifest, last)
            found = {
                "manifest": manifest, "newest": last, "same_builds": same_builds(manifest),
                "missing": missing_builds(manifest), "of_another_schema": of_another_schema(work, manifest),
            }  # fmt: skip
            done = []
            if given["state"] == "restored" and not module.check_mode:
                secrets = part["secrets"] if given["keep_secrets"] else ()
                done = put_back(work, manifest, given["what"], part.get("after", {}), secrets)
        module.exit_json(changed=given["state"] == "restored", restored=done, **found)
    except (ArchiveError, OSError, sqlite3.Error) as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
