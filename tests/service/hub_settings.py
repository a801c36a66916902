"""The Hub as another site would have it: by the same roles, with other values for some variables."""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import scenario


@contextmanager
def hub_with(**values) -> Iterator[None]:
    """The Hub runs with these values, and on leaving the block as the inventory has it."""
    try:
        play_hub(values)
        yield
    finally:
        play_hub({})


def play_hub(values: dict) -> None:
    """Configure the Hub."""
    done = subprocess.run(
        [
            "ansible-playbook",
            "--inventory",
            scenario.INVENTORY,
            "--extra-vars",
            json.dumps(values),
            "tests/service/hub_settings.yml",
        ],
        cwd=scenario.REPOSITORY,
        env=os.environ | scenario.PLAIN_OUTPUT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr
