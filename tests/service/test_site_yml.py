"""What operators do again and again."""

import os
import re
import subprocess

import pytest
import scenario

HOSTS = [host for host in scenario.HOSTS if host != "site"]


def unchanged_by(*options: str) -> set[str]:
    """The hosts on which site.yml has changed nothing, which must be all that it was for."""
    done = subprocess.run(
        ["ansible-playbook", "--inventory", scenario.INVENTORY, *options, "site.yml"],
        cwd=scenario.REPOSITORY, env=os.environ | scenario.PLAIN_OUTPUT, capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr
    counts = dict(re.findall(r"^(\S+) +: ok=.*changed=(\d+)", done.stdout, flags=re.MULTILINE))
    assert set(counts.values()) == {"0"}, done.stdout[-20000:]
    return set(counts)


@pytest.mark.long
def test_a_check_of_the_installed_service_works_and_would_change_nothing():
    assert unchanged_by("--check", "--diff") >= set(HOSTS)


@pytest.mark.long
@pytest.mark.parametrize("host", HOSTS)
def test_one_host_by_itself_is_what_all_together_have_made_of_it(host):
    assert unchanged_by("--limit", f"{host},localhost") == {host, "localhost"}
