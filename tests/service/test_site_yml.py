"""What operators do again and again."""

import os
import re
import subprocess

import pytest
import scenario


@pytest.mark.long
def test_a_check_of_the_installed_service_works_and_would_change_nothing():
    done = subprocess.run(
        ["ansible-playbook", "--inventory", scenario.INVENTORY, "--check", "--diff", "site.yml"],
        cwd=scenario.REPOSITORY,
        env=os.environ | scenario.PLAIN_OUTPUT,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr
    changed = dict(re.findall(r"^(\S+) +: ok=.*changed=(\d+)", done.stdout, flags=re.MULTILINE))
    assert set(changed) >= {host for host in scenario.HOSTS if host != "site"}
    assert {host: count for host, count in changed.items() if count != "0"} == {}, done.stdout[-20000:]


@pytest.mark.long
@pytest.mark.parametrize("host", [host for host in scenario.HOSTS if host != "site"])
def test_one_host_by_itself_is_what_all_together_have_made_of_it(host):
    done = subprocess.run(
        ["ansible-playbook", "--inventory", scenario.INVENTORY, "--limit", f"{host},localhost", "site.yml"],
        cwd=scenario.REPOSITORY,
        env=os.environ | scenario.PLAIN_OUTPUT,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr
    changed = dict(re.findall(r"^(\S+) +: ok=.*changed=(\d+)", done.stdout, flags=re.MULTILINE))
    assert changed == {host: "0", "localhost": "0"}, done.stdout[-20000:]
