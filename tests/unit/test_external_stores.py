"""The examples of external secret stores in the operators' guide work as they are written there.

The lookups are those that Ansible brings; HashiCorp Vault's client and the command `pass`, which they ask, are played.
"""

from __future__ import annotations

import base64
import re
import secrets
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import yaml
from inventory_copies import GONE, REPOSITORY, change, copied, filled_in, findings_in

VAULT = "group_vars/all/vault.yml"
STORE = "group_vars/all/store.yml"
GUIDE = (REPOSITORY / "docs/operators.md").read_text()


def example(lookup: str) -> str:
    """The guide's example with this lookup."""
    blocks = re.findall(r"^```yaml\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)
    [found] = [block for block in blocks if lookup in block]
    return found


@pytest.fixture
def inventory(tmp_path: Path):
    """``inventory(example)``: one whose vault lacks what the example defines."""

    def write(text: str) -> Path:
        staging = filled_in("staging", tmp_path)
        defined = [name for name in yaml.safe_load(text) if name.startswith("vault_")]
        assert defined
        change(staging, VAULT, dict.fromkeys(defined, GONE))
        # Elsewhere, as Ansible reads a folder of variables once
        without = findings_in(copied(staging, tmp_path / "without"))
        assert {finding.subject for finding in without} == set(defined)
        (staging / STORE).write_text(text)
        return staging

    return write


@pytest.fixture
def hashicorp(monkeypatch):
    """What HashiCorp Vault's client answers, and how it was asked."""
    store = SimpleNamespace(
        answer={
            "proxy_token": secrets.token_hex(32),
            "database_keys": ",".join(base64.b64encode(secrets.token_bytes(32)).decode() for _ in range(2)),
        },
        asked=[],
    )

    class Client:
        def __init__(self, url, **_):
            self.token = None
            kv = SimpleNamespace(v2=SimpleNamespace(read_secret_version=lambda **asked: self.read(url, **asked)))
            self.secrets = SimpleNamespace(kv=kv)

        def logout(self, **_):
            self.token = None

        def read(self, url, **asked):
            store.asked.append((url, asked["mount_point"], asked["path"], self.token))
            return {"data": {"data": store.answer, "metadata": {"version": 1}}}

    hvac = ModuleType("hvac")
    hvac.Client = Client
    hvac.exceptions = SimpleNamespace(Forbidden=PermissionError, InvalidPath=KeyError)
    monkeypatch.setitem(sys.modules, "hvac", hvac)
    monkeypatch.setenv("VAULT_TOKEN", "of whoever runs the playbook")
    return store


def test_secrets_come_from_hashicorp_vault(inventory, hashicorp):
    staging = inventory(example("vault_kv2_get"))
    assert findings_in(staging) == []
    assert set(hashicorp.asked) == {
        ("https://vault.example.org", "secret", "dask-gateway", "of whoever runs the playbook")
    }


@pytest.mark.parametrize(("key", "named"), [("proxy_token", "proxy_token"), ("database_keys", "database_keys")])
def test_what_hashicorp_vault_answers_is_judged_like_any_other_value(inventory, hashicorp, key, named):
    staging = inventory(example("vault_kv2_get"))
    hashicorp.answer[key] = "short"
    found = findings_in(staging)
    assert found
    assert all(named in finding.subject for finding in found), found


def test_secrets_come_from_a_password_store(inventory, tmp_path, monkeypatch):
    command = tmp_path / "bin/pass"
    command.parent.mkdir()
    kept = secrets.token_hex(32)
    asked = '"--version" | "show dask/jupyterhub_cookie_secret"'
    command.write_text(f'#!/bin/sh\ncase "$*" in {asked}) echo {kept};; *) exit 1;; esac\n')
    command.chmod(0o755)
    monkeypatch.setenv("PATH", str(command.parent), prepend=":")
    staging = inventory(example("passwordstore"))
    assert findings_in(staging) == []

    command.write_text("#!/bin/sh\necho short\n")
    found = findings_in(staging)
    assert found
    assert all("cookie_secret" in finding.subject for finding in found), found
