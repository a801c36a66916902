"""Which secrets an inventory uses: every vault_ name in it, with the role's variable that it is for."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from preflight.answers import strings

from secret_vault.kinds import KINDS, Kind, kind_of

VAULT = "group_vars/all/vault.yml"
NAME = re.compile(r"\bvault_\w+")


@dataclass(frozen=True)
class Secret:
    """One secret of an inventory."""

    name: str
    # The role's variable that it is for
    option: str
    kind: Kind


def used_secrets(inventory: Path) -> list[Secret]:
    """The secrets that an inventory uses and that no other file of it defines, such as by a lookup."""
    loader = DataLoader()
    own = bool(InventoryManager(loader, sources=[str(inventory)]).get_groups_dict().get("slurm_controller"))
    options: dict[str, str] = {}
    defined = set()
    for path in _files(inventory):
        variables = loader.load_from_file(str(path)) or {}
        for option, raw in variables.items():
            defined.add(option)
            for name in _names_in(raw):
                namesake = name.removeprefix("vault_")
                options.setdefault(name, namesake if namesake in KINDS else option)
    return [
        Secret(name, option, kind_of(option, own)) for name, option in sorted(options.items()) if name not in defined
    ]


def _names_in(raw: Any) -> Iterator[str]:
    for text in strings(raw):
        if "{{" in text:
            yield from NAME.findall(text)


def _files(inventory: Path) -> Iterator[Path]:
    for folder in ("group_vars", "host_vars"):
        # What all inventories share is reached by links
        for parent, _, names in os.walk(inventory / folder, followlinks=True):
            for name in sorted(names):
                path = Path(parent) / name
                if path.suffix in (".yml", ".yaml") and path != inventory / VAULT:
                    yield path
