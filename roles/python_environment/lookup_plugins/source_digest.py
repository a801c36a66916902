"""A digest of files and source folders on the controller."""

from __future__ import annotations

import hashlib
from pathlib import Path

from ansible.errors import AnsibleError
from ansible.plugins.lookup import LookupBase

DOCUMENTATION = """
name: source_digest
author: The maintainers of this service
short_description: A digest of files and source folders on the controller
description:
  - Answers one SHA-256 in hexadecimal that changes when a file's content changes, or when a file of a folder comes,
    goes or changes its name. What tools leave in a source folder does not count.
options:
  _terms:
    description: Paths of files and folders, or names in a folder files/ that Ansible looks through.
    required: true
  salt:
    description: Text that goes into the digest too.
    default: ""
    type: str
"""

LEFTOVERS = {"__pycache__", "build", "dist"}


def source_files(folder: Path) -> list[Path]:
    """Return the files of a source folder, in an order that does not depend on the machine."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.is_file()
        and not any(
            part in LEFTOVERS or part.startswith(".") or part.endswith(".egg-info")
            for part in path.relative_to(folder).parts
        )
    )


def digest(paths: list[Path], salt: str) -> str:
    """Digest names and contents, each with its length, so that no two trees run into the same text."""
    state = hashlib.sha256()

    def add(piece: bytes) -> None:
        state.update(b"%d:" % len(piece))
        state.update(piece)

    add(salt.encode())
    for path in paths:
        if path.is_dir():
            for file in source_files(path):
                add(file.relative_to(path).as_posix().encode())
                add(file.read_bytes())
        else:
            add(path.read_bytes())
        add(b"")
    return state.hexdigest()


class LookupModule(LookupBase):
    """The lookup as Ansible calls it."""

    def run(self, terms, variables=None, **kwargs):
        """Return a list of one digest."""
        self.set_options(var_options=variables, direct=kwargs)
        try:
            paths = [self.find_file_in_search_path(variables, "files", term, ignore_missing=True) for term in terms]
            if None in paths:
                raise AnsibleError(f"{terms[paths.index(None)]} is not on the controller")
            return [digest([Path(path) for path in paths], self.get_option("salt"))]
        except OSError as error:
            raise AnsibleError(f"{error.filename} can't be read on the controller: {error.strerror}") from error
