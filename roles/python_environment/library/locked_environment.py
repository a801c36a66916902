#!/usr/bin/python3
"""Build a Python environment from a lock, into a folder that counts only when it is complete."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.environment_build import BuildError, Commands, advice, build_once
from ansible.module_utils.environment_conda import CondaProvider
from ansible.module_utils.environment_pip import PipProvider

DOCUMENTATION = """
module: locked_environment
author: The maintainers of this service
short_description: Build a Python environment from a lock
description:
  - Does nothing when the folder is complete. Removes what an interrupted build left in it, and the folder when the
    build fails.
  - Installs the tools of the provider, from locks of their own, where that version is not there yet.
options:
  provider: {description: How the environment is made., type: str, required: true, choices: [pip, conda]}
  folder: {description: The environment., type: path, required: true}
  marker: {description: The file in the folder whose presence says that it is complete., type: str, required: true}
  prompt: {description: The environment's name in a shell's prompt., type: str, required: true}
  lock: {description: The text of the lock., type: str, required: true}
  wheels: {description: Folder of wheels to install over the lock; removed afterwards., type: path, required: true}
  uv: {description: "Where uv is installed, path (a link) and the text of its lock.", type: dict, required: true}
  rattler: {description: The same for py-rattler., type: dict, required: true}
  python: {description: The Python that a pip environment is made with., type: path, required: true}
  system_python: {description: A Python that has the module venv., type: path, required: true}
  imports: {description: Modules that must import., type: list, elements: str, default: []}
  checks: {description: Calls of the environment's Python that must exit 0., type: list, elements: list, default: []}
  index_url: {description: The registry's simple index., type: str, default: ""}
  find_links: {description: A folder or page of further wheels., type: str, default: ""}
  no_index: {description: Whether that folder is all there is., type: bool, default: false}
  ca_bundle: {description: The certificate authorities to trust., type: path, required: true}
  cache: {description: A folder for downloads., type: path, required: true}
"""

PROVIDERS = {"pip": PipProvider, "conda": CondaProvider}
TOOL = {"type": "dict", "required": True, "options": {"path": {"type": "path"}, "lock": {"type": "str"}}}

ARGUMENTS = {
    "provider": {"type": "str", "required": True, "choices": list(PROVIDERS)},
    "folder": {"type": "path", "required": True},
    "marker": {"type": "str", "required": True},
    "prompt": {"type": "str", "required": True},
    "lock": {"type": "str", "required": True},
    "wheels": {"type": "path", "required": True},
    "uv": TOOL,
    "rattler": TOOL,
    "python": {"type": "path", "required": True},
    "system_python": {"type": "path", "required": True},
    "imports": {"type": "list", "elements": "str", "default": []},
    "checks": {"type": "list", "elements": "list", "default": []},
    "index_url": {"type": "str", "default": ""},
    "find_links": {"type": "str", "default": ""},
    "no_index": {"type": "bool", "default": False},
    "ca_bundle": {"type": "path", "required": True},
    "cache": {"type": "path", "required": True},
}

IMPORT_ALL = """
import importlib, sys
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
    except Exception as error:
        sys.exit(f"{name}: {type(error).__name__}: {error}")
"""


class Builder:
    """One call of the module."""

    def __init__(self, arguments: dict):
        self.arguments = arguments
        self.commands = Commands(arguments)
        self.provider = PROVIDERS[arguments["provider"]](self.commands)

    def build(self) -> bool:
        """Make the tools and the environment; True when something was built."""
        self.provider.check()
        built = [self.commands.tool(name) for name in self.provider.tools]
        built.append(build_once(Path(self.arguments["folder"]), self.arguments["marker"], self.build_environment))
        return any(built)

    def build_environment(self, folder: Path, lock: int) -> None:
        """Let the provider make it, add this repository's own wheels, and see that it works."""
        run, verify, python = self.commands.run, self.commands.verify, folder / "bin/python"
        uv_pip = [Path(self.arguments["uv"]["path"]) / "bin/uv", "pip"]
        self.provider.make(folder, lock)
        wheels = sorted(Path(self.arguments["wheels"]).glob("*.whl"))
        if wheels:
            install = ["install", "--quiet", "--python", python, "--compile-bytecode", "--offline", "--no-deps"]
            run(*uv_pip, *install, *wheels, failure="The wheels of this repository could not be installed", lock=lock)

        check = [*uv_pip, "check", "--python", python]
        run(*check, failure="The packages of the lock do not fit together", lock=lock)
        imports = [python, "-I", "-c", IMPORT_ALL, *self.arguments["imports"]]
        verify(*imports, failure="A module that the environment is for can't be imported", lock=lock)
        for arguments in self.arguments["checks"]:
            verify(python, *arguments, failure=f"The check '{' '.join(arguments)}' failed", lock=lock)
        shutil.rmtree(self.arguments["wheels"], ignore_errors=True)


def sentence(error: Exception) -> str:
    """Say what has failed, and what to do where that is known."""
    said = str(error)
    return said if isinstance(error, BuildError) else f"{said}{advice(said)}"


def main() -> None:
    """Run as a module of Ansible."""
    module = AnsibleModule(argument_spec=ARGUMENTS)
    os.umask(0o022)
    try:
        changed = Builder(module.params).build()
    except (BuildError, OSError) as error:
        module.fail_json(msg=sentence(error))
    module.exit_json(changed=changed)


if __name__ == "__main__":
    sys.exit(main())
