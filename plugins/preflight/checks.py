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
from preflight.answers import answer_findings, missing, strings, well_formed
from preflight.findings import Finding
from preflight.inventory import Inventory
from preflight.options import description

# What the example vaults hold where a secret belongs
PLACEHOLDER = "CHANGE ME"

# Variables that belong to the whole service: every host that has one has the same
SAME_EVERYWHERE = {"slurm_munge_key", "slurm_cluster_name", "slurm_controller_host"}

# What the Hub must be told for sign-in at a provider
OAUTH_ADDRESSES = ("jupyterhub_oauth_authorize_url", "jupyterhub_oauth_token_url", "jupyterhub_oauth_user_info_url")
OAUTH_CLIENT = ("jupyterhub_oauth_client_id", "jupyterhub_oauth_client_secret")

# The system user that the role dask_gateway makes
GATEWAY_USER = "dask-gateway"

# Variables of earlier versions, and what has taken their place
RETIRED = {
    "jaspy_default": "site_jaspy_releases, of which the newest one whose state is current is the default",
    "jaspy_directory": "site_jaspy_directory",
    "jaspy_releases": "site_jaspy_releases, in which each release has a state",
}

# Roles that are told something else on each host, so that their variables stand in the file of each group
OWN_IN_EACH_GROUP = {"tls_frontend"}


def all_findings(inventory: Inventory, ansible_version: str) -> list[Finding]:
    """Everything that is wrong, at once."""
    found = [
        *check_ansible(inventory, ansible_version),
        *check_layers(inventory),
        *check_groups(inventory),
        *check_batch_cluster(inventory),
        *check_placeholders(inventory),
        *check_site(inventory),
        *check_names(inventory),
        *check_roles(inventory),
        *check_unknown_variables(inventory),
        *check_agreement(inventory),
        *check_certificates(inventory),
        *check_sign_in(inventory),
        *check_gateway_token(inventory),
        *check_gateway_operator(inventory),
        *check_authorities(inventory),
        *check_firewall(inventory),
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


def check_layers(inventory: Inventory) -> Iterator[Finding]:
    """Ansible reads every file with variables: it passes over some without a word."""
    for folder in (inventory.folder / "group_vars", inventory.folder / "host_vars"):
        for path in sorted(folder.rglob("*")):
            if path.is_symlink() and not path.exists():
                yield Finding(
                    path,
                    "link",
                    f"leads to {path.readlink()}, which does not exist; "
                    "keep this inventory's folder beside inventories/common",
                )
        for path in sorted(folder.glob("*.yml")):
            if path.with_suffix("").is_dir():
                yield Finding(
                    path,
                    "file",
                    f"is not read, because there is the folder {path.stem}/ beside it; "
                    f"move it to {path.stem}/{path.name}",
                )


def check_groups(inventory: Inventory) -> Iterator[Finding]:
    """The groups that the playbooks work on have the hosts that they need."""

    def finding(group: str, sentence: str) -> Finding:
        return Finding(inventory.hosts_file, group, sentence)

    for group, what in {"jupyterhub": "the notebook service", "dask_gateway": "the gateway"}.items():
        count = len(inventory.group(group))
        if count != 1:
            yield finding(group, f"has {count or 'no'} hosts; write the one host of {what} into this group")
    for host in set(inventory.group("jupyterhub")) & set(inventory.group("dask_gateway")):
        yield finding("dask_gateway", f"its host {host} is in jupyterhub too; write another, both need port 443")
    known = inventory.project.groups()
    for group in set(inventory.groups) - set(known):
        for meant in get_close_matches(group, known, n=1, cutoff=0.8):
            yield finding(group, f"is a group that no playbook works on; write {meant}")


def check_batch_cluster(inventory: Inventory) -> Iterator[Finding]:
    """The batch cluster is either all ours or all the site's."""
    controllers = inventory.group("slurm_controller")
    nodes = inventory.group("slurm_nodes")
    if len(controllers) > 1:
        yield Finding(inventory.hosts_file, "slurm_controller", f"has {len(controllers)} hosts; write one")
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
        named = variables.text("slurm_controller_host")
        if controllers and named and not _same_host(named, controllers):
            yield inventory.finding(
                variables,
                "slurm_controller_host",
                f"is not the host of the group slurm_controller; write {controllers[0]}, or leave the "
                "group empty where the site has a batch cluster of its own",
            )


def check_placeholders(inventory: Inventory) -> Iterator[Finding]:
    """No text of the example vault has become a secret."""
    for variables in inventory.variables.values():
        for name in variables:
            for text in strings(variables.raw(name)):
                if PLACEHOLDER in text:
                    hint = text.partition(":")[2].strip()
                    sentence = f'still says "{PLACEHOLDER}"'
                    if hint:
                        sentence += f"; write {hint}"
                    yield inventory.finding(variables, name, sentence)


def check_site(inventory: Inventory) -> Iterator[Finding]:
    """Every host knows what the roles share about the site."""
    for variables in inventory.variables.values():
        for name, option in inventory.site_options.items():
            if name in variables:
                yield from answer_findings(inventory, variables, name, option)
            else:
                yield Finding(inventory.file_for(name), name, missing(name, option))


def check_names(inventory: Inventory) -> Iterator[Finding]:
    """The addresses that users know fit the site's domain and each other."""
    for variables in inventory.variables.values():
        names = ("site_notebook_host", "site_gateway_host")
        hosts = {name: variables.text(name, formats.host_name) for name in names}
        domain = variables.text("site_domain")
        for name, host in hosts.items():
            if host and domain and not host.endswith(f".{domain}"):
                yield inventory.finding(variables, name, f"must end in .{domain}, the value of site_domain")
        if len(set(hosts.values())) == 1 and all(hosts.values()):
            yield inventory.finding(
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
                yield from answer_findings(inventory, variables, name, option)
            if option.get("required"):
                asked_by[name] = use.role.name, option
                wanting[name].append(host)
                if name not in variables:
                    lacking[name].append(host)
    for name, hosts in lacking.items():
        role, option = asked_by[name]
        sentence = missing(name, option)
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
            if name in RETIRED:
                yield inventory.finding(variables, name, f"is no longer used; write {RETIRED[name]}")
                continue
            known = [*options, *inventory.site_options]
            meant = get_close_matches(name, known, n=1, cutoff=0.8)
            if name.startswith(prefixes):
                advice = f"did you mean {meant[0]}?" if meant else "see meta/argument_specs.yml"
                yield inventory.finding(variables, name, f"is no role's variable; {advice}")
            elif name.startswith("site_") and meant and meant[0] not in variables:
                yield inventory.finding(variables, name, f"is used nowhere; did you mean {meant[0]}?")


def check_agreement(inventory: Inventory) -> Iterator[Finding]:
    """What belongs to the whole service is the same on all hosts."""
    for name in (*inventory.site_options, *sorted(SAME_EVERYWHERE)):
        hosts_by_value: dict[str, list[str]] = defaultdict(list)
        for host, variables in inventory.variables.items():
            value = variables.get(name)
            if value.usable:
                hosts_by_value[repr(value.value)].append(host)
        if len(hosts_by_value) > 1:
            parties = " / ".join(", ".join(hosts) for hosts in hosts_by_value.values())
            yield Finding(
                inventory.file_for(name, inventory.project.role_of(name)),
                name,
                f"differs between hosts ({parties}); write it once, for all of them",
            )


def check_certificates(inventory: Inventory) -> Iterator[Finding]:
    """Each front end's certificate is for its name, and its key fits."""
    for variables in inventory.as_role("tls_frontend"):
        server_name = variables.text("tls_frontend_server_name", formats.host_name)
        certificate = variables.text("tls_frontend_certificate", formats.certificate)
        key = variables.text("tls_frontend_private_key", formats.private_key)
        if certificate and server_name:
            names = formats.names_of(certificate)
            if not formats.covers(names, server_name):
                yield inventory.finding(
                    variables,
                    "tls_frontend_certificate",
                    f"is for {', '.join(names) or 'no host'}; write one for {server_name}",
                )
            elif variables.get("tls_frontend_subdomain_paths").value and f"*.{server_name}" not in names:
                yield inventory.finding(
                    variables,
                    "tls_frontend_certificate",
                    f"is for {', '.join(names)}; write one that is for *.{server_name} too, as each user's server has "
                    "a name below it (site_notebook_user_domains)",
                )
        if certificate and key and not formats.key_fits(key, certificate):
            yield inventory.finding(
                variables,
                "tls_frontend_private_key",
                "is not the key of tls_frontend_certificate; write the one it was made with",
            )


def check_sign_in(inventory: Inventory) -> Iterator[Finding]:
    """A Hub whose users sign in at a provider knows the provider's addresses, and is known there."""
    for variables in inventory.as_role("jupyterhub"):
        if variables.text("jupyterhub_authentication") != "oauth":
            continue
        for name in (*OAUTH_ADDRESSES, *OAUTH_CLIENT):
            value = variables.get(name)
            if value.usable and not value.value:
                option = inventory.project.options[name]
                yield inventory.finding(
                    variables,
                    name,
                    f"is empty, and jupyterhub_authentication is oauth; what to write: {description(option)}",
                )
        for name in (*OAUTH_ADDRESSES, "jupyterhub_oauth_logout_url"):
            sentence = formats.https_address(variables.text(name)) if variables.text(name) else None
            if sentence:
                yield inventory.finding(variables, name, sentence)
        scopes = well_formed(inventory, variables, "jupyterhub_oauth_scopes")
        if scopes == []:
            yield inventory.finding(
                variables, "jupyterhub_oauth_scopes", "is empty; write at least openid, and what covers the claims"
            )


def check_gateway_token(inventory: Inventory) -> Iterator[Finding]:
    """The Hub knows the gateway by the name and the token that the gateway presents."""
    for gateway, hub in product(inventory.as_role("dask_gateway"), inventory.as_role("jupyterhub")):
        name = gateway.text("dask_gateway_jupyterhub_service_name")
        token = gateway.text("dask_gateway_jupyterhub_api_token")
        services = well_formed(inventory, hub, "jupyterhub_services")
        if not name or not token or services is None:
            continue
        tokens = [service["api_token"] for service in services if service["name"] == name]
        if not tokens:
            sentence = f"has no item for the gateway; write one with `name: {name}` and the api_token "
            yield inventory.finding(hub, "jupyterhub_services", f"{sentence}of dask_gateway_jupyterhub_api_token")
        elif token not in tokens:
            sentence = (
                f"the api_token of {name} is not dask_gateway_jupyterhub_api_token; write the same vault variable"
            )
            yield inventory.finding(hub, "jupyterhub_services", sentence)


def check_gateway_operator(inventory: Inventory) -> Iterator[Finding]:
    """A controller of ours lets the gateway see the jobs of its users, whatever PrivateData hides."""
    for gateway, controller in product(inventory.as_role("dask_gateway"), inventory.as_role("slurm", "controller")):
        uid = well_formed(inventory, gateway, "dask_gateway_uid")
        operators = well_formed(inventory, controller, "slurm_operators")
        if uid is None or operators is None:
            continue
        uids = [operator.get("uid") for operator in operators if operator["name"] == GATEWAY_USER]
        if not uids:
            sentence = (
                f"has no item for the gateway; write one with name {GATEWAY_USER} and the uid of dask_gateway_uid"
            )
            yield inventory.finding(controller, "slurm_operators", sentence)
        elif uid == 0 or uid not in uids:
            sentence = (
                f"has another uid for {GATEWAY_USER} than dask_gateway_uid; write the same number, not 0, in both"
            )
            yield inventory.finding(controller, "slurm_operators", sentence)


def check_authorities(inventory: Inventory) -> Iterator[Finding]:
    """The site's authorities can be read here, from where they are copied to the hosts."""
    for variables in inventory.variables.values():
        for path in well_formed(inventory, variables, "site_ca_certificates") or []:
            sentence = _authority_fault(Path(str(path)))
            if sentence:
                yield inventory.finding(variables, "site_ca_certificates", f"{path} {sentence}")


def check_firewall(inventory: Inventory) -> Iterator[Finding]:
    """Rules that let no part of the service reach the others would cut it in two."""
    for variables in inventory.as_role("firewall"):
        if variables.get("firewall_enabled").value is not True:
            continue
        for name, whose in {
            "firewall_service_networks": "the Hub's and the gateway's hosts",
            "firewall_batch_networks": "the controller, the nodes and the hosts that submit jobs",
        }.items():
            if variables.get(name).value == []:
                sentence = f"is empty, and firewall_enabled is true; write the addresses of {whose}"
                yield inventory.finding(variables, name, sentence)


def _authority_fault(path: Path) -> str | None:
    if not path.is_absolute():
        return "must be an absolute path; write {{ inventory_dir }}/ before it"
    if not path.is_file():
        return "is no file on this machine; write the path of a PEM file"
    return formats.authorities(path.read_bytes())


def _same_host(name: str, hosts: list[str]) -> bool:
    """Whether a name is one of the hosts', each with its domain or without."""
    return name.partition(".")[0] in [host.partition(".")[0] for host in hosts]
