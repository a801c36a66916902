"""What operators do again and again."""

import os
import re
import subprocess

import scenario


def test_a_check_of_the_installed_service_works():
    done = subprocess.run(
        ["ansible-playbook", "--inventory", scenario.INVENTORY, "--check", "--diff", "site.yml"],
        cwd=scenario.REPOSITORY,
        env=os.environ | scenario.PLAIN_OUTPUT,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr
    checked = set(re.findall(r"^(\S+) +: ok=", done.stdout, flags=re.MULTILINE))
    assert checked >= {host for host in scenario.HOSTS if host != "site"}
