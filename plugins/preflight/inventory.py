"""An inventory as the playbooks would meet it, and the file that each variable belongs in."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from ansible.parsing.dataloader import DataLoader

from preflight.findings import Finding
from preflight.roles import Project, RoleUse, load_yaml
from preflight.values import Variables

SITE_VARIABLES = Path(__file__).with_name("site_variables.yml")


class Inventory:
    """Hosts, groups and variables, seen through the roles that the hosts would get."""

    def __init__(
        self,
        project: Project,
        loader: DataLoader,
        hostvars: Any,
        groups: Mapping[str, list[str]],
        sources: list[str],
    ) -> None:
        self.project = project
        self.groups = {name: list(hosts) for name, hosts in groups.items()}
        self._loader = loader
        self._hostvars = hostvars
        source = Path(next(iter(sources), ".")).resolve()
        self.folder = source if source.is_dir() else source.parent

    @cached_property
    def uses(self) -> list[RoleUse]:
        """Every use of a role that has hosts."""
        return [use for use in self.project.role_uses(self.groups) if use.hosts]

    @cached_property
    def hosts(self) -> list[str]:
        """The hosts that the playbooks work on."""
        return list(dict.fromkeys(host for use in self.uses for host in use.hosts))

    @cached_property
    def site_options(self) -> dict[str, Any]:
        """What every inventory says about its site, in the form of a role's options."""
        return load_yaml(SITE_VARIABLES, self._loader)

    @cached_property
    def written(self) -> dict[str, dict[str, Any]]:
        """What the inventory and the command line say for each host, templates unresolved."""
        return {host: self._hostvars.raw_get(host) for host in self.hosts}

    @cached_property
    def variables(self) -> dict[str, Variables]:
        """Each host's variables as a play without roles sees them."""
        return {
            host: Variables(self._loader, {**written, "hostvars": self._hostvars})
            for host, written in self.written.items()
        }

    @cached_property
    def settings(self) -> list[tuple[RoleUse, str, Variables]]:
        """Each host's variables as each role that it gets sees them."""
        of_all = ((use, host, self._merged(use, host)) for use in self.uses for host in use.hosts)
        return [
            (use, host, variables)
            for use, host, variables in of_all
            if all(variables.holds(condition) for condition in use.conditions)
        ]

    def as_role(self, role: str, entry_point: str = "") -> list[Variables]:
        """The variables of each host that gets a role, as the role sees them."""
        return [
            variables
            for use, _, variables in self.settings
            if use.role.name == role and entry_point in ("", use.entry_point)
        ]

    def group(self, name: str) -> list[str]:
        """The hosts of a group, of one that does not exist as well."""
        return self.groups.get(name, [])

    @property
    def hosts_file(self) -> Path:
        """The file with the hosts and groups."""
        return self.folder / "hosts.yml"

    def finding(self, variables: Variables, name: str, sentence: str, place: str = "") -> Finding:
        """A finding about a value, in the file where it, or what it stands for, was written."""
        culprit = variables.culprit(name)
        origin = variables.origin(culprit)
        if origin and origin[0].is_relative_to(self.folder):
            return Finding(origin[0], f"{culprit}{place}", sentence, line=origin[1])
        file = self.file_for(culprit, self.project.role_of(culprit))
        return Finding(file, f"{culprit}{place}", sentence)

    def file_for(self, name: str, role: str = "", hosts: list[str] | None = None) -> Path:
        """The file that holds a variable by the rule of this repository's inventories.

        Secrets lie in the vault, what all share in site.yml, a role's variables in the file of the
        one group that gets the role, or in one of the role's name for all groups. Where a group has a
        folder, its files carry the roles' names too.
        """
        folder = self.folder / "group_vars"
        if name.startswith("vault_"):
            return folder / "all" / "vault.yml"
        if name.startswith("site_") or not role:
            return folder / "all" / "site.yml"
        groups = {
            group
            for use in self.uses
            if use.role.name == role
            for group in use.groups
            if hosts is None or set(hosts) & set(self.group(group))
        }
        if len(groups) != 1:
            return folder / "all" / f"{role}.yml"
        group = groups.pop()
        return folder / group / f"{role}.yml" if (folder / group).is_dir() else folder / f"{group}.yml"

    def _merged(self, use: RoleUse, host: str) -> Variables:
        merged: dict[str, Any] = {}
        for role in (*use.play_roles, use.role):
            merged |= role.defaults
        merged |= self.written[host]
        merged |= use.play_variables | use.role.variables | use.task_variables
        context = {"role_path": str(use.role.path), "role_name": use.role.name}
        return Variables(self._loader, merged | context | {"hostvars": self._hostvars})
