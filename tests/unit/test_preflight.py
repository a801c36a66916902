"""Preflight reads an inventory and says what is wrong with it, each time in the file that has to be mended."""

from __future__ import annotations

import base64
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from inventory_copies import GONE, REPOSITORY, certificate_for, change, copied, filled_in, findings_in
from preflight.findings import report

SITE = "group_vars/all/site.yml"
VAULT = "group_vars/all/vault.yml"
SLURM = "group_vars/all/slurm.yml"
DIRECTORY = "group_vars/all/directory_client.yml"
CONTROLLER = "group_vars/slurm_controller.yml"
GATEWAY = "group_vars/dask_gateway/dask_gateway.yml"
HUB = "group_vars/jupyterhub/jupyterhub.yml"
# What all inventories share, as an inventory leads there, and as a copy of it is changed
COMMON_GATEWAY = "group_vars/dask_gateway/00-common.yml"
COMMON_HUB = "group_vars/jupyterhub/00-common.yml"
HOSTS = "hosts.yml"
GROUPS = "all.children"

# Sign-in at a provider, as a site would write it
OAUTH = {
    "jupyterhub_authentication": "oauth",
    "jupyterhub_oauth_authorize_url": "https://accounts.example.org/authorize",
    "jupyterhub_oauth_token_url": "https://accounts.example.org/token",
    "jupyterhub_oauth_user_info_url": "https://accounts.example.org/userinfo",
    "jupyterhub_oauth_client_id": "notebooks",
    "jupyterhub_oauth_client_secret": "a secret of some length",
}

SMALL = {"name": "small", "memory": "2G", "cores": 1}


def oauth_without(name: str) -> dict[str, Any]:
    """Sign-in at a provider by somebody who forgot something."""
    return {key: value for key, value in OAUTH.items() if key != name}


EXPIRED, EXPIRED_KEY = certificate_for("dask-gateway.staging.example.org", days=-3)
STRANGE, STRANGE_KEY = certificate_for("www.example.org")
WILDCARD, WILDCARD_KEY = certificate_for("*.staging.example.org")


@dataclass
class Fault:
    """A change that breaks a good inventory, and what the person who made it reads."""

    file: str
    changes: dict[str, Any]
    subject: str
    sentence: str
    # Where the finding sends, if that is another file than the changed one
    told_in: str = ""
    inventory: str = "staging"


FAULTS = {
    "the logo is no file": Fault(
        SITE, {"site_logo": "/nonexistent/logo.svg"}, "site_logo", "/nonexistent/logo.svg is no file on this machine"
    ),
    "the logo is no image": Fault(SITE, {"site_logo": "/etc/hostname"}, "site_logo", "in SVG, PNG, JPEG or WebP"),
    "the support address is neither mail nor page": Fault(
        SITE, {"site_support_address": "the help desk"}, "site_support_address", "must be a mail address, or the https"
    ),
    # Variables that are missing, empty or of a wrong type
    "a required variable is missing": Fault(
        DIRECTORY,
        {"directory_client_uri": GONE},
        "directory_client_uri",
        "is not defined; what to write: The directory",
    ),
    "a required variable is empty": Fault(
        DIRECTORY, {"directory_client_uri": ""}, "directory_client_uri", "is empty; what to write: The directory"
    ),
    "a required variable has no value": Fault(
        DIRECTORY, {"directory_client_search_base": None}, "directory_client_search_base", "is empty; what to write"
    ),
    "a variable that all share is missing": Fault(
        SITE, {"site_support_address": GONE}, "site_support_address", "is not defined; it must be a mail address"
    ),
    "a variable that others are made of is missing": Fault(
        SITE, {"site_domain": GONE}, "site_domain", "is not defined; what to write: The domain"
    ),
    "a list is written as a string": Fault(
        SITE, {"site_ca_certificates": "/etc/ssl/a.pem"}, "site_ca_certificates", "must be a list, not a string"
    ),
    "a number is written in quotes": Fault(
        HUB, {"jupyterhub_token_maximum_days": "30"}, "jupyterhub_token_maximum_days", "must be a whole number"
    ),
    "a string looks like a number to YAML": Fault(
        SLURM, {"slurm_cluster_name": 3.10}, "slurm_cluster_name", "must be a string, not a number; write it in quotes"
    ),
    "a value is none of the possible ones": Fault(
        DIRECTORY, {"directory_client_schema": "ad"}, "directory_client_schema", "must be one of rfc2307, rfc2307bis"
    ),
    "an item of a list lacks what it requires": Fault(
        CONTROLLER, {"slurm_accounts": [{"description": "x"}]}, "slurm_accounts[0].name", "is not defined"
    ),
    "an item of a list has a key that does not exist": Fault(
        CONTROLLER,
        {"slurm_accounts": [{"name": "a", "user": "b"}]},
        "slurm_accounts[0].user",
        "does not exist; there are",
    ),
    "a name is misspelt": Fault(
        HUB, {"jupyterhub_alowed_groups": []}, "jupyterhub_alowed_groups", "did you mean jupyterhub_allowed_groups?"
    ),
    "a variable of an earlier version": Fault(
        HUB, {"jaspy_releases": []}, "jaspy_releases", "is no longer used; write site_jaspy_releases"
    ),
    "a part of a value of an earlier version": Fault(
        GATEWAY,
        {
            "tls_frontend_locations": [
                {
                    "path": "/clusters/",
                    "upstream": "http://127.0.0.1:8001",
                    "authorization": {"upstream": "http://127.0.0.1:8003", "path": "/ask", "header": "X-Key"},
                }
            ]
        },
        "tls_frontend_locations[0].authorization.header",
        "is no longer used; write headers, a list of them",
    ),
    "a value uses a name that nobody defined": Fault(
        HUB,
        {"jupyterhub_default_url": "/{{ hub_page }}"},
        "jupyterhub_default_url",
        "uses hub_page, which is not defined",
    ),
    "a value can't be worked out": Fault(
        HUB, {"jupyterhub_default_url": "{{ 1 / 0 }}"}, "jupyterhub_default_url", "can't be worked out: .*zero"
    ),
    "hosts disagree on what they share": Fault(
        HUB, {"site_name": "Another"}, "site_name", r"differs between hosts \(hub1 / gateway1.*write it once", SITE
    ),
    # The vault
    "a secret is missing": Fault(
        VAULT, {"vault_jupyterhub_crypt_key": GONE}, "vault_jupyterhub_crypt_key", "is not defined; it must be 64 hex"
    ),
    "a secret is empty": Fault(
        VAULT, {"vault_directory_bind_password": ""}, "vault_directory_bind_password", "is empty", inventory="staging"
    ),
    "a cookie secret is too short": Fault(
        VAULT, {"vault_jupyterhub_cookie_secret": "abc123"}, "vault_jupyterhub_cookie_secret", "must be 64 hexadecimal"
    ),
    "a token could be guessed": Fault(
        VAULT,
        {"vault_jupyterhub_proxy_auth_token": "secret"},
        "vault_jupyterhub_proxy_auth_token",
        "at least 32 letters",
    ),
    "a munge key is not base64": Fault(
        VAULT,
        {"vault_slurm_munge_key": "not base64!"},
        "vault_slurm_munge_key",
        "must be a munge key of 32 to 1024 bytes",
    ),
    "a munge key is too short": Fault(
        VAULT,
        {"vault_slurm_munge_key": base64.b64encode(b"short").decode()},
        "vault_slurm_munge_key",
        "32 to 1024 bytes",
    ),
    "a database password is short": Fault(
        VAULT, {"vault_slurm_database_password": "slurm"}, "vault_slurm_database_password", "at least 16 characters"
    ),
    "hosts have different munge keys": Fault(
        "group_vars/login.yml",
        {"slurm_munge_key": base64.b64encode(bytes(64)).decode()},
        "slurm_munge_key",
        "differs between hosts",
        SLURM,
    ),
    # Groups and hosts
    "there is no notebook service": Fault(
        HOSTS,
        {f"{GROUPS}.jupyterhub.hosts": {}},
        "jupyterhub",
        "has no hosts; write the one host of the notebook service",
    ),
    "there are two gateways": Fault(
        HOSTS, {f"{GROUPS}.dask_gateway.hosts.gateway2": None}, "dask_gateway", "has 2 hosts; write the one host"
    ),
    "there are two controllers": Fault(
        HOSTS, {f"{GROUPS}.slurm_controller.hosts.controller2": None}, "slurm_controller", "has 2 hosts; write one"
    ),
    "there are nodes without a controller": Fault(
        HOSTS, {f"{GROUPS}.slurm_controller.hosts": {}}, "slurm_nodes", "has hosts, and slurm_controller has none"
    ),
    "there is a controller without nodes": Fault(
        HOSTS, {f"{GROUPS}.slurm_nodes.hosts": {}}, "slurm_nodes", "has no hosts, and slurm_controller has one"
    ),
    "one host has both services": Fault(
        HOSTS, {f"{GROUPS}.dask_gateway.hosts": {"hub1": None}}, "dask_gateway", "its host hub1 is in jupyterhub too"
    ),
    "a group is misspelt": Fault(
        HOSTS, {f"{GROUPS}.slurm_node.hosts": {"node5": None}}, "slurm_node", "no playbook works on; write slurm_nodes"
    ),
    "the controller is another cluster's": Fault(
        SLURM,
        {"slurm_controller_host": "controller.example.org"},
        "slurm_controller_host",
        "is not the host of the group",
    ),
    "the site's batch cluster has no address": Fault(
        SLURM,
        {"slurm_controller_host": GONE},
        "slurm_controller_host",
        "is not defined; what to write: SlurmctldHost",
        inventory="production",
    ),
    "the site's batch cluster has no key": Fault(
        VAULT,
        {"vault_slurm_munge_key": GONE},
        "vault_slurm_munge_key",
        "is not defined; it must be",
        inventory="production",
    ),
    "the site's slurm.conf is not there": Fault(
        SLURM,
        {"slurm_client_config_file": "/nonexistent/slurm.conf"},
        "slurm_client_config_file",
        "/nonexistent/slurm.conf is no file on this machine",
        inventory="production",
    ),
    # The gateway
    "a database key is too short": Fault(
        VAULT,
        {"vault_dask_gateway_database_keys": ["c2hvcnQ="]},
        "vault_dask_gateway_database_keys",
        "must be a list of at least one key of 32 bytes",
    ),
    "there are no database keys": Fault(
        VAULT, {"vault_dask_gateway_database_keys": []}, "vault_dask_gateway_database_keys", "at least one key"
    ),
    "the users' group is the administrators'": Fault(
        GATEWAY, {"dask_gateway_users_group": "sudo"}, "dask_gateway_users_group", "not the system's group sudo"
    ),
    "the users' group is no name of a group": Fault(
        GATEWAY, {"dask_gateway_users_group": "Dask users"}, "dask_gateway_users_group", "must be the name of a group"
    ),
    "a memory limit is no size": Fault(
        HUB, {"jupyterhub_memory_limit": "8 GiB"}, "jupyterhub_memory_limit", "must be a number with K, M, G or T"
    ),
    "a size of servers is offered twice": Fault(
        HUB, {"jupyterhub_profiles": [SMALL, SMALL]}, "jupyterhub_profiles", "has small twice"
    ),
    "a size of servers has a memory that is no size": Fault(
        HUB,
        {"jupyterhub_profiles": [SMALL | {"memory": "2 GiB"}]},
        "jupyterhub_profiles",
        "the memory of small must be a",
    ),
    "a size of servers has no processor": Fault(
        HUB, {"jupyterhub_profiles": [SMALL | {"cores": 0}]}, "jupyterhub_profiles", "the cores of small must be more"
    ),
    "a server may run for a number, which SLURM would take for minutes": Fault(
        HUB, {"jupyterhub_slurm_time": "43200"}, "jupyterhub_slurm_time", "must be hours:minutes:seconds or days-hours"
    ),
    "a size of servers may run for no time": Fault(
        HUB,
        {"jupyterhub_profiles": [SMALL | {"time": "two hours"}]},
        "jupyterhub_profiles",
        "the time of small must be hours",
    ),
    "a provider of sign-in has no address": Fault(
        HUB,
        oauth_without("jupyterhub_oauth_token_url"),
        "jupyterhub_oauth_token_url",
        "is empty, and jupyterhub_authentication is oauth; what to write: The provider's address that gives",
    ),
    "a provider of sign-in does not know the Hub": Fault(
        HUB, oauth_without("jupyterhub_oauth_client_secret"), "jupyterhub_oauth_client_secret", "is empty, and"
    ),
    "a password would go to a provider without TLS": Fault(
        HUB,
        OAUTH | {"jupyterhub_oauth_authorize_url": "http://accounts.example.org/authorize"},
        "jupyterhub_oauth_authorize_url",
        "must be a whole address that begins with https://",
    ),
    "an address of a provider has a query": Fault(
        HUB,
        OAUTH | {"jupyterhub_oauth_logout_url": "https://accounts.example.org/logout?next=/"},
        "jupyterhub_oauth_logout_url",
        "must be an address without [?], # and user",
    ),
    "a provider of sign-in is asked for nothing": Fault(
        HUB, OAUTH | {"jupyterhub_oauth_scopes": []}, "jupyterhub_oauth_scopes", "is empty; write at least openid"
    ),
    "sign-in by something that does not exist": Fault(
        HUB, {"jupyterhub_authentication": "saml"}, "jupyterhub_authentication", "must be one of pam, oauth"
    ),
    "the Hub does not know the gateway": Fault(
        HUB,
        {"jupyterhub_services": []},
        "jupyterhub_services",
        "has no item for the gateway; write one with `name: dask",
    ),
    "the Hub knows the gateway by another token": Fault(
        HUB,
        {"jupyterhub_services": [{"name": "dask-gateway", "api_token": "x" * 40}]},
        "jupyterhub_services",
        "the api_token of dask-gateway is not dask_gateway_jupyterhub_api_token",
    ),
    "the controller does not know the gateway": Fault(
        CONTROLLER,
        {"slurm_operators": []},
        "slurm_operators",
        "has no item for the gateway; write one with name dask-g",
    ),
    "the controller knows the gateway by another number": Fault(
        GATEWAY, {"dask_gateway_uid": 641}, "slurm_operators", "has another uid for dask-gateway than", CONTROLLER
    ),
    # The firewall
    "a firewall would cut the batch cluster off": Fault(
        SITE,
        {"firewall_enabled": True, "firewall_service_networks": ["10.0.0.4/31"]},
        "firewall_batch_networks",
        "is empty, and firewall_enabled is true; write the addresses of the controller, the nodes",
        "group_vars/all/firewall.yml",
    ),
    "a network is none": Fault(
        SITE, {"firewall_operators_networks": ["10.0.0.300"]}, "firewall_operators_networks", "10.0.0.300, which is no"
    ),
    # Names and certificates
    "an address has a scheme": Fault(
        SITE, {"site_gateway_host": "https://dask.example.org"}, "site_gateway_host", "must be a host name"
    ),
    "a front end has no certificate": Fault(
        COMMON_HUB,
        {"tls_frontend_certificate": GONE},
        "tls_frontend_certificate",
        "is not defined; it must be PEM text",
        "group_vars/jupyterhub/tls_frontend.yml",
    ),
    "a certificate is in another file": Fault(
        HUB,
        {"tls_frontend_certificate": "{{ lookup('ansible.builtin.file', '/nonexistent.crt') }}"},
        "tls_frontend_certificate",
        "needs the file /nonexistent.crt, which does not exist; what to write there: The certificate",
    ),
    "a certificate has expired": Fault(
        GATEWAY,
        {"tls_frontend_certificate": EXPIRED},
        "tls_frontend_certificate",
        "is a certificate that expired on 20",
    ),
    "a certificate is for another name": Fault(
        GATEWAY,
        {"tls_frontend_certificate": STRANGE, "tls_frontend_private_key": STRANGE_KEY},
        "tls_frontend_certificate",
        "is for www.example.org; write one for dask-gateway.staging.example.org",
    ),
    "users' servers have names that the certificate is not for": Fault(
        SITE,
        {"site_notebook_user_domains": True},
        "tls_frontend_certificate",
        r"write one that is for \*\.notebooks\.staging\.example\.org too",
        COMMON_HUB,
    ),
    "a key is another certificate's": Fault(
        VAULT,
        {"vault_tls_frontend_private_key_gateway": STRANGE_KEY},
        "vault_tls_frontend_private_key_gateway",
        "is not the key of tls_frontend_certificate",
    ),
    "a key is no PEM text": Fault(
        VAULT,
        {"vault_tls_frontend_private_key_hub": "MIIC" * 9},
        "vault_tls_frontend_private_key_hub",
        "must be PEM text",
    ),
    "a certificate is no PEM text": Fault(
        HUB, {"tls_frontend_certificate": "MIIC"}, "tls_frontend_certificate", "must be PEM text"
    ),
    "a private key is where the certificate belongs": Fault(
        HUB, {"tls_frontend_certificate": STRANGE_KEY + STRANGE}, "tls_frontend_certificate", "holds a private key"
    ),
    "an authority's file is not there": Fault(
        SITE,
        {"site_ca_certificates": ["/nonexistent.pem"]},
        "site_ca_certificates",
        "/nonexistent.pem is no file on this",
    ),
    "an authority's path is relative": Fault(
        SITE, {"site_ca_certificates": ["files/ca.pem"]}, "site_ca_certificates", "must be an absolute path"
    ),
    "an authority's file holds no certificate": Fault(
        SITE, {"site_ca_certificates": ["/etc/hostname"]}, "site_ca_certificates", "/etc/hostname holds no certificate"
    ),
}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("inventories")
    return {name: filled_in(name, folder) for name in ("staging", "production")}


@pytest.fixture
def copy(good: dict[str, Path], tmp_path: Path):
    return lambda name="staging": copied(good[name], tmp_path)


@pytest.mark.parametrize("name", ["staging", "production"])
def test_an_example_inventory_passes_with_its_vault_filled_in(good: dict[str, Path], name: str):
    assert findings_in(good[name] / "hosts.yml") == []


def test_an_inventory_is_also_given_by_its_folder(good: dict[str, Path]):
    assert findings_in(good["production"]) == []


def test_the_inventory_of_the_scenarios_passes(tmp_path: Path):
    authority = tmp_path / "ca"
    script = REPOSITORY / "molecule/shared/files/make_certificates.py"
    names = ["notebooks.lotus.test", "dask-gateway.lotus.test"]
    subprocess.run([sys.executable, script, authority, "lotus.test", *names], check=True, capture_output=True)

    state = {"scenario_state": str(tmp_path), "scenario_secrets": str(tmp_path / "secrets")}
    assert findings_in(REPOSITORY / "molecule/shared/inventory", extra=state) == []


@pytest.mark.parametrize("name", ["staging", "production"])
def test_an_inventory_overrides_what_all_share_beside_the_link_to_it(copy, name: str):
    inventory = copy(name)
    change(inventory, HUB, {"jupyterhub_services": []})
    [finding] = findings_in(inventory)
    assert (finding.file, finding.subject) == (inventory / HUB, "jupyterhub_services")


def test_a_copy_without_what_all_share_is_told_where_its_links_lead(copy):
    inventory = copy()
    shutil.rmtree(inventory.parent / "common")
    links = [f for f in findings_in(inventory) if f.subject == "link"]
    assert [f.file.relative_to(inventory / "group_vars").as_posix() for f in links] == [
        "all/00-common",
        "dask_gateway/00-common.yml",
        "jupyterhub/00-common.yml",
    ]
    assert "keep this inventory's folder beside inventories/common" in links[0].sentence


def test_a_file_that_ansible_passes_over_is_named(copy):
    inventory = copy()
    change(inventory, "group_vars/jupyterhub.yml", {"jupyterhub_memory_limit": "1G"})
    [finding] = findings_in(inventory)
    assert finding.file == inventory / "group_vars/jupyterhub.yml"
    assert "is not read, because there is the folder jupyterhub/ beside it; move it to" in finding.sentence


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_one_fault_is_told_in_one_sentence(copy, fault: Fault):
    inventory = copy(fault.inventory)
    change(inventory, fault.file, fault.changes)

    found = findings_in(inventory / "hosts.yml")

    assert [(f.file, f.subject) for f in found] == [(inventory / (fault.told_in or fault.file), fault.subject)], found
    assert re.search(fault.sentence, found[0].sentence), found[0].sentence
    assert_no_secret(inventory, report(found, inventory))


def test_a_wildcard_certificate_covers_both_names(copy):
    inventory = copy()
    for group in (HUB, GATEWAY):
        change(inventory, group, {"tls_frontend_certificate": WILDCARD, "tls_frontend_private_key": WILDCARD_KEY})
    assert findings_in(inventory / "hosts.yml") == []


def test_a_certificate_covers_the_names_of_users_servers(copy):
    inventory = copy()
    certificate, key = certificate_for("notebooks.staging.example.org", "*.notebooks.staging.example.org")
    change(inventory, SITE, {"site_notebook_user_domains": True})
    change(inventory, HUB, {"tls_frontend_certificate": certificate, "tls_frontend_private_key": key})
    assert findings_in(inventory / "hosts.yml") == []


def test_two_services_with_one_address_are_refused(copy):
    inventory = copy()
    for group in (HUB, GATEWAY):
        change(inventory, group, {"tls_frontend_certificate": WILDCARD, "tls_frontend_private_key": WILDCARD_KEY})
    change(inventory, SITE, {"site_gateway_host": "{{ site_notebook_host }}"})

    [finding] = findings_in(inventory / "hosts.yml")
    assert "is the same as site_notebook_host" in finding.sentence


def test_an_address_in_another_domain_is_refused(copy):
    inventory = copy()
    certificate, key = certificate_for("dask.example.com")
    change(inventory, SITE, {"site_gateway_host": "dask.example.com"})
    change(inventory, GATEWAY, {"tls_frontend_certificate": certificate, "tls_frontend_private_key": key})

    [finding] = findings_in(inventory / "hosts.yml")
    assert finding.subject == "site_gateway_host"
    assert "must end in .staging.example.org, the value of site_domain" in finding.sentence


def test_everything_is_told_at_once(copy):
    inventory = copy()
    change(inventory, SITE, {"site_name": GONE, "site_support_address": ""})
    change(inventory, VAULT, {"vault_slurm_munge_key": "x", "vault_jupyterhub_crypt_key": GONE})
    change(inventory, HOSTS, {f"{GROUPS}.jupyterhub.hosts.hub2": None})

    assert [f.subject for f in findings_in(inventory / "hosts.yml")] == [
        "site_name",
        "site_support_address",
        "vault_jupyterhub_crypt_key",
        "vault_slurm_munge_key",
        "jupyterhub",
    ]


@pytest.mark.parametrize("name", ["staging", "production"])
def test_without_a_vault_every_secret_is_named_with_how_to_begin(copy, name: str):
    inventory = copy(name)
    wanted = set(yaml.safe_load((inventory / VAULT).read_text()))
    (inventory / VAULT).unlink()

    found = findings_in(inventory / "hosts.yml")

    assert {f.subject for f in found} == wanted
    assert {f.file for f in found} == {inventory / VAULT}
    assert "script/secrets makes it, or copy vault.yml.example to it and fill it in" in report(found, inventory)


@pytest.mark.parametrize("name", ["staging", "production"])
def test_the_text_of_the_example_vault_is_refused(copy, name: str):
    inventory = copy(name)
    wanted = set(yaml.safe_load((inventory / VAULT).read_text()))
    shutil.copy(inventory / f"{VAULT}.example", inventory / VAULT)

    found = findings_in(inventory / "hosts.yml")

    assert {f.subject for f in found} == wanted
    assert all(f.sentence.startswith('still says "CHANGE ME"; write the ') for f in found), found


def test_the_example_vault_names_no_secret_that_nobody_uses(copy):
    for name in ("staging", "production"):
        inventory = copy(name)
        files = [*inventory.rglob("*.yml"), *(inventory.parent / "common").rglob("*.yml")]
        text = "".join(p.read_text() for p in files if p.name != "vault.yml")
        assert [v for v in yaml.safe_load((inventory / VAULT).read_text()) if v not in text] == []


def test_an_ansible_of_another_release_series_is_refused(good: dict[str, Path]):
    [finding] = findings_in(good["staging"], ansible="2.18.7")
    assert (finding.file.name, finding.subject) == ("dev.txt", "ansible-core")
    assert "2.18.7 runs here, and the roles are made for" in finding.sentence


def test_the_playbook_passes_a_good_inventory(good: dict[str, Path]):
    run = ansible_playbook("playbooks/preflight.yml", good["staging"])
    assert run.returncode == 0, run.stdout
    assert "The inventory is complete: 8 hosts" in run.stdout


def test_site_yml_stops_at_a_fault_before_any_host_is_asked(copy):
    inventory = copy()
    change(inventory, VAULT, {"vault_slurm_munge_key": "half a secret", "vault_jupyterhub_crypt_key": GONE})

    run = ansible_playbook("site.yml", inventory)

    assert run.returncode == 2, run.stdout
    assert "2 things to mend before any host is touched" in run.stdout
    assert "vault_jupyterhub_crypt_key: is not defined" in run.stdout
    assert "vault_slurm_munge_key (line " in run.stdout
    assert "half a secret" not in run.stdout + run.stderr
    assert "hub1" not in run.stdout, "a host was asked"
    assert_no_secret(inventory, run.stdout + run.stderr)


def ansible_playbook(playbook: str, inventory: Path) -> subprocess.CompletedProcess[str]:
    command = [shutil.which("ansible-playbook"), "-i", inventory / "hosts.yml", "-vv", playbook]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)


def assert_no_secret(inventory: Path, text: str) -> None:
    vault = yaml.safe_load((inventory / VAULT).read_text())
    values = [v for value in vault.values() for v in (value if isinstance(value, list) else [value])]
    assert [value for value in values if value and len(value) > 5 and value in text] == []
