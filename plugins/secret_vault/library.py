"""Where the vault's password comes from: as for ansible-playbook."""

from __future__ import annotations

import argparse

from ansible import constants
from ansible.cli import CLI
from ansible.parsing.dataloader import DataLoader
from ansible.parsing.vault import VaultLib


def add_password_options(parser: argparse.ArgumentParser) -> None:
    """Let a parser take ansible-playbook's options for it."""
    parser.add_argument("--vault-password-file", action="append", default=[], help="as of ansible-playbook")
    parser.add_argument("--vault-id", action="append", default=[], help="as of ansible-playbook")


def vault_library(options: argparse.Namespace, new: bool) -> VaultLib:
    """What encrypts and decrypts; the password is asked for, twice if new, unless something says where it is."""
    found = CLI.setup_vault_secrets(
        DataLoader(),
        vault_ids=[*constants.DEFAULT_VAULT_IDENTITY_LIST, *options.vault_id],
        vault_password_files=options.vault_password_file,
        create_new_password=new,
    )
    return VaultLib(found)
