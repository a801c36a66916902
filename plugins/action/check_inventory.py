"""`check_inventory` names everything that is missing or contradictory in the inventory.

It asks no host, changes nothing, and fails with all findings at once.
"""

from __future__ import annotations

import sys
from pathlib import Path

from ansible.plugins.action import ActionBase

# Ansible loads a plugin by its file: the package that it is made of has to be shown to Python
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from preflight.checks import all_findings
from preflight.findings import report
from preflight.inventory import Inventory
from preflight.roles import Project


class ActionModule(ActionBase):
    """Check the inventory of this run against the roles and playbooks of this repository."""

    _requires_connection = False

    def run(self, tmp=None, task_vars=None):
        """Fail with everything that is wrong, or say what was found right."""
        result = super().run(tmp, task_vars)
        project = Project(Path(__file__).resolve().parents[2], self._loader)
        inventory = Inventory(
            project,
            self._loader,
            task_vars["hostvars"],
            task_vars["groups"],
            task_vars["ansible_inventory_sources"],
        )
        found = all_findings(inventory, task_vars["ansible_version"]["full"])
        if found:
            things = "one thing" if len(found) == 1 else f"{len(found)} things"
            # Ansible prints msg twice, and everything else once
            result.update(
                failed=True,
                msg=f"{things} to mend before any host is touched, see findings",
                findings=report(found, Path.cwd()),
            )
        else:
            hosts = len(inventory.hosts)
            result["msg"] = f"The inventory is complete: {hosts} hosts, which must run Debian 12 (bookworm)."
            result["_ansible_verbose_always"] = True
        return result
