"""All of the service is taken away at once, while alice computes: the last thing that this scenario's hosts see."""

import os
import re
import subprocess

import scenario
from upgrade.test_restore_on_fresh_hosts import CLUSTER

KEPT = f"{scenario.site()['site_home_directory']}/alice/kept.txt"
HOSTS = [host for host in scenario.HOSTS if host != "site"]
# Packages stay on hosts of the release before, which remembered nothing of them; no daemon of theirs runs
LEFT = """
systemctl list-units --no-legend --plain --state=active,failed 'dask-gateway*' 'jupyter*' 'slurm*' munge.service
find /etc/systemd/system -name 'dask-gateway*' -o -name 'jupyter*'
"""


def uninstall(*options: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        ["ansible-playbook", "--inventory", scenario.INVENTORY, "playbooks/uninstall.yml",
         "-e", "uninstall=yes", "-e", "uninstall_backup=false", *options],
        cwd=scenario.REPOSITORY, env=os.environ | scenario.PLAIN_OUTPUT, capture_output=True, text=True, timeout=1500,
    )  # fmt: skip


def test_all_hosts_are_given_back_and_homes_are_not_touched(login_python, hub_user):
    alice = hub_user("alice")
    scenario.put_file("login", "alice", KEPT, "mine")
    alice.start_server()
    made = login_python("alice", CLUSTER)
    assert made.returncode == 0, made.stderr

    refused = uninstall()
    assert refused.returncode != 0
    assert "clusters of alice" in refused.stdout
    assert alice.server_answers()

    done = uninstall("-e", "uninstall_running=end")

    assert done.returncode == 0, done.stdout[-8000:] + done.stderr
    for host in HOSTS:
        assert scenario.host(host).run(LEFT).stdout == "", host
        assert scenario.host(host).run("pgrep --uid alice").stdout == "", host
    assert scenario.host("node1").check_output("find /apps ! -type d") == ""
    assert scenario.host("site").check_output("cat %s", KEPT) == "mine"
    again = uninstall("-e", "uninstall_running=end")
    assert again.returncode == 0, again.stdout[-8000:]
    assert set(re.findall(r"changed=(\d+)", again.stdout)) == {"0"}
