"""A release that does not work goes back by itself, and one that works comes, while alice computes."""

import json
import os
import shutil
import subprocess

import pytest
import scenario
from computation import Computation

COMPUTATION = """
total = 0
for i in range(60):
    total += client.submit(lambda i: time.sleep(1) or i, i).result()
print("result", total, flush=True)
while True:
    client.submit(lambda: time.sleep(1), pure=False).result()
"""
BROKEN = """
    async def forward_message_to_scheduler(self, cluster, msg):
        raise RuntimeError("a release that does not work")

    async def get_cluster(self, cluster_name, wait=False):
        if wait:
            raise RuntimeError("a release that does not work")
        return self.db.get_cluster(cluster_name).to_model()
"""
LINKS = "readlink /opt/dask-gateway /opt/dask-gateway-pages"


@pytest.fixture
def computation(token_file, no_clusters_left):
    token_file("alice")
    running = Computation("alice", COMPUTATION, timeout=1200)
    yield running
    running.end()


@pytest.fixture
def release(tmp_path):
    """A copy of the working tree that a test may change, with the copy of the service it runs against."""
    folder = tmp_path / "release"
    files = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=scenario.REPOSITORY, capture_output=True, text=True, check=True,
    ).stdout.split("\0")  # fmt: skip
    for name in filter(None, files):
        source = scenario.REPOSITORY / name
        if source.is_file() or source.is_symlink():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, folder / name, follow_symlinks=False)
    (folder / ".state").symlink_to(scenario.REPOSITORY / ".state")
    return folder


@pytest.fixture
def variables(hub_user, tmp_path):
    path = tmp_path / "canary.json"
    token = hub_user("carol").new_token(note="canary")
    path.write_text(json.dumps({"dask_gateway_canary_user": "carol", "dask_gateway_canary_token": token}))
    path.chmod(0o600)
    return path


def playbook(folder, name: str, *arguments: str) -> subprocess.CompletedProcess:
    """Run a playbook of a release."""
    return subprocess.run(
        ["ansible-playbook", "--inventory", folder / "molecule/shared/inventory", f"playbooks/{name}.yml", *arguments],
        cwd=folder, env=os.environ | scenario.PLAIN_OUTPUT, capture_output=True, text=True, timeout=1200,
    )  # fmt: skip


@pytest.mark.long
def test_a_release_whose_canary_fails_goes_back_and_one_that_works_comes(
    release, variables, computation, login_python, alices_server
):
    gateway = scenario.host("gateway")
    before, server = gateway.check_output(LINKS), alices_server.server_pid()
    source = release / "src/slurm_gateway/slurm_gateway/backend.py"
    good = source.read_text()
    source.write_text(good + BROKEN)
    failed = playbook(release, "upgrade", "-e", f"@{variables}")
    assert failed.returncode != 0
    assert "the release before is back" in " ".join(failed.stdout.split()), failed.stdout[-6000:]
    assert "canary: cluster" in failed.stdout
    assert gateway.check_output(LINKS) == before
    assert json.loads(gateway.check_output("gateway-admin maintenance --json"))["on"] is False
    assert computation.line("result") == str(sum(range(60)))

    source.write_text(good + "\n# the next release\n")
    done = playbook(release, "upgrade", "-e", f"@{variables}")
    assert done.returncode == 0, done.stdout[-6000:]
    after = gateway.check_output(LINKS)
    assert after.split()[0] != before.split()[0]
    clusters = json.loads(gateway.check_output("gateway-admin clusters --user alice --json"))["clusters"]
    assert [(c["cluster"], c["state"]) for c in clusters] == [(computation.cluster, "running")]
    assert alices_server.server_pid() == server

    for _ in range(2):  # the second time there is nothing to do
        back = playbook(release, "rollback")
        assert back.returncode == 0, back.stdout[-6000:]
        assert gateway.check_output(LINKS) == before
    again = login_python(
        "alice", f"import dask_gateway as d; d.Gateway(auth='jupyterhub').connect('{computation.cluster}')"
    )
    assert again.returncode == 0, again.stderr
    assert alices_server.server_pid() == server
