"""`script/secrets`: what a person types."""

from __future__ import annotations

import argparse
import getpass
import sys
from pathlib import Path

from ansible.errors import AnsibleError

from secret_vault.kinds import fault
from secret_vault.library import add_password_options, vault_library
from secret_vault.names import VAULT, Secret, used_secrets
from secret_vault.vault import Vault, VaultError, alone, plain_text


def main() -> int:
    """Do what was asked; 0: nothing is missing, 1: somebody has to give something, 2: it could not be done."""
    options = _parser().parse_args()
    inventory = Path(options.inventory)
    if not (inventory / "hosts.yml").is_file():
        return _fail(f"{inventory} is no inventory of this repository: it has no hosts.yml")
    try:
        secrets = {secret.name: secret for secret in used_secrets(inventory)}
        file = inventory / VAULT
        library = vault_library(options, new=not file.exists())
        named = options.rotate or options.set or options.retire
        if named and named not in secrets:
            raise VaultError(f"{named} is none of this inventory's secrets, which are {', '.join(secrets)}")
        # A wrong password is told before a value is asked for, and nobody else has to wait while somebody types
        Vault(file, library)
        value = _typed(secrets[named]) if options.set else ""
        with alone(file):
            vault = Vault(file, library)
            said = _change(options, secrets, vault, value)
    except (AnsibleError, VaultError, OSError) as error:
        return _fail(str(error))
    print("\n".join(said))
    return _missing(inventory, secrets.values(), vault)


def _change(options: argparse.Namespace, secrets: dict[str, Secret], vault: Vault, value: str | list[str]) -> list[str]:
    """Make what is missing, or change the one that was named; what was done, as sentences without a value."""
    if options.set:
        secret = secrets[options.set]
        vault.set(secret.name, value, secret.kind.what)
        said = [f"{secret.name}: set"]
    elif options.rotate:
        said = [_rotated(secrets[options.rotate], vault)]
    elif options.retire:
        said = [_retired(secrets[options.retire], vault)]
    else:
        said = [_made(secret, vault) for secret in secrets.values() if secret.kind.make and secret.name not in vault]
        if not said and vault.path.exists() and not vault.was_plain:
            return ["Nothing was changed: every secret that can be made is there."]
        if vault.was_plain:
            said.append(f"{vault.path} was not encrypted, and is now.")
    vault.write()
    return said


def _made(secret: Secret, vault: Vault) -> str:
    value = secret.kind.make()
    vault.set(secret.name, [value] if secret.kind.several else value, secret.kind.what)
    return f"{secret.name}: made ({secret.kind.what})"


def _rotated(secret: Secret, vault: Vault) -> str:
    if not secret.kind.make:
        raise VaultError(f"{secret.name} is not ours to make: give {secret.kind.what}, with --set {secret.name}")
    if secret.name not in vault:
        return _made(secret, vault)
    value = secret.kind.make()
    if secret.kind.several:
        value = [value, *(key for key in vault[secret.name] if key != value)]
    vault.set(secret.name, value)
    return f"{secret.name}: rotated. With playbooks/rotate.yml: {secret.kind.cost}."


def _typed(secret: Secret) -> str | list[str]:
    """The value that somebody gives; a VaultError where it can't be one."""
    if sys.stdin.isatty():
        content = getpass.getpass(f"{secret.name} ({secret.kind.what}; of several lines: < FILE): ").encode(
            errors="surrogateescape"
        )
    else:
        content = sys.stdin.buffer.read()
    try:
        text = plain_text(content).strip()
    except VaultError as error:
        raise VaultError(f"{secret.name} {error}") from None
    # PEM text keeps its lines
    value: str | list[str] = text.split() if secret.kind.several else f"{text}\n" if "\n" in text else text
    wrong = fault(secret.option, value)
    if wrong:
        raise VaultError(f"{secret.name} {wrong}; nothing was changed")
    return value


def _retired(secret: Secret, vault: Vault) -> str:
    if not secret.kind.several:
        raise VaultError(f"{secret.name} has no earlier values to retire: there is one at a time")
    if secret.name not in vault:
        raise VaultError(f"{secret.name} has no value yet: run script/secrets without an option")
    earlier = len(vault[secret.name]) - 1
    vault.set(secret.name, vault[secret.name][:1])
    return f"{secret.name}: {earlier} earlier ones retired; playbooks/rotate.yml refuses where one is still needed"


def _missing(inventory: Path, secrets: object, vault: Vault) -> int:
    missing = [secret for secret in secrets if secret.name not in vault]
    for secret in missing:
        print(f"{secret.name}: still missing. Give {secret.kind.what}: script/secrets {inventory} --set {secret.name}")
    return 1 if missing else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="script/secrets",
        description="Make the secrets that an inventory uses and does not have yet, in its encrypted "
        f"{VAULT}. What is there is never changed, unless it is named.",
        epilog="Exit code 0: nothing is missing, 1: somebody has to give something (each is named), 2: it could not be "
        "done, and nothing was changed.",
    )
    parser.add_argument("inventory", help="an inventory's folder, such as inventories/production")
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--rotate",
        metavar="NAME",
        help="make a new one of this name; of several at once, such as database keys, the new one comes first",
    )
    what.add_argument("--set", metavar="NAME", help="read this one from standard input, or ask for it")
    what.add_argument("--retire", metavar="NAME", help="of several at once, keep the first alone")
    add_password_options(parser)
    return parser


def _fail(sentence: str) -> int:
    print(f"error: {sentence}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
