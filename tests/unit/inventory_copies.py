"""Inventories for tests: copies of this repository's, their vaults filled in, and then broken."""

from __future__ import annotations

import base64
import secrets
import shutil
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import init_plugin_loader
from ansible.vars.hostvars import HostVars
from ansible.vars.manager import VariableManager
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from preflight.checks import all_findings
from preflight.findings import Finding
from preflight.inventory import Inventory
from preflight.roles import Project

REPOSITORY = Path(__file__).parents[2]

# Instead of a value: the variable is taken out
GONE = object()


def filled_in(name: str, folder: Path) -> Path:
    """Copy an inventory of this repository with what it stands on, and write what its example vault asks for."""
    inventory = folder / name
    for part in ("common", name):
        _copy_once(REPOSITORY / "inventories" / part, folder / part)
    files = inventory / "files"
    files.mkdir(exist_ok=True)
    vault = yaml.safe_load((inventory / "group_vars/all/vault.yml.example").read_text())
    for variable in vault:
        if variable.startswith("vault_tls_frontend_private_key_"):
            continue
        vault[variable] = secrets.token_hex(32)
    if "vault_slurm_munge_key" in vault:
        vault["vault_slurm_munge_key"] = base64.b64encode(secrets.token_bytes(128)).decode()
    vault["vault_dask_gateway_database_keys"] = [base64.b64encode(secrets.token_bytes(32)).decode()]
    domain = yaml.safe_load((inventory / "group_vars/all/site.yml").read_text())["site_domain"]
    for host, service in {"notebooks": "hub", "dask-gateway": "gateway"}.items():
        certificate, key = certificate_for(f"{host}.{domain}")
        (files / f"{host}.crt").write_text(certificate)
        vault[f"vault_tls_frontend_private_key_{service}"] = key
    (inventory / "group_vars/all/vault.yml").write_text(yaml.safe_dump(vault))
    (files / "slurm.conf").write_text("ClusterName=lotus\n")
    return inventory


def copied(inventory: Path, folder: Path) -> Path:
    """Copy an inventory that was filled in, with what it stands on."""
    for part in ("common", inventory.name):
        _copy_once(inventory.parent / part, folder / part)
    return folder / inventory.name


def _copy_once(source: Path, target: Path) -> None:
    if not target.exists():
        shutil.copytree(source, target, symlinks=True)


def certificate_for(*names: str, days: int = 90) -> tuple[str, str]:
    """Make a certificate and its key as PEM text; one of less than 0 days has expired."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, names[0])])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=100))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(n) for n in names]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return certificate.public_bytes(serialization.Encoding.PEM).decode(), private.decode()


def change(inventory: Path, file: str, changes: dict[str, Any]) -> None:
    """Set or take out variables, given as a.b.c where they are nested, in one file."""
    path = inventory / file
    data = yaml.safe_load(path.read_text()) if path.exists() else {}
    for place, value in changes.items():
        *parents, name = place.split(".")
        target = data
        for parent in parents:
            target = target[parent] if parent in target else target.setdefault(parent, {})
        if value is GONE:
            del target[name]
        else:
            target[name] = value
    path.write_text(yaml.safe_dump(data))


def findings_in(
    source: Path, extra: dict[str, Any] | None = None, ansible: str | None = None, folder: Path = REPOSITORY
) -> list[Finding]:
    """What preflight finds in an inventory, without a process of Ansible's."""
    loader, project = _project(folder)
    inventory = InventoryManager(loader, sources=[str(source)])
    manager = VariableManager(loader, inventory)
    manager.extra_vars.update(extra or {})
    hostvars = HostVars(inventory, manager, loader)
    seen = Inventory(project, loader, hostvars, inventory.get_groups_dict(), [str(source)])
    return all_findings(seen, ansible or pinned_ansible())


@cache
def _project(folder: Path) -> tuple[DataLoader, Project]:
    """The roles and playbooks, read once for all tests."""
    init_plugin_loader()
    loader = DataLoader()
    loader.set_basedir(str(folder))
    return loader, Project(folder, loader)


def pinned_ansible() -> str:
    """The version in the lock file."""
    lines = (REPOSITORY / "requirements/dev.txt").read_text().splitlines()
    return next(line.split("==")[1].split()[0] for line in lines if line.startswith("ansible-core=="))
