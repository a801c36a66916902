"""`script/docs`: write the pages, or with --check say which of them are stale."""

from __future__ import annotations

import sys
from pathlib import Path

import yaml
from ansible.parsing.dataloader import DataLoader
from preflight.roles import Project

from reference_docs import ports, variables

REPOSITORY = Path(__file__).resolve().parents[2]


def pages() -> dict[Path, str]:
    """The text that each page must have."""
    table = yaml.safe_load((REPOSITORY / "roles/firewall/vars/main.yml").read_text())["_firewall_ports"]
    return {
        REPOSITORY / "docs/variables.md": variables.page(Project(REPOSITORY, DataLoader())),
        REPOSITORY / "docs/ports.md": ports.page(table),
    }


def stale() -> list[Path]:
    """The pages that say something else than the roles."""
    return [path for path, text in pages().items() if not path.exists() or path.read_text() != text]


if __name__ == "__main__":
    found = stale()
    if "--check" in sys.argv[1:]:
        for path in found:
            print(f"{path.relative_to(REPOSITORY)} is stale: run script/docs")
        sys.exit(bool(found))
    for path in found:
        path.write_text(pages()[path])
        print(f"{path.relative_to(REPOSITORY)}: written")
