"""What an inventory answers: a variable's value as one host would see it, and where it was written."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError, AnsibleUndefinedVariable
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar

try:
    from ansible._internal._datatag._tags import Origin
except ImportError:  # not a public interface: without it, findings name files by convention only
    Origin = None

# What the person reading "'vault_x' is undefined" has to define
UNDEFINED = re.compile(r"'(?P<name>\w+)' is undefined")
# What a lookup of a file says when there is none
LOST_FILE = re.compile(r"Unable to access the file '(?P<path>[^']+)': File not found")
# A value that is nothing but another variable, such as "{{ vault_slurm_munge_key }}"
ALIAS = re.compile(r"\{\{\s*(?P<name>[A-Za-z]\w*)\s*\}\}")


@dataclass
class Value:
    """What became of a variable."""

    value: Any = None
    # False where it needs something that is known on the host only, such as a fact
    known: bool = True
    # Names that it needs and nobody defined
    undefined: list[str] = field(default_factory=list)
    # Why it can't be worked out otherwise
    fault: str = ""

    @property
    def usable(self) -> bool:
        """Whether there is a value to check."""
        return self.known and not self.undefined and not self.fault

    @property
    def lost_file(self) -> str:
        """The file that it is the content of, and that does not exist."""
        match = LOST_FILE.search(self.fault)
        return match["path"] if match else ""


class Variables:
    """The variables of one host, in the context of one role or of none."""

    def __init__(self, loader: DataLoader, variables: Mapping[str, Any]) -> None:
        self._loader = loader
        self._variables = variables
        self._values: dict[str, Value] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._variables

    def __iter__(self) -> Iterator[str]:
        return iter(self._variables)

    def raw(self, name: str) -> Any:
        """What was written, templates unresolved."""
        return self._variables.get(name)

    def get(self, name: str) -> Value:
        """The value of a variable, unknown where nobody wrote one."""
        if name not in self._values:
            written = name in self._variables
            self._values[name] = self._evaluate(self._variables[name]) if written else Value(known=False)
        return self._values[name]

    def text(self, name: str, form: Callable[[str], str | None] | None = None) -> str:
        """A string that is there and, where a format is given, has it; else an empty one."""
        value = self.get(name)
        if not value.usable or not isinstance(value.value, str):
            return ""
        return "" if form and form(value.value) else value.value

    def origin(self, name: str) -> tuple[Path, int] | None:
        """The file and line where the variable was written, if a file it was."""
        tag = Origin.get_tag(self._variables.get(name)) if Origin else None
        return (Path(tag.path), tag.line_num or 0) if tag and tag.path else None

    def culprit(self, name: str) -> str:
        """The variable to mend when this one's value is wrong: itself, or the one it stands for."""
        raw = self.raw(name)
        alias = ALIAS.fullmatch(raw.strip()) if isinstance(raw, str) else None
        if alias and alias["name"] in self:
            return self.culprit(alias["name"])
        return name

    def holds(self, condition: Any) -> bool:
        """Whether a `when` is true; one that needs the host to be asked is taken for true."""
        try:
            return Templar(self._loader, self._variables).evaluate_conditional(condition)
        except AnsibleError:
            return True

    def _evaluate(self, raw: Any) -> Value:
        undefined: list[str] = []
        variables = self._variables
        while True:
            try:
                value = Templar(self._loader, variables).template(raw)
                return Value(value, undefined=undefined)
            except AnsibleUndefinedVariable as error:
                match = UNDEFINED.search(str(error))
                if not match or match["name"].startswith(("_", "ansible_")):
                    return Value(known=False, undefined=undefined)
                if match["name"] in variables:
                    return Value(fault=_first_sentence(error), undefined=undefined)
                # Go on as if it were defined: there may be more of them
                undefined.append(match["name"])
                variables = {**variables, match["name"]: "undefined"}
            except AnsibleError as error:
                # A later fault of a value that lacks a part of it says nothing
                return Value(fault="" if undefined else _first_sentence(error), undefined=undefined)


def _first_sentence(error: AnsibleError) -> str:
    return str(error).splitlines()[0].partition(" Use -v")[0].rstrip(".")
