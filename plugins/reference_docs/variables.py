"""docs/variables.md: every variable of every role, from the argument specs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import yaml
from preflight.inventory import SITE_VARIABLES
from preflight.options import description
from preflight.roles import Project

HEAD = """# All variables

Made by `script/docs` from the roles' `meta/argument_specs.yml` and `plugins/preflight/site_variables.yml`; a test
compares. Where they are written, and what an inventory must say, is in the [operator's guide](operators.md) and in
[inventories/common](../inventories/common/README.md). A variable without a default is **required**.
"""


def page(project: Project) -> str:
    """The whole page."""
    sections = [HEAD, "## The site", ""]
    sections += _table(yaml.safe_load(SITE_VARIABLES.read_text()), {})
    for role in project.roles.values():
        options = {name: option for name, option in role.options.items() if not name.startswith("site_")}
        if options:
            sections += ["", f"## {role.name}", ""]
            sections += _table(options, role.defaults)
    return "\n".join(sections) + "\n"


def _table(options: dict[str, Any], defaults: dict[str, Any]) -> Iterator[str]:
    yield "| variable | type | default | what it is |"
    yield "|---|---|---|---|"
    for name, option in _flat(options):
        default = option.get("default", defaults.get(name))
        known = "default" in option or name in defaults
        shown = _code(default) if known else "**required**" if option.get("required") else "—"
        yield f"| {_indented(name)} | {_type(option)} | {shown} | {_cell(description(option))} |"


def _flat(options: dict[str, Any], place: str = "") -> Iterator[tuple[str, Any]]:
    """Each option, and after it those of its items."""
    for name, option in options.items():
        yield f"{place}{name}", option
        below = "[]" if option.get("type") == "list" else ""
        yield from _flat(option.get("options") or {}, f"{place}{name}{below}.")


def _indented(name: str) -> str:
    *parents, last = name.split(".")
    return f"`{name}`" if not parents else f"{'&ensp;' * len(parents)}`.{last}`"


def _type(option: dict[str, Any]) -> str:
    kind = option.get("type", "str")
    kind = f"list of {option.get('elements', 'raw')}" if kind == "list" else kind
    choices = option.get("choices")
    return f"{kind}: {', '.join(f'`{choice}`' for choice in choices)}" if choices else kind


def _code(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    if len(text) > 60:
        return "see the role's `defaults/main.yml`"
    return f"`{_cell(text)}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
