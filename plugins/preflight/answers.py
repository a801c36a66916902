"""Whether what is written for a variable is an answer to what its option asks for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from preflight import formats
from preflight.findings import Finding
from preflight.inventory import Inventory
from preflight.options import description, faults
from preflight.values import Variables

FORMATS = {
    "site_notebook_host": formats.host_name,
    "site_gateway_host": formats.host_name,
    "site_support_address": formats.support_address,
    "site_logo": formats.image,
    "slurm_munge_key": formats.munge_key,
    "slurm_database_password": formats.password,
    "jupyterhub_cookie_secret": formats.hexadecimal_64,
    "jupyterhub_crypt_key": formats.hexadecimal_64,
    "jupyterhub_proxy_auth_token": formats.token,
    "jupyterhub_memory_limit": formats.memory,
    "jupyterhub_profiles": formats.profiles,
    "jupyterhub_slurm_time": formats.slurm_time,
    "dask_gateway_jupyterhub_api_token": formats.token,
    "dask_gateway_proxy_token": formats.token,
    "dask_gateway_database_keys": formats.database_keys,
    "dask_gateway_users_group": formats.group_name,
    "firewall_batch_networks": formats.networks,
    "firewall_everybody_networks": formats.networks,
    "firewall_operators_networks": formats.networks,
    "firewall_service_networks": formats.networks,
    "tls_frontend_server_name": formats.host_name,
    "tls_frontend_certificate": formats.certificate,
    "tls_frontend_private_key": formats.private_key,
}

# Parts of values of earlier versions, by variable and place, and the part beside it that has taken its place
RETIRED_PARTS = {
    ("tls_frontend_locations", "[].authorization.header"): ("headers", "headers, a list of them"),
}

# Files on the machine that Ansible runs on
FILES_HERE = {"site_logo", "slurm_client_config_file"}


def answer_findings(inventory: Inventory, variables: Variables, name: str, option: dict[str, Any]) -> Iterator[Finding]:
    """What is wrong with the value of a variable that is written."""
    value = variables.get(name)
    for needed in value.undefined:
        if needed not in inventory.site_options:  # where they are missing is told once, for all that use them
            yield _undefined(inventory, variables, name, option, needed)
    if value.lost_file:
        sentence = f"needs the file {value.lost_file}, which does not exist; what to write there: {description(option)}"
        yield inventory.finding(variables, name, sentence)
    elif value.fault:
        # The reason may repeat what it is about
        secret = any("vault_" in text for text in strings(variables.raw(name)))
        reason = "its vault variable does not fit" if secret else value.fault
        yield inventory.finding(variables, name, f"can't be worked out: {reason}")
    if value.usable:
        for place, sentence in _wrong(variables, name, option, value.value):
            yield inventory.finding(variables, name, sentence, place)


def well_formed(inventory: Inventory, variables: Variables, name: str) -> Any:
    """A variable's value if it is what its option asks for, or nothing."""
    value = variables.get(name)
    option = (inventory.project.options | inventory.site_options)[name]
    return value.value if value.usable and not any(faults(option, value.value)) else None


def missing(name: str, option: dict[str, Any]) -> str:
    """That a variable is not defined, and what to write."""
    format_of = FORMATS.get(name)
    if format_of:
        return f"is not defined; it {format_of([] if option.get('type') == 'list' else '')}"
    return f"is not defined; what to write: {description(option)}"


def strings(raw: Any) -> Iterator[str]:
    """Every string that is part of what was written."""
    if isinstance(raw, str):
        yield raw
    elif isinstance(raw, dict):
        for part in raw.values():
            yield from strings(part)
    elif isinstance(raw, list | tuple):
        for part in raw:
            yield from strings(part)


def _wrong(variables: Variables, name: str, option: dict[str, Any], value: Any) -> list[tuple[str, str]]:
    """The first kind of thing that is wrong with a value: the others may follow from it."""
    by_option = list(_with_retired_parts(name, faults(option, value)))
    if by_option:
        return by_option
    if value == "" and variables.culprit(name).startswith("vault_"):
        return [("", f"is empty; write a secret, or take {name} out")]
    by_format = FORMATS[name](value) if name in FORMATS else None
    if by_format:
        return [("", by_format)]
    if name in FILES_HERE and value and not Path(value).is_file():
        return [("", f"{value} is no file on this machine; write the path of one")]
    return []


def _with_retired_parts(name: str, found: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """The faults; a part of an earlier version is named as such, and what takes its place is not missed as well."""
    by_place = dict(found)
    for place in list(by_place):
        successor, advice = RETIRED_PARTS.get((name, re.sub(r"\[\d+\]", "[]", place)), ("", ""))
        if successor:
            by_place[place] = f"is no longer used; write {advice}"
            by_place.pop(f"{place.rpartition('.')[0]}.{successor}", None)
    yield from by_place.items()


def _undefined(inventory: Inventory, variables: Variables, name: str, option: dict[str, Any], needed: str) -> Finding:
    """What to do about a name that a value needs and nobody defined."""
    namesake = needed.removeprefix("vault_")
    if namesake in inventory.project.options:
        name, option = namesake, inventory.project.options[namesake]
    if namesake != needed or needed.startswith("site_") or inventory.project.role_of(needed):
        file = inventory.file_for(needed, inventory.project.role_of(needed))
        user = "" if namesake == name else f" [used by {name}]"
        return Finding(file, needed, f"{missing(name, option)}{user}")
    meant = get_close_matches(needed, list(variables), n=1, cutoff=0.8)
    advice = f"write {meant[0]}" if meant else "define it, or mend the name"
    return inventory.finding(variables, name, f"uses {needed}, which is not defined; {advice}")
