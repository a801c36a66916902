#!/usr/bin/python3
"""Add accounts, their users, QoS and operators to SLURM's accounting, or set what is different there."""

from __future__ import annotations

import pwd
import re
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = """
module: slurm_accounting
author: The maintainers of this service
short_description: Set accounts, users, QoS and operators in SLURM's accounting
description:
  - Compares what slurmdbd has with what is asked for, through sacctmgr, and adds or modifies only what is different.
  - Removes nothing, so whatever else a site has added stays.
  - Leaves out, with a warning, users whom this host does not know. slurmctld would look again for their numbers
    only after an hour, and give them no default account before its next start (22.05).
options:
  cluster: {description: The cluster's name., type: str, required: true}
  accounts: {description: As the role's variable slurm_accounts., type: list, elements: dict, default: []}
  qos: {description: As the role's variable slurm_qos., type: list, elements: dict, default: []}
  operators: {description: Users who are at least operators., type: list, elements: str, default: []}
"""

ARGUMENTS = {
    "cluster": {"type": "str", "required": True},
    "accounts": {"type": "list", "elements": "dict", "default": []},
    "qos": {"type": "list", "elements": "dict", "default": []},
    "operators": {"type": "list", "elements": "str", "default": []},
}

Row = dict[str, str]
Command = list[str]

# Where `sacctmgr show` calls a field otherwise than `sacctmgr modify … set` does
SHOWN_AS = {"qoslevel": "qos", "defaultwckey": "defwckey"}
# A user who only looks after others' jobs belongs to an account nevertheless, sacctmgr asks for one.
OPERATORS_ACCOUNT = "root"


class RefusedError(Exception):
    """What sacctmgr answered when it did not do what it was asked."""


class Accounting:
    """What slurmdbd has, read and changed through sacctmgr."""

    def __init__(self, cluster: str) -> None:
        self.cluster = cluster

    def run(self, command: Command) -> str:
        """Run sacctmgr; it speaks on both streams, and exits 1 as well where there was nothing to do."""
        done = subprocess.run(["/usr/bin/env", "sacctmgr", *command], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RefusedError(f"sacctmgr {' '.join(command)}: {' '.join((done.stdout + done.stderr).split())}")
        return done.stdout

    def show(self, what: str, fields: Iterable[str], *conditions: str) -> list[Row]:
        """Read all entities of a kind; what may contain a bar comes last."""
        names = list(dict.fromkeys(field.lower() for field in fields))
        answer = self.run(["--noheader", "--parsable2", "show", what, *conditions, f"format={','.join(names)}"])
        return [dict(zip(names, line.split("|", len(names) - 1), strict=True)) for line in answer.splitlines() if line]

    def changes(self, accounts: list[dict[str, Any]], qos: list[dict[str, Any]], operators: list[str]) -> list[Command]:
        """The commands that make of what there is what is asked for."""
        shown_qos = self.show("qos", ["name", *limit_fields(qos), "description"])
        shown_accounts = self.show("account", ["account", "coordinators", "organization", "description"], "withcoord")
        shown_users = self.show("user", ["user", "adminlevel"])
        associations = self.show(
            "associations",
            ["account", "user", "partition", "parentname", *limit_fields(accounts)],
            f"cluster={self.cluster}",
        )
        members = [row for row in associations if row["user"] and not row["partition"]]
        return [
            *qos_changes(qos, {row["name"]: row for row in shown_qos}),
            *account_changes(
                accounts,
                {row["account"]: row for row in shown_accounts},
                {row["account"]: row for row in associations if not row["user"]},
                {(row["account"], row["user"]) for row in members},
                self.cluster,
            ),
            *operator_changes(
                operators,
                {row["user"]: row["adminlevel"] for row in shown_users},
                {user for account in accounts for user in account["users"]},
                self.cluster,
            ),
        ]


def qos_changes(wanted: list[dict[str, Any]], shown: Mapping[str, Row]) -> Iterator[Command]:
    """Add the QoS that are missing, and set what is different."""
    for qos in wanted:
        name = qos["name"].lower()
        if name not in shown:
            yield ["add", "qos", name, *settings(qos, "description")]
        elif different := differences(qos, shown[name], "description"):
            yield ["modify", "qos", name, "set", *different]


def account_changes(
    wanted: list[dict[str, Any]],
    accounts: Mapping[str, Row],
    associations: Mapping[str, Row],
    members: set[tuple[str, str]],
    cluster: str,
) -> Iterator[Command]:
    """Add the accounts, users and coordinators that are missing, and set what is different."""
    for account in wanted:
        name = account["name"].lower()
        if name not in associations:
            # An account of another cluster is given to this one by the same command.
            about = settings(account, "description", "organization", "parent")
            yield ["add", "account", name, f"cluster={cluster}", *about]
        else:
            if different := differences(account | {"limits": {}}, accounts[name], "description", "organization"):
                yield ["modify", "account", name, "set", *different]
            shown = associations[name] | {"parent": associations[name]["parentname"]}
            if different := differences(account, shown, "parent"):
                yield ["modify", "account", "where", f"name={name}", f"cluster={cluster}", "set", *different]

        if missing := [user for user in account["users"] if (name, user) not in members]:
            yield ["add", "user", f"name={','.join(missing)}", f"account={name}", f"cluster={cluster}"]

        present = accounts.get(name, {}).get("coordinators", "").split(",")
        if missing := [user for user in account["coordinators"] if user not in present]:
            yield ["add", "coordinator", f"account={name}", f"names={','.join(missing)}"]


def operator_changes(wanted: list[str], levels: Mapping[str, str], users: set[str], cluster: str) -> Iterator[Command]:
    """Raise users to operators; add those that are no users, such that they can submit no job."""
    for user in wanted:
        if user not in levels and user not in users:
            yield [
                *("add", "user", f"name={user}", f"account={OPERATORS_ACCOUNT}", f"cluster={cluster}"),
                *("adminlevel=Operator", "maxsubmitjobs=0"),
            ]
        elif levels.get(user, "None") == "None":
            yield ["modify", "user", "where", f"name={user}", "set", "adminlevel=Operator"]


def of_known_users(wanted: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """What is asked for of users whom this host knows, and the names of the others."""
    strangers: list[str] = []

    def known(users: list[str] | None) -> list[str]:
        unknown = [user for user in users or [] if not is_known(user)]
        strangers.extend(user for user in unknown if user not in strangers)
        return [user for user in users or [] if user not in unknown]

    accounts = [
        account | {"users": known(account.get("users")), "coordinators": known(account.get("coordinators"))}
        for account in wanted["accounts"]
    ]
    return {"accounts": accounts, "qos": wanted["qos"], "operators": known(wanted["operators"])}, strangers


def is_known(user: str) -> bool:
    """Whether the system knows a user, from whatever source."""
    try:
        pwd.getpwnam(user)
    except KeyError:
        return False
    return True


def limit_fields(entities: list[dict[str, Any]]) -> list[str]:
    """The fields of `sacctmgr show` that tell the limits of all these entities."""
    return sorted({shown_as(key) for entity in entities for key in entity.get("limits") or {}})


def shown_as(key: str) -> str:
    """A setting's name in `sacctmgr show`."""
    return SHOWN_AS.get(key.lower(), key.lower())


def values_of(entity: Mapping[str, Any], *attributes: str) -> dict[str, str]:
    """What was written about an entity: the named attributes and all its limits."""
    written = {name: entity.get(name) for name in attributes} | dict(entity.get("limits") or {})
    return {key: str(value) for key, value in written.items() if value is not None}


def settings(entity: Mapping[str, Any], *attributes: str) -> Command:
    """All that was written about an entity, as words for sacctmgr."""
    return [f"{key}={value}" for key, value in values_of(entity, *attributes).items()]


def differences(entity: Mapping[str, Any], shown: Row, *attributes: str) -> Command:
    """What was written about an entity and is not so, as words for sacctmgr."""
    return [
        f"{key}={value}"
        for key, value in values_of(entity, *attributes).items()
        if not same(value, shown[shown_as(key)])
    ]


def same(written: str, shown: str) -> bool:
    """Whether two values mean the same, however they are spelt."""
    if is_time(written) or is_time(shown):
        return seconds(written) == seconds(shown)
    return words(written) == words(shown)


def words(value: str) -> set[str]:
    """The parts of a list of names, flags or resources; without limit is -1 when written and nothing when shown."""
    parts = {in_megabytes(part.strip().casefold()) for part in value.split(",")}
    return {part for part in parts if part not in ("", "-1") and not part.endswith("=-1")}


def in_megabytes(part: str) -> str:
    """`mem=2G` as `mem=2048`, and everything else as it is."""
    match = re.fullmatch(r"(.*\bmem=)([0-9.]+)([mgtp]?)b?", part)
    if not match:
        return part
    return f"{match[1]}{float(match[2]) * 1024 ** ' mgtp'.index(match[3] or 'm') / 1024:g}"


def is_time(value: str) -> bool:
    """Whether a value can be nothing but a time: `[days-]hours[:minutes[:seconds]]` with days or a colon."""
    return re.fullmatch(r"\d+-\d+(:\d+){0,2}|\d+(:\d+){1,2}", value.strip()) is not None


def seconds(value: str) -> int | str:
    """A time as SLURM reads it; a single number is minutes."""
    if not re.fullmatch(r"[\d:-]*\d", value.strip()):
        return value
    days, _, rest = value.strip().rpartition("-")
    numbers = [int(number) for number in rest.split(":")]
    if days:
        hours, minutes, secs = (*numbers, 0, 0)[:3]
        return ((int(days) * 24 + hours) * 60 + minutes) * 60 + secs
    if len(numbers) == 3:
        return (numbers[0] * 60 + numbers[1]) * 60 + numbers[2]
    return numbers[0] * 60 + (numbers[1] if len(numbers) == 2 else 0)


def main() -> None:
    """Do what the task asks for."""
    module = AnsibleModule(ARGUMENTS, supports_check_mode=True)
    wanted, strangers = of_known_users(module.params)
    if strangers:
        module.warn(f"Left out of SLURM's accounting, for this host knows no such user: {', '.join(strangers)}.")
    accounting = Accounting(module.params["cluster"])
    try:
        commands = accounting.changes(**wanted)
        if not module.check_mode:
            for command in commands:
                accounting.run(["--immediate", *command])
            if commands and (rest := accounting.changes(**wanted)):
                raise RefusedError(f"done, and yet different: {'; '.join(' '.join(command) for command in rest)}")
    except RefusedError as refused:
        module.fail_json(msg=str(refused))
    lines = [f"sacctmgr {' '.join(command)}" for command in commands]
    diff = {"prepared": "".join(f"+ {line}\n" for line in lines)}
    module.exit_json(changed=bool(commands), commands=lines, diff=diff)


if __name__ == "__main__":
    main()
