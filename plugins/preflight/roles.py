"""What the roles ask for (their argument specs and defaults), and which hosts get which role."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ansible.parsing.dataloader import DataLoader

ROLE_ACTIONS = {
    f"{prefix}{action}"
    for prefix in ("", "ansible.builtin.", "ansible.legacy.")
    for action in ("import_role", "include_role")
}
PLAYBOOK_ACTIONS = {"import_playbook", "ansible.builtin.import_playbook"}


class Role:
    """A role's folder, as far as it says which variables the role has."""

    def __init__(self, path: Path, loader: DataLoader) -> None:
        self.path = path
        self.name = path.name
        self._loader = loader

    @cached_property
    def defaults(self) -> dict[str, Any]:
        """What defaults/main.yml says."""
        return self._read("defaults/main.yml")

    @cached_property
    def variables(self) -> dict[str, Any]:
        """What vars/main.yml says."""
        return self._read("vars/main.yml")

    @cached_property
    def entry_points(self) -> dict[str, dict[str, Any]]:
        """Each entry point's options."""
        specs = self._read("meta/argument_specs.yml").get("argument_specs") or {}
        return {name: spec.get("options") or {} for name, spec in specs.items()}

    @cached_property
    def options(self) -> dict[str, Any]:
        """The options of all entry points."""
        return {k: v for options in self.entry_points.values() for k, v in options.items()}

    def _read(self, file: str) -> dict[str, Any]:
        path = self.path / file
        return load_yaml(path, self._loader) or {} if path.exists() else {}


@dataclass(eq=False)
class RoleUse:
    """One place in a play where hosts get a role."""

    role: Role
    entry_point: str
    hosts: list[str]
    groups: list[str]
    # What the play says for its hosts, what the task says for the role
    play_variables: dict[str, Any] = field(default_factory=dict)
    task_variables: dict[str, Any] = field(default_factory=dict)
    conditions: list[Any] = field(default_factory=list)
    # Roles share their defaults with the other roles of their play
    play_roles: list[Role] = field(default_factory=list)

    @property
    def options(self) -> dict[str, Any]:
        """What this use of the role can be told."""
        return self.role.entry_points.get(self.entry_point, {})


class Project:
    """The folder with site.yml: its roles, and what its playbooks do with which hosts."""

    def __init__(self, folder: Path, loader: DataLoader) -> None:
        self.folder = folder
        self._loader = loader

    @cached_property
    def roles(self) -> dict[str, Role]:
        """All roles by name."""
        paths = sorted(path for path in (self.folder / "roles").glob("*") if path.is_dir())
        return {path.name: Role(path, self._loader) for path in paths}

    @cached_property
    def options(self) -> dict[str, Any]:
        """The options of all roles."""
        return {name: option for role in self.roles.values() for name, option in role.options.items()}

    def role_of(self, name: str) -> str:
        """The role that a variable's name begins with, or nothing."""
        return max((role for role in self.roles if name.startswith(f"{role}_")), key=len, default="")

    @cached_property
    def plays(self) -> list[dict[str, Any]]:
        """All plays of site.yml, in order."""
        return self._plays(self.folder / "site.yml")

    def role_uses(self, groups: dict[str, list[str]]) -> list[RoleUse]:
        """Every use of a role in these groups of hosts."""
        uses = []
        for play in self.plays:
            names = pattern_groups(play["hosts"])
            in_play = [self._role_use(*reference) for reference in _role_references(play)]
            for use in in_play:
                use.groups = [name for name in names if groups.get(name)]
                use.hosts = pattern_hosts(play["hosts"], groups)
                use.play_variables = play.get("vars") or {}
                use.play_roles = [other.role for other in in_play]
            uses += in_play
        return uses

    def groups(self) -> list[str]:
        """The names of the groups that plays work on, in the order they come up."""
        names = [name for play in self.plays for name in pattern_groups(play["hosts"])]
        return [name for name in dict.fromkeys(names) if name not in ("all", "localhost")]

    def _role_use(self, arguments: dict[str, Any], task: dict[str, Any]) -> RoleUse:
        name = arguments.get("name") or arguments["role"]
        return RoleUse(
            role=self.roles[name],
            entry_point=Path(arguments.get("tasks_from", "main")).stem,
            hosts=[],
            groups=[],
            task_variables=task.get("vars") or {},
            conditions=_conditions(task),
        )

    def _plays(self, playbook: Path) -> list[dict[str, Any]]:
        plays = []
        for play in load_yaml(playbook, self._loader) or []:
            imported = [play[action] for action in PLAYBOOK_ACTIONS if action in play]
            if imported:
                plays += self._plays(playbook.parent / imported[0])
            else:
                plays.append(play)
        return plays


def load_yaml(path: Path, loader: DataLoader) -> Any:
    """Read a file of the project, whose templates are trusted as Ansible trusts them."""
    return loader.load_from_file(str(path), trusted_as_template=True)


def pattern_groups(pattern: str | list[str]) -> list[str]:
    """The groups that a play's pattern adds, without those that it takes away."""
    return [part for part in _pattern_parts(pattern) if part[0] not in "!&"]


def pattern_hosts(pattern: str | list[str], groups: dict[str, list[str]]) -> list[str]:
    """The hosts of a play, for the patterns that the playbooks use: groups, `!` and `&`."""
    hosts = [host for name in pattern_groups(pattern) for host in groups.get(name, [])]
    for part in _pattern_parts(pattern):
        others = groups.get(part[1:], [])
        if part.startswith("!"):
            hosts = [host for host in hosts if host not in others]
        elif part.startswith("&"):
            hosts = [host for host in hosts if host in others]
    return list(dict.fromkeys(hosts))


def _pattern_parts(pattern: str | list[str]) -> list[str]:
    parts = pattern if isinstance(pattern, list) else pattern.replace(",", ":").split(":")
    return [part.strip() for part in parts]


def _role_references(play: dict[str, Any]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Each role of a play as its arguments and the task, or entry of `roles`, that names it."""
    references = []
    for entry in play.get("roles") or []:
        mapping = {"name": entry} if isinstance(entry, str) else entry
        references.append((mapping, mapping))
    for section in ("pre_tasks", "tasks", "post_tasks"):
        for task in _flat(play.get(section) or []):
            references += [(task[action], task) for action in ROLE_ACTIONS if action in task]
    return references


def _flat(tasks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Tasks with those of their blocks, which hand their variables and conditions down."""
    flat = []
    for task in tasks:
        children = [child for key in ("block", "rescue", "always") for child in task.get(key) or []]
        for child in children:
            inherited = {"vars": (task.get("vars") or {}) | (child.get("vars") or {})}
            inherited["when"] = _conditions(task) + _conditions(child)
            flat += _flat([child | inherited])
        if not children:
            flat.append(task)
    return flat


def _conditions(task: dict[str, Any]) -> list[Any]:
    conditions = task.get("when", [])
    return conditions if isinstance(conditions, list) else [conditions]
