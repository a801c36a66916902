"""Hosts are lost with their disks, and new ones are installed and get the backup.

First those of the Hub and of the gateway: alice's cluster runs on the nodes all the while, her token is known again,
and so is her cluster. Then the controller's, which ends all jobs; what they were is in the accounting again.
"""

import json
import os
import subprocess

import scenario
from upgrade.found_again import FIND

LOST = ("hub", "gateway")
CLUSTER = """
import dask_gateway
gw = dask_gateway.Gateway(auth="jupyterhub")
cluster = gw.new_cluster(shutdown_on_close=False)
cluster.scale(1)
client = cluster.get_client()
client.wait_for_workers(1)
kept = client.submit(lambda: 6 * 7)
assert kept.result() == 42
client.publish_dataset(kept=kept)
print("cluster", cluster.name)
"""


def playbook(*arguments: str) -> str:
    done = subprocess.run(
        ["ansible-playbook", "--inventory", scenario.INVENTORY, *arguments],
        cwd=scenario.REPOSITORY, env=os.environ | scenario.PLAIN_OUTPUT, capture_output=True, text=True, timeout=3000,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr
    return done.stdout


def jobs() -> set[str]:
    return set(scenario.host("controller").check_output("squeue -h -u alice -o %i").split())


def lose(*hosts: str) -> None:
    """Let bare hosts be in the place of these."""
    for host in hosts:
        subprocess.run(["docker", "rm", "--force", "--volumes", f"{scenario.PREFIX}-{host}"], check=True)
    playbook("molecule/shared/create.yml")


def test_alices_token_and_her_running_cluster_are_found_again_on_fresh_hosts(
    login_python, hub_user, backup_variables, tmp_path
):
    made = login_python("alice", CLUSTER)
    assert made.returncode == 0, made.stderr
    cluster, running = made.stdout.split()[-1], jobs()
    backup = ["-e", f"@{backup_variables}"]
    playbook("playbooks/backup.yml", *backup)
    (taken,) = (tmp_path / "fetched").iterdir()

    lose(*LOST)
    # An admin of the configuration is in the empty Hub's database at once, younger than the backup
    admins = json.dumps({"jupyterhub_admin_users": ["carol"]})
    playbook("site.yml", "--limit", ",".join([*LOST, "localhost"]), "-e", admins)
    unknown = login_python("alice", FIND.format(cluster))
    assert unknown.returncode != 0, "her token was to be unknown on the fresh hosts"
    assert jobs() == running, "an empty gateway leaves alone what it does not know"

    playbook("playbooks/restore.yml", "--limit", ",".join(LOST), *backup, "-e", f"restore_set={taken.name}")

    found = login_python("alice", FIND.format(cluster))
    assert found.stdout.splitlines()[-3:] == [f"['{cluster}']", "42", "shut down"], found.stderr
    scenario.wait_until("no job is left", lambda: not scenario.jobs_of("alice"))
    # Her server was on the host that was lost; the Hub sees that, and starts another
    alice = hub_user("alice")
    alice.start_server()
    assert alice.server_answers()
    alice.stop_server()


RECORDS = "sacct -nXPD -a -S 2020-01-01 -o Submit,JobID,User,State,Elapsed,Account"
CLUSTER_SHUT_DOWN = CLUSTER + "cluster.shutdown()\n"
ACCOUNTS = "sacctmgr -nP show assoc format=cluster,account,user,share,qos"
NODES = "sinfo --noheader --Node --format %T"


def test_what_jobs_were_is_in_the_accounting_again_on_a_fresh_controller(login_python, backup_variables, tmp_path):
    made = login_python("alice", CLUSTER_SHUT_DOWN)
    assert made.returncode == 0, made.stderr
    scenario.wait_until("no job is left", lambda: not scenario.jobs_of("alice"))
    scenario.wait_until("their ends are known", lambda: "RUNNING" not in records())
    before = records()
    assert "|alice|" in before
    accounts = scenario.host("controller").check_output(ACCOUNTS)
    backup = ["--limit", "controller", "-e", f"@{backup_variables}"]
    playbook("playbooks/backup.yml", *backup)
    (taken,) = (tmp_path / "fetched").iterdir()

    lose("controller")
    playbook("site.yml", "--limit", "controller,localhost")
    assert "|alice|" not in records()
    playbook("playbooks/restore.yml", *backup, "-e", f"restore_set={taken.name}")

    assert set(before.splitlines()) <= set(records().splitlines())
    assert scenario.host("controller").check_output(ACCOUNTS) == accounts
    # Nodes have found the new controller, and what alice does next is recorded beside what she did
    controller = scenario.host("controller")
    scenario.wait_until("nodes take jobs", lambda: set(controller.check_output(NODES).split()) == {"idle"})
    again = login_python("alice", CLUSTER_SHUT_DOWN)
    assert again.returncode == 0, again.stderr
    scenario.wait_until("it is recorded", lambda: records().count("|alice|") > before.count("|alice|"))


def records() -> str:
    """All jobs that the accounting knows, those whose number came twice too."""
    return scenario.host("controller").check_output(RECORDS)
