"""script/secrets: what it makes, what it leaves alone, and that it never writes a plain text."""

from __future__ import annotations

import base64
import subprocess
import time
from pathlib import Path

import pytest
import yaml
from ansible.constants import DEFAULT_VAULT_ID_MATCH
from ansible.parsing.dataloader import DataLoader
from ansible.parsing.vault import VaultLib, VaultSecret
from ansible.template import Templar, trust_as_template
from inventory_copies import REPOSITORY, change, copied, filled_in, findings_in
from secret_vault.kinds import KINDS
from secret_vault.names import used_secrets

VAULT = "group_vars/all/vault.yml"
PASSWORD = "correct horse battery staple"
PROXY_TOKEN = "vault_dask_gateway_proxy_token"
KEYS = "vault_dask_gateway_database_keys"


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("inventories")
    return {name: filled_in(name, folder) for name in ("staging", "production")}


@pytest.fixture
def inventory(filled: dict[str, Path], tmp_path: Path):
    """``inventory("staging")``: a copy without a vault."""

    def make(name: str = "staging") -> Path:
        copy = copied(filled[name], tmp_path)
        (copy / VAULT).unlink()
        return copy

    return make


@pytest.fixture
def password_file(tmp_path: Path) -> Path:
    path = tmp_path / "password"
    path.write_text(f"{PASSWORD}\n")
    return path


@pytest.fixture
def secrets(password_file: Path):
    """``secrets(inventory, "--rotate", name)``: run the script."""

    def run(inventory: Path, *arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
        command = [REPOSITORY / "script/secrets", inventory, "--vault-password-file", password_file, *arguments]
        return subprocess.run(command, input=given, capture_output=True, text=True, check=False)

    return run


def opened(inventory: Path) -> dict:
    library = VaultLib([(DEFAULT_VAULT_ID_MATCH, VaultSecret(PASSWORD.encode()))])
    return yaml.safe_load(library.decrypt((inventory / VAULT).read_bytes()))


def sealed(inventory: Path, text: str) -> None:
    library = VaultLib([(DEFAULT_VAULT_ID_MATCH, VaultSecret(PASSWORD.encode()))])
    (inventory / VAULT).write_bytes(library.encrypt(text))


@pytest.mark.parametrize("name", ["staging", "production"])
def test_the_secrets_of_an_inventory_are_those_of_its_example(filled: dict[str, Path], name: str):
    example = yaml.safe_load((REPOSITORY / "inventories" / name / f"{VAULT}.example").read_text())
    assert {secret.name for secret in used_secrets(filled[name])} == set(example)
    assert {secret.option for secret in used_secrets(filled[name])} <= set(KINDS)


def test_what_can_be_made_is_made_and_the_rest_is_asked_for(filled, inventory, secrets):
    staging = inventory()

    done = secrets(staging)

    assert done.returncode == 1, done.stderr
    given = ["vault_directory_bind_password", *(f"vault_tls_frontend_private_key_{s}" for s in ("gateway", "hub"))]
    assert [line.split(":")[0] for line in done.stdout.splitlines() if "still missing" in line] == given
    assert oct((staging / VAULT).stat().st_mode) == "0o100600"
    assert (staging / VAULT).read_text().startswith("$ANSIBLE_VAULT;")
    assert [p.name for p in (staging / VAULT).parent.iterdir() if p.name.startswith(".")] == []

    values = yaml.safe_load((filled["staging"] / VAULT).read_text())
    for name in given:
        assert secrets(staging, "--set", name, given=values[name]).returncode in (0, 1)
    assert secrets(staging).returncode == 0
    made = opened(staging)
    assert {name: made[name].strip() for name in given} == {name: values[name].strip() for name in given}
    # Preflight says whether each is what its variable asks for
    (staging / VAULT).write_text(yaml.safe_dump(made))
    assert findings_in(staging) == []
    text = done.stdout + done.stderr
    values = {name: "".join(value) if isinstance(value, list) else value for name, value in made.items()}
    assert [name for name, value in values.items() if value in text] == []


def test_the_munge_key_of_the_sites_own_batch_cluster_is_not_made(inventory, secrets):
    production = inventory("production")
    done = secrets(production)
    assert "vault_slurm_munge_key: still missing. Give the munge key of the site's batch cluster" in done.stdout
    assert "vault_slurm_munge_key" not in opened(production)
    refused = secrets(production, "--rotate", "vault_slurm_munge_key")
    assert refused.returncode == 2
    assert "is not ours to make" in refused.stderr


def test_what_exists_is_never_changed_comments_included(inventory, secrets):
    staging = inventory()
    kept = f'# Mine, since 2019\n{PROXY_TOKEN}: "{"a" * 40}"  # as it was\nvault_of_something_else: 1\n'
    sealed(staging, kept)

    assert secrets(staging).returncode == 1

    library = VaultLib([(DEFAULT_VAULT_ID_MATCH, VaultSecret(PASSWORD.encode()))])
    assert library.decrypt((staging / VAULT).read_bytes()).decode().startswith(kept)
    before = (staging / VAULT).read_bytes()
    assert "Nothing was changed" in secrets(staging).stdout
    assert (staging / VAULT).read_bytes() == before


def test_the_text_of_the_example_counts_as_missing(inventory, secrets):
    staging = inventory()
    sealed(staging, (staging / f"{VAULT}.example").read_text())
    secrets(staging)
    assert len(opened(staging)[PROXY_TOKEN]) == 64
    assert "CHANGE ME" in opened(staging)["vault_directory_bind_password"]


def test_a_plain_file_is_encrypted_and_that_is_said(inventory, secrets):
    staging = inventory()
    (staging / VAULT).write_text(f"{PROXY_TOKEN}: {'b' * 40}\n")
    done = secrets(staging)
    assert "was not encrypted, and is now" in done.stdout
    assert opened(staging)[PROXY_TOKEN] == "b" * 40
    assert oct((staging / VAULT).stat().st_mode) == "0o100600"


def test_one_secret_is_rotated_and_no_other(inventory, secrets):
    staging = inventory()
    secrets(staging)
    before = opened(staging)

    done = secrets(staging, "--rotate", PROXY_TOKEN)

    assert "the proxy restarts" in done.stdout
    after = opened(staging)
    assert after[PROXY_TOKEN] != before[PROXY_TOKEN]
    assert {**after, PROXY_TOKEN: ""} == {**before, PROXY_TOKEN: ""}
    assert after[PROXY_TOKEN] not in done.stdout + done.stderr


def test_a_new_database_key_comes_first_and_the_earlier_ones_stay_until_they_are_retired(inventory, secrets):
    staging = inventory()
    secrets(staging)
    [first] = opened(staging)[KEYS]

    secrets(staging, "--rotate", KEYS)
    secrets(staging, "--rotate", KEYS)

    third, second, oldest = opened(staging)[KEYS]
    assert oldest == first
    assert {len(base64.b64decode(key)) for key in (third, second, oldest)} == {32}
    secrets(staging, "--retire", KEYS)
    assert opened(staging)[KEYS] == [third]


@pytest.mark.parametrize(
    ("arguments", "given", "sentence"),
    [
        (["--rotate", "vault_nothing"], "", "vault_nothing is none of this inventory's secrets, which are vault_"),
        (["--rotate", "vault_directory_bind_password"], "", "is not ours to make: give the password of directory_cli"),
        (["--set", "vault_tls_frontend_private_key_hub"], "half a key", "must be PEM text"),
        (["--set", "vault_directory_bind_password"], " \n", "is empty"),
        (["--set", KEYS], "c2hvcnQ=", "must be a list of at least one key of 32 bytes"),
        (["--retire", PROXY_TOKEN], "", "has no earlier values to retire"),
    ],
)
def test_what_makes_no_sense_is_refused_with_a_sentence_and_changes_nothing(
    inventory, secrets, arguments, given, sentence
):
    staging = inventory()
    secrets(staging)
    before = (staging / VAULT).read_bytes()
    done = secrets(staging, *arguments, given=given)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert "half a key" not in done.stderr
    assert (staging / VAULT).read_bytes() == before


def test_another_password_is_refused(inventory, secrets, password_file):
    staging = inventory()
    secrets(staging)
    before = (staging / VAULT).read_bytes()
    password_file.write_text("another\n")
    done = secrets(staging, "--rotate", PROXY_TOKEN)
    assert done.returncode == 2
    assert "the vault's password does not open it; nothing was changed" in done.stderr
    assert (staging / VAULT).read_bytes() == before


def test_a_secret_from_an_external_store_is_not_made(inventory, secrets):
    staging = inventory()
    change(
        staging, "group_vars/all/store.yml", {PROXY_TOKEN: "{{ lookup('ansible.builtin.pipe', 'pass show proxy') }}"}
    )
    assert PROXY_TOKEN not in secrets(staging).stdout
    assert PROXY_TOKEN not in opened(staging)


def test_a_folder_that_is_no_inventory_is_named(secrets, tmp_path):
    done = secrets(tmp_path)
    assert done.returncode == 2
    assert "is no inventory of this repository: it has no hosts.yml" in done.stderr


@pytest.mark.parametrize("password", ["x{{ 7 * 7 }}y", "a{%b", "ab{# c #}d", "{{", 'it\'s \\ "quoted" # {{ : }}'])
def test_a_password_is_what_was_given_also_where_ansible_would_take_it_for_a_template(inventory, secrets, password):
    staging = inventory()
    secrets(staging)
    done = secrets(staging, "--set", "vault_directory_bind_password", given=f"{password}\n")
    assert "vault_directory_bind_password: set" in done.stdout, done.stderr
    kept = trust_as_template(opened(staging)["vault_directory_bind_password"])
    assert Templar(DataLoader()).template(kept) == password


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (b"a\x1b\nb\n", "has control characters"),
        (b"\x00\n-----BEGIN", "has control characters"),
        (b"p\xe4ssword\n", "is no text in UTF-8"),
        (b"{{ endraw", "the word endraw"),
    ],
)
def test_what_no_vault_could_keep_is_refused_and_changes_nothing(inventory, secrets, password_file, given, sentence):
    staging = inventory()
    secrets(staging)
    before = (staging / VAULT).read_bytes()
    command = [REPOSITORY / "script/secrets", staging, "--vault-password-file", password_file]
    done = subprocess.run(
        [*command, "--set", "vault_directory_bind_password"], input=given, capture_output=True, check=False
    )
    assert done.returncode == 2
    assert sentence in done.stderr.decode()
    assert (staging / VAULT).read_bytes() == before


def test_two_who_change_it_at_once_lose_nothing(inventory, secrets, password_file):
    """One of them has been asked for a value, and gives it when the other has come and gone."""
    staging = inventory()
    secrets(staging)
    command = [REPOSITORY / "script/secrets", staging, "--vault-password-file", password_file]
    slow = subprocess.Popen([*command, "--set", "vault_directory_bind_password"], stdin=subprocess.PIPE)
    # Longer than it takes to open the file
    time.sleep(4)
    assert f"{KEYS}: rotated" in secrets(staging, "--rotate", KEYS).stdout
    rotated = opened(staging)[KEYS]
    slow.communicate(b"let me in\n", timeout=30)
    assert opened(staging)["vault_directory_bind_password"] == "let me in"
    assert opened(staging)[KEYS] == rotated

    several = [subprocess.Popen([*command, "--rotate", KEYS]) for _ in range(4)]
    for one in several:
        one.wait(timeout=60)
    assert len(opened(staging)[KEYS]) == len(rotated) + 4
