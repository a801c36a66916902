"""The service beside a batch cluster that the site set up itself, and that hides users' jobs from each other."""

import json
import os
import re
import subprocess
from contextlib import contextmanager

import pytest
import scenario

INVENTORY = scenario.REPOSITORY / "molecule/existing-batch-cluster/inventory"
BATCH_CLUSTER = ("controller", "node1", "node2")
# Where a running batch cluster keeps what it does, a cluster's own jobs included; its configuration is not there
ITS_OWN_WORK = (
    "/proc /sys /dev /run /tmp /var/tmp /var/log /var/cache /home /apps "
    "/srv/slurm/state /srv/slurm/spool /srv/slurm/log /var/lib/mysql /var/lib/sss /var/lib/systemd"
)


def rights() -> tuple[int, dict]:
    """What `gateway-admin health` ends with, and what it finds about the gateway's rights at the batch cluster."""
    done = scenario.host("gateway").run("gateway-admin health --json")
    (finding,) = [f for f in json.loads(done.stdout)["findings"] if f["part"] == "slurmdbd"]
    return done.rc, finding


def play(*playbooks: str, extra: str = "") -> subprocess.CompletedProcess:
    """What operators run."""
    return subprocess.run(
        ["ansible-playbook", "-i", INVENTORY, *(f"playbooks/{name}.yml" for name in playbooks),
         *(["-e", extra] if extra else [])],
        cwd=scenario.REPOSITORY,
        env=os.environ | scenario.PLAIN_OUTPUT,
        capture_output=True,
        text=True,
        timeout=900,
    )  # fmt: skip


def preflight() -> subprocess.CompletedProcess:
    """What operators run to see whether inventory and hosts are as they must be."""
    return play("preflight", "probes")


@contextmanager
def without_an_operators_rights():
    controller = scenario.host("controller")
    controller.check_output("sacctmgr --immediate modify user dask-gateway set adminlevel=none")
    try:
        yield
    finally:
        controller.check_output("sacctmgr --immediate modify user dask-gateway set adminlevel=operator")


@pytest.mark.parametrize(
    ("name", "kept"),
    [("gateway", "the site's slurm.conf, as it was handed over"), ("login", "none, for the controller tells it")],
)
def test_a_client_has_the_batch_clusters_own_configuration(name, kept):
    own = scenario.host("controller").file("/srv/slurm/etc/slurm.conf").content_string
    client = scenario.host(name)
    if kept.startswith("none"):
        assert not client.file("/etc/slurm/slurm.conf").exists
    else:
        assert client.file("/etc/slurm/slurm.conf").content_string == own
    shown = client.check_output("scontrol show config")
    assert re.search(r"^ClusterName += quarry$", shown, re.MULTILINE)
    assert re.search(r"^SlurmctldPort += 17817$", shown, re.MULTILINE)


def test_alices_snippet_computes_on_the_sites_nodes(login_python):
    done = login_python("alice", scenario.render_example("first_cluster.py"), timeout=300)

    assert done.returncode == 0, done.stderr
    assert int(re.search(r"computed by (\d+) workers", done.stdout)[1]) >= 2
    scenario.wait_until("no job of alice in the queue", lambda: not scenario.jobs_of("alice"))
    scenario.wait_until("none of her cluster's keys is left", lambda: not scenario.staged_files_of("alice"))


def test_a_cluster_is_seen_by_its_owner_and_by_the_gateway_and_by_nobody_else(new_cluster):
    name = new_cluster("alice")

    assert scenario.as_user("login", "alice", "squeue --noheader --format %j").stdout.split()
    assert scenario.as_user("login", "bob", "squeue --noheader --format %j").stdout.split() == []
    jobs = json.loads(scenario.host("gateway").check_output("gateway-admin jobs --user alice --json"))["jobs"]
    assert {(job["cluster"], job["known"]) for job in jobs} == {(name, True)}


def test_without_an_operators_rights_preflight_and_the_gateway_say_what_to_do_and_no_cluster_ends(new_cluster):
    name = new_cluster("alice")
    assert rights()[1]["code"] == 0
    seen = preflight()
    assert seen.returncode == 0, seen.stdout

    with without_an_operators_rights():
        code, finding = rights()
        assert (code, finding["code"]) == (2, 2)
        assert "adminlevel=operator" in finding["said"]
        seen = preflight()
        assert seen.returncode != 0
        assert "SLURM hides users' jobs from dask-gateway (PrivateData=jobs)" in " ".join(seen.stdout.split())
        # It sees no job now, and does not take that for their end
        scenario.host("gateway").check_output("gateway-admin reconcile")
        assert scenario.jobs_of("alice")
        shown = json.loads(scenario.host("gateway").check_output("gateway-admin clusters --user alice --json"))
        assert [(c["cluster"], c["state"]) for c in shown["clusters"]] == [(name, "running")]

    assert rights()[1]["code"] == 0


@pytest.fixture
def many_homes():
    """As many as a site has: what a node tells is longer than what SLURM passes on in one piece."""
    hub, folders = scenario.host("hub"), "/home/users/colleague-of-a-long-name-{100..299}"
    hub.check_output("bash -c %s", f"mkdir {folders}")
    yield
    hub.check_output("bash -c %s", f"rmdir {folders}")


@pytest.mark.usefixtures("many_homes")
def test_its_nodes_are_looked_at_by_a_job_where_an_operator_asks_for_it():
    seen = play("probes", extra=json.dumps({"probes_user": "carol", "probes_on_nodes": 2}))
    assert seen.returncode == 0, seen.stdout[-5000:]
    # The Hub, the gateway and a login host, and two nodes
    assert "5 hosts are as they must be." in seen.stdout
    assert scenario.left_by_probes("carol") == ""


@pytest.mark.parametrize("name", ["add-node", "remove-node"])
def test_its_nodes_come_and_go_by_its_own_operators(name):
    refused = play(name, extra="node=node1")
    assert refused.returncode != 0
    assert "Nothing was changed: the batch cluster is not this bundle's" in " ".join(refused.stdout.split())


def test_the_life_of_the_service_goes_on_beside_it_with_a_cluster_of_alices(new_cluster, hub_user, tmp_path):
    """What each playbook does is tested where the batch cluster is the service's own."""
    name = new_cluster("alice")
    jobs = set(scenario.jobs_of("alice"))
    canary = {
        "dask_gateway_canary_user": "carol",
        "dask_gateway_canary_token": hub_user("carol").new_token(note="canary"),
    }
    variables = tmp_path / "operators.json"
    variables.write_text(json.dumps(canary | scenario.backup_keys(tmp_path)))
    variables.chmod(0o600)
    for playbook in ("rotate", "backup", "upgrade", "health", "rollback"):
        done = play(playbook, extra=f"@{variables}")
        assert done.returncode == 0, f"{playbook}: {done.stdout[-6000:]}"
    assert jobs <= set(scenario.jobs_of("alice"))
    shown = json.loads(scenario.host("gateway").check_output("gateway-admin clusters --user alice --json"))
    assert [(c["cluster"], c["state"]) for c in shown["clusters"]] == [(name, "running")]
    backups = scenario.host("gateway").check_output("ls /var/backups/dask-service/*/")
    assert backups == "gateway.tar.gz.age"


@pytest.mark.parametrize("name", BATCH_CLUSTER)
def test_nothing_was_ever_written_to_the_batch_clusters_hosts(name):
    """Not even by Ansible's own connection, which leaves a folder in root's home."""
    pruned = " -o ".join(f"-path {folder}" for folder in ITS_OWN_WORK.split())
    search = f"find / -xdev \\( {pruned} \\) -prune -o -cnewer /srv/site-was-ready -print"
    host = scenario.host(name)
    written = [f"{folder}/somebody-wrote-this" for folder in ("/etc", "/srv/slurm/etc")]
    host.check_output("touch %s %s", *written)
    try:
        assert sorted(host.check_output(search).split()) == sorted(["/etc", "/srv/slurm/etc", *written]), (
            "the search sees what is written"
        )
    finally:
        host.check_output("rm %s %s", *written)
    assert sorted(host.check_output(search).split()) == ["/etc", "/srv/slurm/etc"], "only folders, for the files above"
