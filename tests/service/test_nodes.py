"""A node leaves the batch cluster and comes back, while alice computes."""

import re

import pytest
import scenario
from computation import Computation

COMPUTATION = """
while True:
    print("result", client.submit(lambda: time.sleep(1) or 6 * 7, pure=False).result(), flush=True)
"""


@pytest.fixture
def computation(token_file, no_clusters_left):
    token_file("alice")
    running = Computation("alice", COMPUTATION, timeout=900)
    yield running
    running.end()


def state_of(node: str) -> str:
    return scenario.host("controller").check_output("sinfo -h -n %s -o %%T", node).splitlines()[0]


def job_state(job: str) -> str:
    shown = scenario.host("controller").check_output("scontrol --oneliner show job %s", job)
    return re.search(r"JobState=(\w+)", shown)[1]


@pytest.mark.long
def test_a_busy_node_stays_and_an_idle_one_leaves_and_comes_back(computation):
    controller = scenario.host("controller")
    busy = set(controller.check_output("squeue -h -u alice -o %%N").split())
    (idle,) = {"node1", "node2"} - busy  # a small cluster fits on one
    (busy,) = busy

    refused = scenario.playbook("remove-node", "-e", f"node={busy}", "-e", "remove_node_minutes=0.1")
    assert refused.returncode != 0
    assert f"{busy} was not removed and takes jobs again" in refused.stdout
    assert "alice" in refused.stdout
    # After `state=resume` slurmctld asks the node anew whether it is there
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
