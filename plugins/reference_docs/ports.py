"""docs/ports.md: what listens where, from the table that the firewall's rules are made of."""

from __future__ import annotations

from typing import Any

HEAD = """# Ports

Made by `script/docs` from `roles/firewall/vars/main.yml`. The rules of nftables are made of it too, and a test compares
it with `ss` on every host. Everything is TCP. *Ephemeral* is a port that the kernel chooses (32768-60999).

| who connects | is |
|---|---|
| everybody | users' browsers and programs |
| service | the Hub's and the gateway's hosts |
| batch | the controller, the nodes, and the hosts that submit jobs |
| operators | people and Ansible, by ssh |

A site with a firewall of its own takes its rules from here. With `firewall_enabled: true` the role `firewall` writes
them for nftables: what the table says of a host's groups is let in, from `firewall_<who>_networks`, and nothing else;
what else the site has on these hosts is let in by `firewall_more_rules`. What a host connects *to* is not limited.

| hosts | port | listens on | unit | who connects | what |
|---|---|---|---|---|---|
"""


def page(ports: list[dict[str, Any]]) -> str:
    """The whole page."""
    return HEAD + "".join(_row(row) for row in ports)


def _row(row: dict[str, Any]) -> str:
    units = row["unit"].replace(".*", "…").replace("|", ", ")
    callers = ", ".join(row.get("from", [])) or "the host itself"
    cells = [", ".join(row["groups"]), row["port"], row["address"], units, callers, row["what"]]
    return f"| {' | '.join(str(cell) for cell in cells)} |\n"
