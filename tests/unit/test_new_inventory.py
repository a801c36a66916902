"""script/new-inventory: from answers to an inventory that preflight accepts."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from ansible.constants import DEFAULT_VAULT_ID_MATCH
from ansible.parsing.vault import VaultLib, VaultSecret
from inventory_copies import REPOSITORY, certificate_for, findings_in

VAULT = "group_vars/all/vault.yml"
PASSWORD = "correct horse battery staple"

SITE = {
    "site_name": "Moon base",
    "site_domain": "moon.test",
    "site_support_address": "help@moon.test",
    "site_accounts_apply_url": "https://accounts.moon.test/apply/",
    "hub_host": "hub7",
    "gateway_host": "gateway7",
    "login_hosts": ["login7", "login8"],
    "directory_client_uri": "ldaps://directory.moon.test",
    "directory_client_search_base": "dc=moon,dc=test",
    "directory_client_bind_dn": "cn=reader,dc=moon,dc=test",
    "slurm_cluster_name": "crater",
}
OWN = {
    "batch_cluster": "own",
    "slurm_controller_host": "controller7",
    "node_hosts": ["node7", "node8"],
    "node_cpus": 4,
    "node_memory": 8000,
    "slurm_account": "geology",
    "slurm_account_users": ["neil"],
    "users_group": "moonwalkers",
    "gateway_uid": 777,
}
EXISTING = {
    "batch_cluster": "existing",
    "slurm_controller_host": "slurm.moon.test",
    "accounts_check_portal_url": "https://accounts.moon.test",
}


@pytest.fixture
def inventories(tmp_path: Path) -> Path:
    return Path(shutil.copytree(REPOSITORY / "inventories", tmp_path / "inventories", symlinks=True))


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """Answers that are files: certificates, their keys, and what the site gives."""
    texts = {"directory_bind_password_file": "let me in\n", "accounts_client_secret_file": "ours alone\n"}
    for service, host in (("notebook", "notebooks"), ("gateway", "dask-gateway")):
        certificate, key = certificate_for(f"{host}.moon.test")
        texts |= {f"{service}_certificate": certificate, f"{service}_private_key": key}
    texts |= {"slurm_conf": "ClusterName=crater\n", "munge_key_file": "m" * 128}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    return {name: str(tmp_path / name) for name in texts}


@pytest.fixture
def new_inventory(inventories: Path, tmp_path: Path):
    """``new_inventory(answers)``: run the script with an answers file, or with what is typed."""

    def run(answers: dict | None, name: str = "moon", typed: str = "") -> subprocess.CompletedProcess[str]:
        (tmp_path / "password").write_text(f"{PASSWORD}\n")
        command = [REPOSITORY / "script/new-inventory", name, "--folder", inventories]
        command += ["--vault-password-file", tmp_path / "password"]
        if answers is not None:
            (tmp_path / "answers.yml").write_text(yaml.safe_dump(answers))
            command += ["--answers", tmp_path / "answers.yml"]
        return subprocess.run(command, input=typed, capture_output=True, text=True, check=False)

    return run


def without_vault(inventory: Path) -> Path:
    """The inventory with its vault opened, for preflight without a process of Ansible's."""
    library = VaultLib([(DEFAULT_VAULT_ID_MATCH, VaultSecret(PASSWORD.encode()))])
    (inventory / VAULT).write_bytes(library.decrypt((inventory / VAULT).read_bytes()))
    return inventory


@pytest.mark.parametrize(("kind", "login"), [(OWN, True), (EXISTING, True), (EXISTING, False)])
def test_an_inventory_from_answers_passes_preflight(new_inventory, inventories, files, kind, login):
    only = {"munge_key_file", "slurm_conf"} if kind is OWN else set()
    answers = SITE | kind | {name: path for name, path in files.items() if name not in only}
    answers["login_hosts"] = SITE["login_hosts"] if login else []

    done = new_inventory(answers)

    assert done.returncode == 0, done.stderr
    assert "Still to give" not in done.stdout
    assert (inventories / "moon" / VAULT).read_text().startswith("$ANSIBLE_VAULT;")
    assert oct((inventories / "moon" / VAULT).stat().st_mode) == "0o100600"
    assert findings_in(without_vault(inventories / "moon")) == []
    assert "example.org" not in "".join(p.read_text() for p in (inventories / "moon").rglob("*.yml"))
    assert [p.name for p in inventories.iterdir() if p.name.startswith(".")] == []


def test_what_is_not_given_yet_is_named_here_and_by_preflight(new_inventory, inventories):
    done = new_inventory(SITE | OWN)
    missing = {line.split()[-1] for line in done.stdout.splitlines() if line.startswith("Still to give")}
    assert missing == {
        "vault_directory_bind_password",
        "vault_tls_frontend_private_key_gateway",
        "vault_tls_frontend_private_key_hub",
    }
    found = findings_in(without_vault(inventories / "moon"))
    assert {f.subject for f in found} == missing | {"tls_frontend_certificate"}


def test_an_inventory_that_exists_is_never_touched(new_inventory, inventories):
    before = {path: path.read_bytes() for path in (inventories / "production").rglob("*") if path.is_file()}
    done = new_inventory(SITE | OWN, name="production")
    assert done.returncode == 2
    assert "exists, and is left as it is" in done.stderr
    assert {path: path.read_bytes() for path in (inventories / "production").rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("name", ["common", "../moon", "Moon", ""])
def test_a_name_that_is_none_is_refused(new_inventory, name):
    done = new_inventory(SITE | OWN, name=name)
    assert done.returncode == 2
    assert "is no name for an inventory" in done.stderr


def test_everything_that_is_wrong_with_answers_is_told_at_once_and_nothing_written(new_inventory, inventories, files):
    wrong = {
        "site_domain": "https://moon.test",
        "site_support_address": 5,
        "hub_host": "gateway7",
        "node_cpus": "many",
        "login_hosts": "login7",
        "node_hosts": ["node7.moon.test"],
        "users_group": "sudo",
        "notebook_certificate": files["notebook_private_key"],
        "site_ca_certificates": ["ca.pem"],
        "moons": 1,
    }
    answers = SITE | OWN | wrong
    del answers["site_name"]

    done = new_inventory(answers)

    assert done.returncode == 2
    assert "11 answers to mend, nothing was written" in done.stderr
    for sentence in (
        "site_name: is not answered. The site's name",
        "site_domain: must be a domain such as example.org",
        "site_support_address: must be a text",
        "gateway_host: is the host of the notebook service too",
        "node_cpus: must be a number above 0",
        "login_hosts: must be a list",
        "node_hosts: must be the name of a host without its domain",
        "users_group: must be a group of the directory made for this",
        "holds a private key",
        "site_ca_certificates: must be the absolute path of a file",
        "moons: is no question; there are ",
    ):
        assert sentence in done.stderr
    assert not (inventories / "moon").exists()


def test_it_asks_again_until_an_answer_is_one(new_inventory, inventories):
    answers = SITE | OWN
    directory = [answers[key] for key in answers if key.startswith("directory")]
    order = [
        answers["site_name"], "moon/test", answers["site_domain"], "help@moon.test", SITE["site_accounts_apply_url"],
        "", "", "", "", "hub7", "gateway7", "login7 login8", *directory,
        "moonwalkers", "", "", "mine", "own", "crater", "controller7", "node7 node8", "4", "8000", "geology", "neil",
        "777", *[""] * 6,
    ]  # fmt: skip
    done = new_inventory(None, typed="\n".join(order) + "\n")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "That must be a domain such as example.org" in done.stdout
    assert "That must be own or existing" in done.stdout
    assert yaml.safe_load((inventories / "moon/hosts.yml").read_text())["all"]["children"]["slurm_nodes"]["hosts"] == {
        "node7": None,
        "node8": None,
    }


def test_questions_without_answers_end_it_with_nothing_written(new_inventory, inventories):
    done = new_inventory(None, typed="Moon base\n")
    assert done.returncode == 2
    assert "given up, nothing was written" in done.stderr
    assert not (inventories / "moon").exists()
