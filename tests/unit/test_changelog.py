"""The changelog is what operators read before an upgrade, and what the scenario of the upgrade goes by."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
CHANGELOG = (REPOSITORY / "docs/CHANGELOG.md").read_text()
SECTIONS = dict(re.findall(r"(?ms)^## (\S+)\n(.*?)(?=^## |\Z)", CHANGELOG))


def test_the_first_section_is_this_version_and_names_the_release_before():
    version = (REPOSITORY / "VERSION").read_text().strip()
    assert next(iter(SECTIONS)) == version
    assert f"Release before: {list(SECTIONS)[1]}." in SECTIONS[version]


def test_everything_that_is_built_has_this_version():
    version = (REPOSITORY / "VERSION").read_text().strip()
    built = {
        path: tomllib.loads(path.read_text())["project"]["version"] for path in REPOSITORY.glob("src/*/pyproject.toml")
    }
    assert set(built.values()) == {version}, built


def test_every_release_before_is_named_by_its_commit():
    for version, text in list(SECTIONS.items())[1:]:
        assert re.search(r"Commit `[0-9a-f]{40}`", text), version


def test_each_release_has_a_page_of_what_the_operator_does():
    for version, text in SECTIONS.items():
        page = REPOSITORY / f"docs/releases/{version}.md"
        assert f"](releases/{version}.md)" in text
        assert page.read_text().startswith(f"# Release {version}: ")
    assert {page.stem for page in (REPOSITORY / "docs/releases").glob("*.md")} == SECTIONS.keys()


def test_a_page_says_what_to_do_before_and_after_unless_there_was_no_release_before():
    for version in list(SECTIONS)[:-1]:
        page = (REPOSITORY / f"docs/releases/{version}.md").read_text()
        assert re.findall(r"(?m)^## (Before|The upgrade|After)", page) == ["Before", "The upgrade", "After"], version
