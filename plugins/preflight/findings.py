"""What is wrong with an inventory, as sentences for the person who has to mend it."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path


@dataclass(frozen=True, order=True)
class Finding:
    """One thing to mend: in which file, about what (a variable, a group), and what to write."""

    file: Path
    subject: str
    sentence: str
    line: int = 0

    def __str__(self) -> str:
        place = f" (line {self.line})" if self.line else ""
        return f"{self.subject}{place}: {self.sentence}"


def report(findings: Iterable[Finding], folder: Path) -> str:
    """Tell each finding once, under the name of its file relative to a folder."""
    paragraphs = []
    for file, of_file in groupby(sorted(set(findings)), key=lambda finding: finding.file):
        lines = [f"{relative(file, folder)}{_how_to_begin(file)}:"]
        lines += [_item(str(finding)) for finding in of_file]
        paragraphs.append("\n".join(lines))
    return "\n\n".join(paragraphs)


def relative(file: Path, folder: Path) -> Path:
    """Shorten a path that lies below a folder."""
    return file.relative_to(folder) if file.is_relative_to(folder) else file


def _item(text: str) -> str:
    return textwrap.fill(
        text,
        width=110,
        initial_indent="  - ",
        subsequent_indent="    ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _how_to_begin(file: Path) -> str:
    if file.exists():
        return ""
    example = file.with_name(f"{file.name}.example")
    if example.exists():
        return f" (does not exist yet: script/secrets makes it, or copy {example.name} to it and fill it in)"
    return " (does not exist yet)"
