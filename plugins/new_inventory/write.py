"""Make one of the examples a site's inventory: its files with their comments, and this site's values in them."""

from __future__ import annotations

import base64
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ansible.parsing.vault import VaultLib
from ruamel.yaml import YAML
from secret_vault.names import VAULT, used_secrets
from secret_vault.vault import Vault, VaultError, plain_text

from new_inventory.questions import OURS

Answers = dict[str, Any]


def write(answers: Answers, examples: Path, folder: Path, library: VaultLib) -> list[str]:
    """Write an inventory into a folder that is not there yet; the names of the secrets that are still missing."""
    ours = answers["batch_cluster"] == OURS
    # It appears when it is whole
    draft = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        shutil.copytree(
            examples / ("staging" if ours else "production"),
            draft,
            symlinks=True,
            dirs_exist_ok=True,
            ignore=lambda path, names: [name for name in names if name in ("files", "vault.yml", "users.md")],
        )
        (draft / "files").mkdir()
        _hosts(draft, answers, ours)
        _variables(draft, answers, ours)
        _files(draft, answers)
        missing = _secrets(draft, answers, library)
        try:
            draft.rename(folder)
        except OSError:
            if not folder.exists():
                raise
            raise VaultError(f"{folder} was made by somebody else meanwhile, and is left as it is") from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return missing


def _hosts(draft: Path, answers: Answers, ours: bool) -> None:
    def change(hosts: Any) -> None:
        everything = hosts["all"]
        everything["vars"]["ansible_user"] = answers["ansible_user"]
        groups = everything["children"]
        groups["jupyterhub"]["hosts"] = {answers["hub_host"]: None}
        groups["dask_gateway"]["hosts"] = {answers["gateway_host"]: None}
        groups["login"]["hosts"] = dict.fromkeys(answers["login_hosts"])
        if ours:
            groups["slurm_controller"]["hosts"] = {answers["slurm_controller_host"]: None}
            groups["slurm_nodes"]["hosts"] = dict.fromkeys(answers["node_hosts"])

    _edit(draft / "hosts.yml", change)


def _variables(draft: Path, answers: Answers, ours: bool) -> None:
    everywhere = draft / "group_vars/all"
    gateway = {"dask_gateway_uid": answers["gateway_uid"]}
    directory = {key: answers[key] for key in answers if key.startswith("directory_client_")}
    if answers["users_group"] != "dask":  # as inventories/common has it
        gateway["dask_gateway_users_group"] = answers["users_group"]
        directory["directory_client_probe_group"] = answers["users_group"]
    slurm: Answers = {key: answers[key] for key in ("slurm_cluster_name", "slurm_controller_host")}
    if ours:
        names = ",".join(host.partition(".")[0] for host in answers["node_hosts"])
        node = {"NodeName": names, "CPUs": answers["node_cpus"], "RealMemory": answers["node_memory"]}
        slurm["slurm_nodes"] = [node]
        _edit(draft / "group_vars/slurm_controller.yml", lambda values: _controller(values, answers))
    _edit(everywhere / "site.yml", {key: answers[key] for key in answers if key.startswith("site_")}.items())
    _edit(everywhere / "directory_client.yml", directory.items())
    _edit(everywhere / "slurm.yml", slurm.items())
    _edit(draft / "group_vars/dask_gateway/dask_gateway.yml", gateway.items())
    (everywhere / "accounts_check.yml").write_text(_accounts_check(answers))


def _controller(values: Any, answers: Answers) -> None:
    values["slurm_accounts"][0].update(
        name=answers["slurm_account"],
        description=answers["slurm_account"],
        organization=answers["slurm_cluster_name"],
        users=answers["slurm_account_users"],
    )
    values["slurm_operators"] = [{"name": "dask-gateway", "uid": answers["gateway_uid"]}]


def _accounts_check(answers: Answers) -> str:
    if not answers["accounts_check_portal_url"]:
        return (
            "# Who may use the service: the members of a group of the directory (dask_gateway_users_group)\n"
            "accounts_check_backend: group\n"
        )
    return (
        "# Who may use the service: the accounts portal says who holds it\n"
        f"accounts_check_portal_url: {json.dumps(answers['accounts_check_portal_url'])}\n"
        "# This service's OAuth2 client there, which may ask for the grants of all users\n"
        f"accounts_check_client_id: {json.dumps(answers['accounts_check_client_id'])}\n"
        'accounts_check_client_secret: "{{ vault_accounts_check_client_secret }}"\n'
    )


def _files(draft: Path, answers: Answers) -> None:
    names = {
        "notebook_certificate": "notebooks.crt",
        "gateway_certificate": "dask-gateway.crt",
        "slurm_conf": "slurm.conf",
    }
    for key, name in names.items():
        if answers.get(key):
            shutil.copyfile(answers[key], draft / "files" / name)


def _secrets(draft: Path, answers: Answers, library: VaultLib) -> list[str]:
    vault = Vault(draft / VAULT, library)
    given = {
        "vault_tls_frontend_private_key_hub": "notebook_private_key",
        "vault_tls_frontend_private_key_gateway": "gateway_private_key",
        "vault_directory_bind_password": "directory_bind_password_file",
        "vault_accounts_check_client_secret": "accounts_client_secret_file",
    }
    used = used_secrets(draft)
    for secret in used:
        path = answers.get(given.get(secret.name, ""))
        if secret.kind.make:
            value = secret.kind.make()
            vault.set(secret.name, [value] if secret.kind.several else value, secret.kind.what)
        elif secret.name == "vault_slurm_munge_key" and answers.get("munge_key_file"):
            key = Path(answers["munge_key_file"]).read_bytes()
            vault.set(secret.name, base64.b64encode(key).decode(), secret.kind.what)
        elif path:
            try:
                text = plain_text(Path(path).read_bytes())
            except VaultError:
                raise VaultError(f"{path} is no text without control characters; nothing was written") from None
            vault.set(secret.name, text if "PRIVATE KEY" in text else text.strip(), secret.kind.what)
    vault.write()
    return [secret.name for secret in used if secret.name not in vault]


def _edit(path: Path, change: Callable[[Any], None] | Any) -> None:
    """Change values of a YAML file and keep its comments."""
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 10**6
    yaml.indent(mapping=2, sequence=4, offset=2)
    values = yaml.load(path.read_text())
    if callable(change):
        change(values)
    else:
        values.update(change)
    with path.open("w") as file:
        yaml.dump(values, file)
