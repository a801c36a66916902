"""Operators rotate secrets while alice computes."""

import base64
import json
import os
import subprocess
from collections.abc import Iterator

import pytest
import scenario
from computation import Computation

SECRETS = scenario.STATE / "secrets"
ROTATED = f"{scenario.site()['site_home_directory']}/alice/rotated"
COMPUTATION = """
import pathlib

client.run_on_scheduler(lambda dask_scheduler: setattr(dask_scheduler, "seen_by_alice", True))
while not pathlib.Path("rotated").exists():
    time.sleep(0.5)
again = gw.connect(cluster.name)
client = again.get_client()
print("scheduler", client.run_on_scheduler(lambda dask_scheduler: getattr(dask_scheduler, "seen_by_alice", False)))
print("result", client.submit(sum, range(100)).result(), flush=True)
again.shutdown()
print("shut down", flush=True)
"""


@pytest.fixture
def computation(token_file, no_clusters_left) -> Iterator[Computation]:
    token_file("alice")
    with scenario.removed_after("login", ROTATED):
        running = Computation("alice", COMPUTATION, timeout=400)
        yield running
        running.end()


def rotate(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["ansible-playbook", "--inventory", scenario.INVENTORY, *options, "playbooks/rotate.yml"],
        cwd=scenario.REPOSITORY, env=os.environ | scenario.PLAIN_OUTPUT, capture_output=True, text=True, timeout=600,
    )  # fmt: skip


def gateway_secrets() -> str:
    return scenario.host("gateway").check_output("cat /etc/dask-gateway/gateway.env")


@pytest.mark.long
def test_keys_and_tokens_are_rotated_and_no_cluster_is_lost(computation):
    """The scenario's own secrets: each comes from a file of its state, which is made anew where it is missing."""
    before, jobs = gateway_secrets(), scenario.jobs_of("alice")
    key = SECRETS / "dask_gateway_database_key"
    earlier = len(list(SECRETS.glob(f"{key.name}.*")))
    key.rename(key.with_name(f"{key.name}.{earlier + 1:03}"))
    (SECRETS / "dask_gateway_proxy_token").unlink()
    scenario.secrets.cache_clear()

    done = rotate()

    assert done.returncode == 0, done.stdout[-5000:]
    after = gateway_secrets()
    changed = {
        old.partition("=")[0] for old, new in zip(before.splitlines(), after.splitlines(), strict=True) if old != new
    }
    assert changed == {"DASK_GATEWAY_PROXY_TOKEN", "DASK_GATEWAY_ENCRYPT_KEYS"}
    assert set(jobs) <= set(scenario.jobs_of("alice"))
    scenario.put_file("login", "alice", ROTATED, "")
    assert computation.line("scheduler") == "True", "it is another scheduler"
    assert int(computation.line("result")) == 4950
    computation.line("shut down")
    # Again nothing changes, and who takes the earlier key away is told what would be lost
    again = rotate("--tags=gateway")
    assert again.returncode == 0, again.stdout[-3000:]
    assert "changed=0" in again.stdout.partition("gateway ")[2]
    another = {"vault_dask_gateway_database_keys": [base64.b64encode(os.urandom(32)).decode()]}
    refused = rotate("--tags=gateway", f"--extra-vars={json.dumps(another)}")
    assert refused.returncode == 2
    assert "were encrypted with a key that is no longer among dask_gateway_database_keys" in refused.stdout
    assert gateway_secrets() == after
