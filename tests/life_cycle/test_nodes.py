"""Nodes leave the batch cluster and come to it, while alice computes."""

import json
import re
import subprocess

import pytest
import scenario
import yaml
from bare_host import bare_host
from computation import ENDLESS as COMPUTATION  # noqa: F401 - what the fixture runs

GROWN = [{"NodeName": "node[1-3]", "CPUs": 8, "RealMemory": 4000}]


def state_of(node: str) -> str:
    return scenario.host("controller").check_output("sinfo -h -n %s -o %%T", node).splitlines()[0]


def job_state(job: str) -> str:
    shown = scenario.host("controller").check_output("scontrol --oneliner show job %s", job)
    return re.search(r"JobState=(\w+)", shown)[1]


def test_a_busy_node_stays_and_an_idle_one_leaves_and_comes_back(computation):
    controller = scenario.host("controller")
    busy = set(controller.check_output("squeue -h -u alice -o %N").split())
    (idle,) = {"node1", "node2"} - busy  # a small cluster fits on one
    (busy,) = busy

    # Nor does it stop where it is just taken out of the inventory, or the controller is not asked
    alone = scenario.playbook("slurm", "-e", json.dumps({"slurm_nodes": [{**GROWN[0], "NodeName": idle}]}))
    assert alone.returncode != 0
    assert "remove-node.yml -e node=" in alone.stdout
    assert "of alice on" in alone.stdout
    limited = scenario.playbook("remove-node", "-e", f"node={busy}", "--limit", busy)
    assert limited.returncode != 0
    assert "slurmd goes on" in limited.stdout
    assert scenario.host(busy).service("slurmd").is_running
    assert state_of(busy) == "mixed"

    limited = scenario.playbook("add-node", "-e", f"node={busy}", "--limit", f"{busy},localhost")
    assert limited.returncode != 0
    assert "leave out --limit" in " ".join(limited.stdout.split())
    assert "changed=0" in limited.stdout
    assert "TASK [slurm" not in limited.stdout

    refused = scenario.playbook("remove-node", "-e", f"node={busy}", "-e", "remove_node_minutes=0.1")
    assert refused.returncode != 0
    assert f"{busy} was not removed and takes jobs again" in refused.stdout
    assert "alice" in refused.stdout
    # After `state=resume` slurmctld asks the node anew whether it is there
    scenario.wait_until("the node takes jobs", lambda: state_of(busy) == "mixed", timeout=30)
    # So it does again after a run that was interrupted; what others have drained stays so
    for reason, state, said in (
        ("remove-node.yml", "mixed", "takes jobs again"),
        ("its disk fails", "draining", "stays drained"),
    ):
        controller.check_output("scontrol update nodename=%s state=drain reason=%s", busy, reason)
        refused = scenario.playbook("remove-node", "-e", f"node={busy}", "-e", "remove_node_minutes=0.1")
        assert refused.returncode != 0
        assert f"{busy} was not removed and {said}" in " ".join(refused.stdout.split())
        scenario.wait_until(f"the node is {state}", lambda s=state: state_of(busy) == s, timeout=30)
    controller.check_output("scontrol update nodename=%s state=resume", busy)
    scenario.wait_until("the node takes jobs", lambda: state_of(busy) == "mixed", timeout=30)

    # Of the other one the only job ends in time
    submitted = scenario.as_user("login", "alice", f"sbatch --parsable --nodelist={idle} --wrap 'sleep 30'")
    job = submitted.stdout.strip()
    scenario.wait_until("her job runs", lambda: job_state(job) == "RUNNING")
    gone = scenario.playbook("remove-node", "-e", f"node={idle}", "-e", "remove_node_minutes=2")
    try:
        assert gone.returncode == 0, gone.stdout[-4000:]
        assert job_state(job) == "COMPLETED"
        assert state_of(idle) == "drained"
        assert not scenario.host(idle).service("slurmd").is_running
        again = scenario.playbook("remove-node", "-e", f"node={idle}")
        assert "changed=0" in again.stdout, again.stdout[-4000:]
        assert "changed=1" not in again.stdout
    finally:
        back = scenario.playbook("add-node", "-e", f"node={idle}")
    assert back.returncode == 0, back.stdout[-4000:]
    assert state_of(idle) == "idle"
    twice = scenario.playbook("add-node", "-e", f"node={idle}")
    assert set(re.findall(r"changed=(\d+)", twice.stdout)) == {"0"}, twice.stdout[-4000:]
    assert computation.line("result") == "42"


@pytest.fixture
def grown(release):
    """Playbooks with one node more, as an operator writes it into the two places of an inventory."""
    inventory = release / "molecule/shared/inventory"
    for file, change in {
        "hosts.yml": lambda all_of_it: all_of_it["all"]["children"]["slurm_nodes"]["hosts"].update(node3=None),
        "group_vars/all/slurm.yml": lambda variables: variables.update(slurm_nodes=GROWN),
    }.items():
        content = yaml.safe_load((inventory / file).read_text())
        change(content)
        (inventory / file).write_text(yaml.safe_dump(content))

    def play(book: str, *arguments: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            ["ansible-playbook", "--inventory", inventory, f"playbooks/{book}.yml", *arguments],
            cwd=release, env=scenario.OF_A_COPY,
            capture_output=True, text=True, timeout=1500,
        )  # fmt: skip

    return play


def test_a_host_that_never_was_a_node_becomes_one_and_leaves_for_good(computation, grown):
    controller = scenario.host("controller")
    running = set(controller.check_output("squeue -h -u alice -o %i").split())
    unknown = scenario.playbook("add-node", "-e", "node=node3")
    assert unknown.returncode != 0
    assert "Write the new node into hosts.yml" in unknown.stdout

    with bare_host("node3", "node3", like="node1", aliases=("node3", f"node3.{scenario.site()['site_domain']}")):
        added = grown("add-node", "-e", "node=node3")
        try:
            assert added.returncode == 0, added.stdout[-6000:] + added.stderr
            assert state_of("node3") == "idle"
            assert controller.check_output("scontrol show node node1 | grep -c CPUTot=8") == "1"
            twice = grown("add-node", "-e", "node=node3")
            assert set(re.findall(r"changed=(\d+)", twice.stdout)) == {"0"}, twice.stdout[-6000:]
            # As herself, with her home and the environment of all
            program = "module load jaspy && python -c 'import distributed, getpass; print(getpass.getuser())'"
            ran = scenario.as_user("login", "alice", f'srun --nodelist=node3 bash -lc "{program} && touch on-node3"')
            assert ran.returncode == 0, ran.stderr
            assert ran.stdout.strip() == "alice"
            assert scenario.as_user("login", "alice", "rm on-node3").returncode == 0
        finally:
            gone = grown("remove-node", "-e", "node=node3", "-e", "remove_node_minutes=1")
    without = scenario.playbook("slurm")
    assert gone.returncode == 0, gone.stdout[-4000:]
    assert without.returncode == 0, without.stdout[-6000:]
    assert controller.check_output("sinfo -h -N -p standard -o %N").split() == ["node1", "node2"]
    assert set(controller.check_output("squeue -h -u alice -o %i").split()) == running
    assert computation.line("result") == "42"
