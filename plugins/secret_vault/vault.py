"""The encrypted file of an inventory's secrets. Its text exists in memory alone."""

from __future__ import annotations

import fcntl
import io
import os
import tempfile
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ansible.parsing.vault import AnsibleVaultError, VaultLib, is_encrypted
from preflight.answers import strings
from preflight.checks import PLACEHOLDER
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import YAMLError
from ruamel.yaml.scalarstring import LiteralScalarString

HEAD = "The secrets of this inventory, made and rotated by script/secrets; seen and edited by ansible-vault.\n"


class VaultError(Exception):
    """The file can't be read or written; the text says why and what to do."""


def plain_text(content: bytes) -> str:
    """A secret as it was given, in lines that end as on Unix; a VaultError for what no file of YAML could keep."""
    try:
        text = content.decode().replace("\r\n", "\n")
    except UnicodeDecodeError:
        raise VaultError("is no text in UTF-8; nothing was changed") from None
    if any(unicodedata.category(sign) in ("Cc", "Zl", "Zp") and sign not in "\n\t" for sign in text):
        raise VaultError("has control characters in it; nothing was changed")
    return text


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Wait until nobody else changes this file, so that no change is lost between reading and writing it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


class Vault:
    """The secrets by name, with the comments that people wrote beside them."""

    def __init__(self, path: Path, vault: VaultLib) -> None:
        self.path = path
        self._vault = vault
        self._yaml = YAML()
        self._yaml.preserve_quotes = True
        self._yaml.width = 10**6
        self.was_plain = False
        self._values = self._read()

    def __contains__(self, name: str) -> bool:
        """Whether there is a value: the text of the example is none."""
        return name in self._values and not any(PLACEHOLDER in text for text in strings(self._values[name]))

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def set(self, name: str, value: str | list[str], comment: str = "") -> None:
        """Give a secret a value, which Ansible will have as it is: it takes texts of a vault for templates, too."""
        known = name in self._values
        if isinstance(value, str) and any(mark in value for mark in ("{{", "{%", "{#")):
            if "endraw" in value:
                raise VaultError(f"{name} can't be kept with the word endraw beside braces; nothing was changed")
            value = f"{{% raw %}}{value}{{% endraw %}}"
        if isinstance(value, str) and "\n" in value:
            value = LiteralScalarString(value)
        self._values[name] = value
        if comment and not known:
            self._values.yaml_set_comment_before_after_key(name, before=comment)

    def write(self) -> None:
        """Put the encrypted text in the file's place at once, readable by its owner alone."""
        text = io.StringIO()
        self._yaml.dump(self._values, text)
        if self._again(text.getvalue()) != text.getvalue():
            raise VaultError(f"{self.path} would not be read as it is written; nothing was changed")
        secret = self._vault.encrypt(text.getvalue())
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # mkstemp makes it with mode 600
        descriptor, name = tempfile.mkstemp(dir=self.path.parent, prefix=".vault-")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(secret)
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(self.path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise

    def _again(self, text: str) -> str:
        """What it is after it was read; empty where it can't be."""
        again = io.StringIO()
        try:
            self._yaml.dump(self._yaml.load(text), again)
        except YAMLError:
            return ""
        return again.getvalue()

    def _read(self) -> CommentedMap:
        if not self.path.exists():
            values = CommentedMap()
            values.yaml_set_start_comment(HEAD)
            return values
        content = self.path.read_bytes()
        self.was_plain = not is_encrypted(content)
        try:
            text = content if self.was_plain else self._vault.decrypt(content)
        except AnsibleVaultError:
            raise VaultError(f"{self.path}: the vault's password does not open it; nothing was changed") from None
        try:
            values = self._yaml.load(text.decode())
        except (YAMLError, UnicodeDecodeError):
            # What is wrong would be told with the line that it is in
            raise VaultError(f"{self.path} is no YAML; mend it with `ansible-vault edit`") from None
        if values is None:
            return CommentedMap()
        if not isinstance(values, CommentedMap):
            raise VaultError(f"{self.path} is no mapping of names to secrets; mend it with `ansible-vault edit`")
        return values
