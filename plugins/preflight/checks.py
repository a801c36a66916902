"""What must be true of an inventory, one function for each kind of fault."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from difflib import get_close_matches
from itertools import product
from pathlib import Path
from typing import Any

from preflight import formats
from preflight.findings import Finding
from preflight.inventory import Inventory
from preflight.options import description, faults
from preflight.values import Value, Variables

# What the example vaults hold where a secret belongs
PLACEHOLDER = "CHANGE ME"

FORMATS = {
    "site_notebook_host": formats.host_name,
    "site_gateway_host": formats.host_name,
    "slurm_munge_key": formats.munge_key,
    "slurm_database_password": formats.password,
    "jupyterhub_cookie_secret": formats.hexadecimal_64,
    "jupyterhub_crypt_key": formats.hexadecimal_64,
    "jupyterhub_proxy_auth_token": formats.token,
    "dask_gateway_jupyterhub_api_token": formats.token,
    "dask_gateway_proxy_token": formats.token,
    "dask_gateway_database_keys": formats.database_keys,
    "dask_gateway_users_group": formats.group_name,
    "tls_frontend_server_name": formats.host_name,
    "tls_frontend_certificate": formats.certificate,
    "tls_frontend_private_key": formats.private_key,
}

# Variables that belong to the whole service: every host that has one has the same
SAME_EVERYWHERE = {"slurm_munge_key", "slurm_cluster_name", "slurm_controller_host"}

# The system user that the role dask_gateway makes
GATEWAY_USER = "dask-gateway"

# Files on the machine that Ansible runs on
FILES_HERE = {"slurm_client_config_file"}

# Roles that are told something else on each host, so that their variables stand in the file of each group
OWN_IN_EACH_GROUP = {"tls_frontend"}


def all_findings(inventory: Inventory, ansible_version: str) -> list[Finding]:
    """Everything that is wrong, at once."""
    found = [
        *check_ansible(inventory, ansible_version),
        *check_groups(inventory),
        *check_batch_cluster(inventory),
        *check_placeholders(inventory),
        *check_site(inventory),
        *check_names(inventory),
        *check_roles(inventory),
        *check_unknown_variables(inventory),
        *check_agreement(inventory),
        *check_certificates(inventory),
        *check_gateway_token(inventory),
        *check_gateway_operator(inventory),
        *check_authorities(inventory),
    ]
    # A placeholder is told as such; that it is no munge key as well helps nobody
    placeholders = {(f.file, f.subject) for f in found if PLACEHOLDER in f.sentence}
    return sorted({f for f in found if PLACEHOLDER in f.sentence or (f.file, f.subject) not in placeholders})


def check_ansible(inventory: Inventory, version: str) -> Iterator[Finding]:
    """The roles run with the release series of Ansible that they are tested with."""
    lock = inventory.project.folder / "requirements" / "dev.txt"
    pinned = re.search(r"^ansible-core==(\d+\.\d+)", lock.read_text(), re.MULTILINE)
    if pinned and not version.startswith(f"{pinned[1]}."):
        yield Finding(
            lock,
            "ansible-core",
            f"{version} runs here, and the roles are made for {pinned[1]}; "
            "run script/bootstrap, then `. .venv/bin/activate`",
        )


def check_groups(inventory: Inventory) -> Iterator[Finding]:
    """The groups that the playbooks work on have the hosts that they need."""

    def finding(group: str, sentence: str) -> Finding:
        return Finding(inventory.hosts_file, group, sentence)

    for group, what in {
        "jupyterhub": "the notebook service",
        "dask_gateway": "the gateway",
    }.items():
        count = len(inventory.group(group))
        if count != 1:
            yield finding(
                group,
                f"has {count or 'no'} hosts; write the one host of {what} into this group",
            )
    for host in set(inventory.group("jupyterhub")) & set(inventory.group("dask_gateway")):
        yield finding(
            "dask_gateway",
            f"its host {host} is in jupyterhub too; both need port 443, write a host of its own",
        )
    known = inventory.project.groups()
    for group in set(inventory.groups) - set(known):
        for meant in get_close_matches(group, known, n=1, cutoff=0.8):
            yield finding(group, f"is a group that no playbook works on; write {meant}")


def check_batch_cluster(inventory: Inventory) -> Iterator[Finding]:
    """The batch cluster is either all ours or all the site's."""
    controllers = inventory.group("slurm_controller")
    nodes = inventory.group("slurm_nodes")
    if len(controllers) > 1:
        yield Finding(
            inventory.hosts_file,
            "slurm_controller",
            f"has {len(controllers)} hosts; write one",
        )
    elif nodes and not controllers:
        yield Finding(
            inventory.hosts_file,
            "slurm_nodes",
            "has hosts, and slurm_controller has none; write a controller of this batch cluster, or "
            "leave slurm_nodes empty where the site has a batch cluster of its own",
        )
    elif controllers and not nodes:
        yield Finding(
            inventory.hosts_file,
            "slurm_nodes",
            "has no hosts, and slurm_controller has one; write the nodes of this batch cluster, or "
            "leave slurm_controller empty where the site has a batch cluster of its own",
        )
    for variables in inventory.as_role("slurm"):
        named = _text(variables, "slurm_controller_host")
        if controllers and named and not _same_host(named, controllers):
            yield _at(
                inventory,
                variables,
                "slurm_controller_host",
                f"is not the host of the group slurm_controller; write {controllers[0]}, or leave the "
                "group empty where the site has a batch cluster of its own",
            )


def check_placeholders(inventory: Inventory) -> Iterator[Finding]:
    """No text of the example vault has become a secret."""
    for variables in inventory.variables.values():
        for name in variables:
            for text in _strings(variables.raw(name)):
                if PLACEHOLDER in text:
                    hint = text.partition(":")[2].strip()
                    sentence = f'still says "{PLACEHOLDER}"'
                    if hint:
                        sentence += f"; write {hint}"
                    yield _at(inventory, variables, name, sentence)


def check_site(inventory: Inventory) -> Iterator[Finding]:
    """Every host knows what the roles share about the site."""
    for variables in inventory.variables.values():
        for name, option in inventory.site_options.items():
            if name in variables:
                yield from _value_findings(inventory, variables, name, option)
            else:
                yield Finding(inventory.file_for(name), name, _missing(name, option))


def check_names(inventory: Inventory) -> Iterator[Finding]:
    """The addresses that users know fit the site's domain and each other."""
    for variables in inventory.variables.values():
        names = ("site_notebook_host", "site_gateway_host")
        hosts = {name: _text(variables, name, formats.host_name) for name in names}
        domain = _text(variables, "site_domain")
        for name, host in hosts.items():
            if host and domain and not host.endswith(f".{domain}"):
                yield _at(inventory, variables, name, f"must end in .{domain}, the value of site_domain")
        if len(set(hosts.values())) == 1 and all(hosts.values()):
            yield _at(
                inventory,
                variables,
                "site_gateway_host",
                "is the same as site_notebook_host; write another name, each service has its own host",
            )


def check_roles(inventory: Inventory) -> Iterator[Finding]:
    """Every role that a host gets is told what it requires, in the type it asks for."""
    lacking: dict[str, list[str]] = defaultdict(list)
    wanting: dict[str, list[str]] = defaultdict(list)
    asked_by: dict[str, tuple[str, dict[str, Any]]] = {}
    for use, host, variables in inventory.settings:
        for name, option in use.options.items():
            if name in inventory.site_options:
                continue
            if name in variables:
                yield from _value_findings(inventory, variables, name, option)
            if option.get("required"):
                asked_by[name] = use.role.name, option
                wanting[name].append(host)
                if name not in variables:
                    lacking[name].append(host)
    for name, hosts in lacking.items():
        role, option = asked_by[name]
        sentence = _missing(name, option)
        if role in OWN_IN_EACH_GROUP:
            for host in hosts:
                yield Finding(inventory.file_for(name, role, [host]), name, sentence)
        elif set(hosts) == set(wanting[name]):
            yield Finding(inventory.file_for(name, role, hosts), name, sentence)
        else:
            only = ", ".join(dict.fromkeys(hosts))
            yield Finding(inventory.file_for(name, role, hosts), name, f"on {only} {sentence}")


def check_unknown_variables(inventory: Inventory) -> Iterator[Finding]:
    """No variable is written in vain because of its spelling."""
    options = inventory.project.options
    prefixes = tuple(f"{name}_" for name in inventory.project.roles)
    for variables in inventory.variables.values():
        for name in variables:
            if name in options or name in inventory.site_options:
                continue
            known = [*options, *inventory.site_options]
            meant = get_close_matches(name, known, n=1, cutoff=0.8)
            if name.startswith(prefixes):
                advice = f"did you mean {meant[0]}?" if meant else "see meta/argument_specs.yml"
                yield _at(inventory, variables, name, f"is no role's variable; {advice}")
            elif name.startswith("site_") and meant and meant[0] not in variables:
                yield _at(inventory, variables, name, f"is used nowhere; did you mean {meant[0]}?")


def check_agreement(inventory: Inventory) -> Iterator[Finding]:
    """What belongs to the whole service is the same on all hosts."""
    for name in (*inventory.site_options, *sorted(SAME_EVERYWHERE)):
        hosts_by_value: dict[str, list[str]] = defaultdict(list)
        for host, variables in inventory.variables.items():
            value = variables.get(name) if name in variables else Value(known=False)
            if value.usable:
                hosts_by_value[repr(value.value)].append(host)
        if len(hosts_by_value) > 1:
            parties = " / ".join(", ".join(hosts) for hosts in hosts_by_value.values())
            yield Finding(
                inventory.file_for(name, _role_of(inventory, name)),
                name,
                f"differs between hosts ({parties}); write it once, for all of them",
            )


def check_certificates(inventory: Inventory) -> Iterator[Finding]:
    """Each front end's certificate is for its name, and its key fits."""
    for variables in inventory.as_role("tls_frontend"):
        server_name = _text(variables, "tls_frontend_server_name", formats.host_name)
        certificate = _text(variables, "tls_frontend_certificate", formats.certificate)
        key = _text(variables, "tls_frontend_private_key", formats.private_key)
        if certificate and server_name:
            names = formats.names_of(certificate)
            if not formats.covers(names, server_name):
                yield _at(
                    inventory,
                    variables,
                    "tls_frontend_certificate",
                    f"is for {', '.join(names) or 'no host'}; write one for {server_name}",
                )
        if certificate and key and not formats.key_fits(key, certificate):
            yield _at(
                inventory,
                variables,
                "tls_frontend_private_key",
                "is not the key of tls_frontend_certificate; write the one it was made with",
            )


def check_gateway_token(inventory: Inventory) -> Iterator[Finding]:
    """The Hub knows the gateway by the name and the token that the gateway presents."""
    for gateway, hub in product(inventory.as_role("dask_gateway"), inventory.as_role("jupyterhub")):
        name = _text(gateway, "dask_gateway_jupyterhub_service_name")
        token = _text(gateway, "dask_gateway_jupyterhub_api_token")
        services = _rightly_typed(inventory, hub, "jupyterhub_services")
        if not name or not token or services is None:
            continue
        tokens = [service["api_token"] for service in services if service["name"] == name]
        if not tokens:
            sentence = f"has no item for the gateway; write one with `name: {name}` and the api_token "
            yield _at(inventory, hub, "jupyterhub_services", f"{sentence}of dask_gateway_jupyterhub_api_token")
        elif token not in tokens:
            sentence = (
                f"the api_token of {name} is not dask_gateway_jupyterhub_api_token; write the same vault variable"
            )
            yield _at(inventory, hub, "jupyterhub_services", sentence)


def check_gateway_operator(inventory: Inventory) -> Iterator[Finding]:
    """A controller of ours lets the gateway see the jobs of its users, whatever PrivateData hides."""
    for gateway, controller in product(inventory.as_role("dask_gateway"), inventory.as_role("slurm", "controller")):
        uid = _rightly_typed(inventory, gateway, "dask_gateway_uid")
        operators = _rightly_typed(inventory, controller, "slurm_operators")
        if uid is None or operators is None:
            continue
        uids = [operator.get("uid") for operator in operators if operator["name"] == GATEWAY_USER]
        if not uids:
            sentence = (
                f"has no item for the gateway; write one with name {GATEWAY_USER} and the uid of dask_gateway_uid"
            )
            yield _at(inventory, controller, "slurm_operators", sentence)
        elif uid == 0 or uid not in uids:
            sentence = (
                f"has another uid for {GATEWAY_USER} than dask_gateway_uid; write the same number, not 0, in both"
            )
            yield _at(inventory, controller, "slurm_operators", sentence)


def check_authorities(inventory: Inventory) -> Iterator[Finding]:
    """The site's authorities can be read here, from where they are copied to the hosts."""
    for variables in inventory.variables.values():
        if "site_ca_certificates" not in variables:
            continue
        paths = variables.get("site_ca_certificates")
        for path in paths.value if paths.usable and isinstance(paths.value, list) else []:
            sentence = _authority_fault(Path(str(path)))
            if sentence:
                yield _at(inventory, variables, "site_ca_certificates", f"{path} {sentence}")


def _authority_fault(path: Path) -> str | None:
    if not path.is_absolute():
        return "must be an absolute path; write {{ inventory_dir }}/ before it"
    if not path.is_file():
        return "is no file on this machine; write the path of a PEM file"
    return formats.authorities(path.read_bytes())


def _value_findings(inventory: Inventory, variables: Variables, name: str, option: dict[str, Any]) -> Iterator[Finding]:
    """What is wrong with the value of a variable that is written."""
    value = variables.get(name)
    for needed in value.undefined:
        if needed not in inventory.site_options:  # check_site tells of those
            yield _undefined(inventory, variables, name, option, needed)
    if value.lost_file:
        sentence = f"needs the file {value.lost_file}, which does not exist; what to write there: {description(option)}"
        yield _at(inventory, variables, name, sentence)
    elif value.fault:
        # The reason may repeat what it is about
        reason = "its vault variable does not fit" if _is_secret(variables, name) else value.fault
        yield _at(inventory, variables, name, f"can't be worked out: {reason}")
    if not value.usable:
        return
    wrong = list(faults(option, value.value))
    if not wrong and value.value == "" and variables.culprit(name).startswith("vault_"):
        wrong = [("", f"is empty; write a secret, or take {name} out")]
    if not wrong and name in FORMATS:
        wrong = [("", sentence) for sentence in [FORMATS[name](value.value)] if sentence]
    if not wrong and name in FILES_HERE and value.value and not Path(value.value).is_file():
        wrong = [("", f"{value.value} is no file on this machine; write the path of one")]
    for place, sentence in wrong:
        yield _at(inventory, variables, name, sentence, place)


def _undefined(inventory: Inventory, variables: Variables, name: str, option: dict[str, Any], needed: str) -> Finding:
    """What to do about a name that a value needs and nobody defined."""
    namesake = needed.removeprefix("vault_")
    if namesake in inventory.project.options:
        name, option = namesake, inventory.project.options[namesake]
    if namesake != needed or needed.startswith("site_") or _role_of(inventory, needed):
        file = inventory.file_for(needed, _role_of(inventory, needed))
        user = "" if namesake == name else f" [used by {name}]"
        return Finding(file, needed, f"{_missing(name, option)}{user}")
    meant = get_close_matches(needed, list(variables), n=1, cutoff=0.8)
    advice = f"write {meant[0]}" if meant else "define it, or mend the name"
    return _at(inventory, variables, name, f"uses {needed}, which is not defined; {advice}")


def _missing(name: str, option: dict[str, Any]) -> str:
    """That a variable is not defined, and what to write."""
    format_of = FORMATS.get(name)
    if format_of:
        return f"is not defined; it {format_of([] if option.get('type') == 'list' else '')}"
    return f"is not defined; what to write: {description(option)}"


def _at(inventory: Inventory, variables: Variables, name: str, sentence: str, place: str = "") -> Finding:
    """A finding about a value, in the file where it was written."""
    culprit = variables.culprit(name)
    origin = variables.origin(culprit)
    if origin and origin[0].is_relative_to(inventory.folder):
        return Finding(origin[0], f"{culprit}{place}", sentence, line=origin[1])
    file = inventory.file_for(culprit, _role_of(inventory, culprit))
    return Finding(file, f"{culprit}{place}", sentence)


def _is_secret(variables: Variables, name: str) -> bool:
    return any("vault_" in text for text in _strings(variables.raw(name)))


def _same_host(name: str, hosts: list[str]) -> bool:
    """Whether a name is one of the hosts', each with its domain or without."""
    return name.partition(".")[0] in [host.partition(".")[0] for host in hosts]


def _role_of(inventory: Inventory, name: str) -> str:
    """The role that a variable's name begins with, or nothing."""
    roles = [role for role in inventory.project.roles if name.startswith(f"{role}_")]
    return max(roles, key=len, default="")


def _text(variables: Variables, name: str, form: Any = None) -> str:
    """A string that is there and right as far as it goes, or nothing."""
    value = variables.get(name) if name in variables else Value(known=False)
    if not value.usable or not isinstance(value.value, str):
        return ""
    return "" if form and form(value.value) else value.value


def _rightly_typed(inventory: Inventory, variables: Variables, name: str) -> Any:
    """A role's variable that is what its option asks for, or nothing."""
    value = variables.get(name) if name in variables else Value(known=False)
    wrong = not value.usable or any(faults(inventory.project.options[name], value.value))
    return None if wrong else value.value


def _strings(raw: Any) -> Iterator[str]:
    if isinstance(raw, str):
        yield raw
    elif isinstance(raw, dict):
        for part in raw.values():
            yield from _strings(part)
    elif isinstance(raw, list | tuple):
        for part in raw:
            yield from _strings(part)
