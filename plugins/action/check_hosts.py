"""`check_hosts` judges what host_probe has observed on the hosts of a play, and fails with all findings at once."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

from ansible.plugins.action import ActionBase

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from preflight.reality import after_findings, before_findings, installed, with_nodes


class ActionModule(ActionBase):
    """Compare the hosts with each other and with what the inventory wants of them."""

    _requires_connection = False
    _VALID_ARGS = frozenset(("probes", "certificates", "service"))

    def run(self, tmp=None, task_vars=None):
        """Fail with everything that is wrong, or say what was found right."""
        result = super().run(tmp, task_vars)
        probes = self._task.args["probes"]
        found = before_findings(probes)
        service = self._task.args["service"]
        if service:
            found += after_findings(probes, self._task.args["certificates"])
        if found:
            things = "one thing" if len(found) == 1 else f"{len(found)} things"
            result.update(
                failed=True,
                msg=f"{things} to mend on the hosts, see findings",
                findings="\n".join(_item(sentence) for sentence in found),
            )
        else:
            said = f"{len(with_nodes(probes))} hosts are as they must be."
            if service and not installed(probes):
                said += " Nothing is installed yet: what only the service can answer was not asked."
            result["msg"] = said
            result["_ansible_verbose_always"] = True
        return result


def _item(sentence: str) -> str:
    return textwrap.fill(
        sentence, 110, initial_indent="- ", subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )
