"""What users had under the release before is theirs after an upgrade; the scenario `upgrade` has installed it."""

import json
import os
import subprocess

import pytest
import scenario
from computation import Computation

pytestmark = pytest.mark.skipif(
    not os.environ.get("DASK_SERVICE_RELEASE_BEFORE"), reason="the release before is installed by the scenario upgrade"
)

COMPUTATION = """
kept = client.submit(lambda: 6 * 7)
assert kept.result() == 42
client.publish_dataset(kept=kept)
time.sleep(3600)
"""
FIND = """
import dask_gateway
gw = dask_gateway.Gateway(auth="jupyterhub")
print([c.name for c in gw.list_clusters()])
cluster = gw.connect("{}")
client = cluster.get_client()
print(client.get_dataset("kept").result())
cluster.scale(2)
client.wait_for_workers(2, timeout=120)
cluster.shutdown()
print("shut down")
"""


@pytest.fixture
def computation(token_file):
    token_file("alice")
    running = Computation("alice", COMPUTATION, timeout=3000)
    yield running
    running.end()


def test_clusters_tokens_servers_and_accounting_of_the_release_before_live_through_the_upgrade(
    computation, alices_server, login_python, hub_user, tmp_path
):
    assert login_python("alice", "").returncode == 0  # with the token that she goes on with
    controller = scenario.host("controller")
    jobs = set(controller.check_output("squeue -h -u alice -o %i").split())
    server = alices_server.server_pid()
    variables = tmp_path / "canary.json"
    token = hub_user("carol").new_token(note="canary")
    variables.write_text(json.dumps({"dask_gateway_canary_user": "carol", "dask_gateway_canary_token": token}))
    variables.chmod(0o600)
    done = subprocess.run(
        ["ansible-playbook", "--inventory", scenario.INVENTORY, "playbooks/upgrade.yml", "-e", f"@{variables}"],
        cwd=scenario.REPOSITORY, env=os.environ | scenario.PLAIN_OUTPUT, capture_output=True, text=True, timeout=3000,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr

    assert jobs <= set(controller.check_output("squeue -h -u alice -o %i").split())
    assert alices_server.server_pid() == server
    assert alices_server.server_answers()
    found = login_python("alice", FIND.format(computation.cluster))
    assert found.stdout.splitlines()[-3:] == [f"['{computation.cluster}']", "42", "shut down"], found.stderr
    scenario.wait_until("no job is left", lambda: not scenario.jobs_of("alice"))
    records = controller.check_output("sacct -nXP -a -S 2020-01-01 -o JobID").split()
    assert jobs <= set(records)
