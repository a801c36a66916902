"""Which units have started before what they read has changed."""

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "plugins/modules"))

import unit_starts

STARTED, NOW = 1_000_000, 2_000_000
RUNS = f"ActiveState=active\nActiveEnterTimestamp=@{STARTED}\n"


@pytest.fixture
def changed_at(tmp_path):
    """``changed_at(seconds)``: a file, and a link to another place, both of that time."""

    def make(file: int, link: int) -> list[str]:
        (tmp_path / "unit.env").touch()
        os.utime(tmp_path / "unit.env", (file, file))
        (tmp_path / "environment").symlink_to("/nowhere")
        os.utime(tmp_path / "environment", (link, link), follow_symlinks=False)
        return [str(tmp_path / "*.env"), str(tmp_path / "environment"), str(tmp_path / "missing")]

    return make


@pytest.mark.parametrize(
    ("file", "link", "outdated"),
    [
        (STARTED - 1, STARTED - 1, False),
        (STARTED, STARTED, False),
        (STARTED + 1, STARTED - 1, True),
        (STARTED - 1, STARTED + 1, True),
        (NOW + 60, STARTED - 1, False),
    ],
)
def test_a_unit_is_outdated_by_a_file_or_a_link_that_changed_after_its_start(changed_at, file, link, outdated):
    assert unit_starts.older(RUNS, changed_at(file, link), NOW) is outdated


@pytest.mark.parametrize(
    "shown",
    [
        f"ActiveState=inactive\nActiveEnterTimestamp=@{STARTED}\n",
        "ActiveState=active\nActiveEnterTimestamp=\n",
        "",
    ],
)
def test_a_unit_that_does_not_run_is_never(changed_at, shown):
    assert not unit_starts.older(shown, changed_at(STARTED + 1, STARTED + 1), NOW)
