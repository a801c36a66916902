"""A release that does not work goes back by itself, and one that works comes, while alice computes."""

import json
import os
import subprocess

import pytest
import scenario

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
STOPS = "- hosts: jupyterhub\n  tasks: [{ansible.builtin.fail: {msg: half of the release is installed}}]\n"
BESIDE_OTHERS = """
- hosts: dask_gateway:login
  tasks: [{ansible.builtin.fail: {msg: one of several fails}, when: "'dask_gateway' in group_names"}]
"""
WAYS_BACK = "/var/lib/dask-service/releases"
UNFINISHED = f"test -e {WAYS_BACK}/unfinished-{{}}"
LINKS = "readlink /opt/dask-gateway /opt/dask-gateway-pages"
HUBS_SOURCE = "src/notebook_server/notebook_server/sign_out.py"
HUBS_LINKS = "readlink /opt/jupyterhub /opt/jupyterhub-notebook"


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
        cwd=folder, env=scenario.OF_A_COPY, capture_output=True, text=True, timeout=1200,
    )  # fmt: skip


def test_nothing_is_begun_that_the_operators_own_maintenance_would_spoil(release, variables, hub_user):
    """The canary would be refused, and a release that works would go back."""
    gateway = scenario.host("gateway")
    before = gateway.check_output(LINKS)
    unfit = playbook(release, "upgrade", "-e", f"@{variables}", "-e", "directory_client_uri=ldaps://nowhere.lotus.test")
    assert unfit.returncode != 0
    assert "nowhere.lotus.test" in unfit.stdout
    assert json.loads(gateway.check_output("gateway-admin maintenance --json"))["on"] is False
    assert not gateway.run(UNFINISHED.format("gateway")).succeeded
    looked = playbook(release, "upgrade", "--check", "-e", f"@{variables}")
    assert looked.returncode == 0, looked.stdout[-6000:]
    assert json.loads(gateway.check_output("gateway-admin maintenance --json"))["on"] is False
    assert not gateway.run(UNFINISHED.format("gateway")).succeeded
    gateway.check_output("gateway-admin maintenance on --message 'New disks.' --until 2099-01-01T00:00")
    try:
        refused = playbook(release, "upgrade", "-e", f"@{variables}")
        assert json.loads(gateway.check_output("gateway-admin maintenance --json"))["message"] == "New disks."
    finally:
        gateway.check_output("gateway-admin maintenance off")
    assert refused.returncode != 0
    assert "--except-user carol" in " ".join(refused.stdout.split()), refused.stdout[-4000:]
    assert gateway.check_output(LINKS) == before


def test_a_release_whose_canary_fails_goes_back_and_one_that_works_comes(
    release, variables, computation, login_python, alices_server
):
    gateway = scenario.host("gateway")
    hub_before = scenario.host("hub").check_output(HUBS_LINKS)
    before, server = gateway.check_output(LINKS), alices_server.server_pid()
    hubs_source = release / HUBS_SOURCE
    hubs_source.write_text(hubs_source.read_text() + "\n# the next release\n")
    source = release / "src/slurm_gateway/slurm_gateway/backend.py"
    good = source.read_text()
    source.write_text(good + BROKEN)
    failed = playbook(release, "upgrade", "-e", f"@{variables}")
    assert failed.returncode != 0
    assert "the release before is back" in " ".join(failed.stdout.split()), failed.stdout[-6000:]
    assert "canary: cluster" in failed.stdout
    assert gateway.check_output(LINKS) == before
    assert scenario.host("hub").check_output(HUBS_LINKS) == hub_before
    assert {scenario.host(name).file(WAYS_BACK).mode for name in ("hub", "gateway")} == {0o700}, "secrets are in them"
    assert json.loads(gateway.check_output("gateway-admin maintenance --json"))["on"] is False
    assert computation.line("result") == str(sum(range(60)))

    # One host fails beside others, then half of a release comes, and then all: the way back stays the one from before
    source.write_text(good + "\n# the next release\n")
    slurm = release / "playbooks/slurm.yml"
    whole = slurm.read_text()
    slurm.write_text(whole + BESIDE_OTHERS)
    part = playbook(release, "upgrade", "-e", f"@{variables}")
    assert part.returncode != 0
    assert "gateway failed, as said above, and has not got this release" in " ".join(part.stdout.split())
    assert gateway.check_output(LINKS) == before
    assert json.loads(gateway.check_output("gateway-admin maintenance --json"))["on"] is True
    for name in ("hub", "gateway"):
        assert scenario.host(name).run(UNFINISHED.format(name)).succeeded
    slurm.write_text(whole)
    hub = release / "playbooks/hub.yml"
    whole = hub.read_text()
    hub.write_text(STOPS)
    half = playbook(release, "upgrade", "-e", f"@{variables}")
    assert half.returncode != 0
    assert "half of the release" in half.stdout, half.stdout[-6000:]
    assert gateway.check_output(LINKS) != before
    hub.write_text(whole)
    done = playbook(release, "upgrade", "-e", f"@{variables}")
    assert done.returncode == 0, done.stdout[-6000:]
    assert "did not come to its end, and this run goes on with it" in " ".join(done.stdout.split())
    assert json.loads(gateway.check_output("gateway-admin maintenance --json"))["on"] is False
    after = gateway.check_output(LINKS)
    assert after.split()[0] != before.split()[0]
    assert scenario.host("hub").check_output(HUBS_LINKS) != hub_before
    made_since = alices_server.new_token(note="made under the new release")
    clusters = json.loads(gateway.check_output("gateway-admin clusters --user alice --json"))["clusters"]
    assert [(c["cluster"], c["state"]) for c in clusters] == [(computation.cluster, "running")]
    assert alices_server.server_pid() == server

    # The second time there is nothing to do; the databases of that time have her cluster, too
    for more in ([], [], ["-e", "rollback_databases=true"]):
        back = playbook(release, "rollback", *more)
        assert back.returncode == 0, back.stdout[-6000:]
        assert gateway.check_output(LINKS) == before
        assert scenario.host("hub").check_output(HUBS_LINKS) == hub_before
        assert alices_server.holds(made_since) == (not more), "only the databases of that time do without it"
    # What the timer's canary had at that moment is not in these databases either, and is left alone as after a restore
    gateway.check_output("gateway-admin reconcile")
    again = login_python(
        "alice", f"import dask_gateway as d; d.Gateway(auth='jupyterhub').connect('{computation.cluster}')"
    )
    assert again.returncode == 0, again.stderr
    assert alices_server.server_pid() == server


def test_an_upgrade_of_the_hub_alone_leaves_the_gateway_as_it_is(release, variables, computation, alices_server):
    hub, gateway = scenario.host("hub"), scenario.host("gateway")
    before, gateways, server = hub.check_output(HUBS_LINKS), gateway.check_output(LINKS), alices_server.server_pid()
    source = release / HUBS_SOURCE
    source.write_text(source.read_text() + "\n# the next release\n")
    here = ("--limit", "hub,localhost")
    try:
        done = playbook(release, "upgrade", "-e", f"@{variables}", *here)
        assert done.returncode == 0, done.stdout[-6000:]
        assert hub.check_output(HUBS_LINKS) != before
        assert gateway.check_output(LINKS) == gateways
        assert json.loads(gateway.check_output("gateway-admin maintenance --json"))["on"] is False
        assert alices_server.server_pid() == server

        unsure = " ".join(playbook(release, "rollback").stdout.split())
        assert "of different upgrades" in unsure or "gateway has no way back" in unsure, unsure[-4000:]
        assert gateway.check_output(LINKS) == gateways
    finally:
        back = playbook(release, "rollback", *here)
    assert back.returncode == 0, back.stdout[-6000:]
    assert hub.check_output(HUBS_LINKS) == before
    assert alices_server.server_pid() == server
    assert computation.line("result") == str(sum(range(60)))


LATER = ("dask-gateway-pages.service", "dask-gateway-health.service", "dask-gateway-health.timer")
SNAPSHOT = """
- hosts: dask_gateway
  tasks:
    - ansible.builtin.include_role: {name: backup, tasks_from: snapshot}
      vars: {backup_part: gateway, backup_set: 29990101T000000Z}
"""


def test_the_way_back_to_a_release_that_did_without_a_part_takes_the_part_away(login_python, tmp_path):
    """As 0.1.0, which has no pages and looks at no health."""
    gateway = scenario.host("gateway")
    (tmp_path / "snapshot.yml").write_text(SNAPSHOT)
    units = " ".join(f"/etc/systemd/system/{unit}" for unit in LATER)
    gateway.check_output(f"mkdir /root/later && mv {units} /root/later/")
    try:
        taken = subprocess.run(
            ["ansible-playbook", "--inventory", scenario.INVENTORY, tmp_path / "snapshot.yml"],
            cwd=scenario.REPOSITORY, env=os.environ | scenario.PLAIN_OUTPUT,
            capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert taken.returncode == 0, taken.stdout[-4000:]
    finally:
        gateway.check_output("mv /root/later/* /etc/systemd/system/ && rmdir /root/later")
    try:
        back = scenario.playbook("rollback", "--limit", "gateway", "-e", "rollback_set=29990101T000000Z")
        assert back.returncode == 0, back.stdout[-6000:]
        left = gateway.run("systemctl is-active " + " ".join(LATER)).stdout.split()
        assert set(left) == {"inactive"}
        assert gateway.run(f"ls {units}").stdout == ""
        listed = login_python("alice", "import dask_gateway as d; print(d.Gateway(auth='jupyterhub').list_clusters())")
        assert listed.stdout.strip() == "[]", listed.stderr
    finally:
        gateway.check_output("rm -rf /var/lib/dask-service/releases/29990101T000000Z")
        again = scenario.playbook("gateway")
    assert again.returncode == 0, again.stdout[-6000:]
    assert gateway.run("systemctl is-active dask-gateway-pages.service").stdout.strip() == "active"
