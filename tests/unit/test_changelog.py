"""The changelog is what operators read before an upgrade, and what the scenario of the upgrade goes by."""

from __future__ import annotations

import re
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
CHANGELOG = (REPOSITORY / "docs/CHANGELOG.md").read_text()
SECTIONS = dict(re.findall(r"(?ms)^## (\S+)\n(.*?)(?=^## |\Z)", CHANGELOG))


def test_the_first_section_is_this_version_and_names_the_release_before():
    version = (REPOSITORY / "VERSION").read_text().strip()
    assert next(iter(SECTIONS)) == version
    assert f"Release before: {list(SECTIONS)[1]}." in SECTIONS[version]


def test_every_release_before_is_named_by_its_commit():
    for version, text in list(SECTIONS.items())[1:]:
        assert re.search(r"Commit `[0-9a-f]{40}`", text), version


def test_what_is_there_for_the_operator_is_said_of_each_release_but_the_first():
    for version, text in list(SECTIONS.items())[:-1]:
        assert "What to do in the inventory" in text, version
