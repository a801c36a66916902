"""A role's argument specs are its whole interface: nothing is missing there, and nothing is in vain."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from jinja2 import Environment, TemplateSyntaxError, nodes
from preflight.answers import FILES_HERE, FORMATS
from preflight.checks import SAME_EVERYWHERE
from preflight.inventory import SITE_VARIABLES
from preflight.roles import Project, Role

REPOSITORY = Path(__file__).parents[2]
PROJECT = Project(REPOSITORY, DataLoader())
SITE_OPTIONS = yaml.safe_load(SITE_VARIABLES.read_text())
TYPES = {"str", "path", "int", "float", "bool", "list", "dict", "raw"}
# Where Ansible takes a string for an expression without its braces
EXPRESSION_KEYS = {"when", "until", "failed_when", "changed_when", "that", "var"}
JINJA = Environment(extensions=["jinja2.ext.do", "jinja2.ext.loopcontrols"], autoescape=True)

every_role = pytest.mark.parametrize("role", PROJECT.roles.values(), ids=lambda role: role.name)


@every_role
def test_every_entry_point_is_a_file_of_tasks(role: Role):
    assert role.entry_points, "meta/argument_specs.yml declares no entry point"
    missing = [e for e in role.entry_points if not (role.path / "tasks" / f"{e}.yml").exists()]
    assert missing == []


@every_role
def test_every_option_has_a_type_and_a_description(role: Role):
    assert list(option_faults(role.options)) == []


@every_role
def test_every_option_begins_with_the_name_of_the_role(role: Role):
    strangers = [n for n in role.options if not n.startswith(f"{role.name}_") and n not in SITE_OPTIONS]
    assert strangers == [], "a role's variables begin with its name; what roles share is in site_variables.yml"


def test_the_users_guide_uses_no_site_variable_that_is_not_declared():
    guide = JINJA.parse((REPOSITORY / "docs/users.md.j2").read_text())
    used = {node.name for node in guide.find_all(nodes.Name) if node.name.startswith("site_")}
    assert "site_home_directory" in used
    assert used - set(SITE_OPTIONS) == set()


@every_role
def test_an_option_of_several_entry_points_is_the_same_in_each(role: Role):
    different = [
        f"{name} of {entry_point}"
        for entry_point, options in role.entry_points.items()
        for name, option in options.items()
        if option != role.options[name]
    ]
    assert different == []


@every_role
def test_defaults_and_argument_specs_say_the_same(role: Role):
    declared = {name: option["default"] for name, option in role.options.items() if "default" in option}
    # A long default may stand in defaults/main.yml only
    undeclared = {name: role.defaults[name] for name in role.options if name in role.defaults and name not in declared}
    assert role.defaults == declared | undeclared


@every_role
def test_an_option_is_required_or_has_a_default(role: Role):
    undecided = [
        name
        for name, option in role.options.items()
        if bool(option.get("required")) == (name in role.defaults) and name not in SITE_OPTIONS
    ]
    assert undecided == []


@every_role
def test_every_variable_of_the_role_that_is_used_is_declared(role: Role):
    used = {name for name in names_used_by(role) if name.startswith(f"{role.name}_")}
    assert sorted(used - set(role.options)) == [], "declare it, or begin its name with _ where it is private"


@every_role
def test_every_declared_variable_is_used(role: Role):
    text = "\n".join(path.read_text() for path in sources_of(role))
    unused = [name for name in role.options if not re.search(rf"(?<![\w.]){name}\b(?!\s*:)", text)]
    assert unused == []


@every_role
def test_a_role_uses_no_variables_of_others_but_those_of_the_site(role: Role):
    known = set(SITE_OPTIONS) | set(role.options)
    prefixes = tuple(f"{name}_" for name in ("site", *PROJECT.roles) if name != role.name)
    foreign = {name for name in names_used_by(role) if name.startswith(prefixes)}
    assert sorted(foreign - known) == [], "let the play hand it in as a variable of this role"


def test_the_variables_of_the_site_have_types_and_descriptions():
    assert list(option_faults(SITE_OPTIONS)) == []


def test_what_preflight_knows_of_variables_is_declared_by_a_role():
    declared = {name for role in PROJECT.roles.values() for name in role.options} | set(SITE_OPTIONS)
    assert (set(FORMATS) | FILES_HERE | SAME_EVERYWHERE) - declared == set()


def option_faults(options: dict[str, Any], place: str = "") -> Iterator[str]:
    """What an option's declaration lacks, nested ones included."""
    for name, option in options.items():
        described = option.get("description", "")
        sentences = described if isinstance(described, list) else [described]
        if option.get("type") not in TYPES:
            yield f"{place}{name}: no type, or none of {sorted(TYPES)}"
        if option.get("type") == "list" and option.get("elements") not in TYPES:
            yield f"{place}{name}: no type of its elements"
        if not all(sentence.strip().endswith(".") for sentence in sentences):
            yield f"{place}{name}: no description, or one without a full stop"
        if not sentences[0][:1].strip() or sentences[0][0].islower():
            yield f"{place}{name}: a description begins with a capital letter"
        yield from option_faults(option.get("options") or {}, f"{place}{name}.")


def sources_of(role: Role) -> list[Path]:
    """The files in which a role uses variables."""
    folders = [role.path / folder for folder in ("tasks", "handlers", "templates", "vars", "defaults")]
    return sorted(path for folder in folders for path in folder.rglob("*") if path.is_file())


@cache
def names_used_by(role: Role) -> set[str]:
    """Each name that an expression of the role reads."""
    names: set[str] = set()
    for path in sources_of(role):
        if "templates" in path.relative_to(role.path).parts:
            names |= names_in_template(path.read_text(), path)
        else:
            for text, is_expression in strings_of(yaml.safe_load(path.read_text())):
                names |= names_in_template(f"{{{{ {text} }}}}" if is_expression else text, path)
    return names


def names_in_template(text: str, path: Path) -> set[str]:
    """The names that are read in a template, unless the template itself sets them."""
    try:
        tree = JINJA.parse(text)
    except TemplateSyntaxError as error:
        pytest.fail(f"{path}: {error} in {text!r}")
    found = list(tree.find_all(nodes.Name))
    return {n.name for n in found if n.ctx == "load"} - {n.name for n in found if n.ctx != "load"}


def strings_of(data: Any, key: str = "") -> Iterator[tuple[str, bool]]:
    """Each string of a YAML file, and whether Ansible takes it for an expression."""
    if isinstance(data, dict):
        for name, part in data.items():
            yield from strings_of(part, str(name))
    elif isinstance(data, list):
        for part in data:
            yield from strings_of(part, key)
    elif isinstance(data, str):
        yield data, key in EXPRESSION_KEYS and "{{" not in data
