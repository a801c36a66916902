"""What the service remembers is lost and comes back from a backup, while alice computes."""

import json
from pathlib import Path

import pytest
import scenario

COMPUTATION = """
time.sleep(3600)
"""
CONNECT = """
import dask_gateway
gw = dask_gateway.Gateway(auth="jupyterhub")
print([c.name for c in gw.list_clusters()])
cluster = gw.connect("{}")
print(cluster.get_client().submit(lambda: 6 * 7).result(timeout=60))
cluster.scale(2)
cluster.get_client().wait_for_workers(2, timeout=60)
cluster.shutdown()
"""
WIPE = {
    "hub": "systemctl stop jupyterhub && rm /var/lib/jupyterhub/jupyterhub.sqlite && systemctl start jupyterhub",
    "gateway": "systemctl stop dask-gateway && rm /var/lib/dask-gateway/*.sqlite && systemctl start dask-gateway",
    "controller": "systemctl stop slurmdbd && mariadb -e 'DROP DATABASE slurm_acct_db' && systemctl start slurmdbd",
}


KEPT = "SHOW DATABASES LIKE 'slurm\\_acct\\_db\\_before\\_restore%'"


@pytest.fixture
def variables(tmp_path):
    """Extra variables with a pair of keys, and folders of backups on the hosts that go afterwards."""
    path = tmp_path / "backup.json"
    more = {"backup_keep": 2, "backup_fetch_directory": str(tmp_path / "fetched")}
    path.write_text(json.dumps(scenario.backup_keys(tmp_path) | more))
    path.chmod(0o600)
    yield path
    for host in WIPE:
        scenario.host(host).run("rm -rf /var/backups/dask-service")


SECRETS = scenario.STATE / "secrets"
# Hosts that are installed anew without the inventory have others. The proxies' come back with the configuration; the
# others are those of MariaDB and of the batch cluster's other hosts too, and stay new
COME_BACK = ("jupyterhub_proxy_auth_token", "dask_gateway_proxy_token")
STAY = ("slurm_database_password", "slurm_munge_key")
PLACES = {
    "hub": "/etc/jupyterhub/hub.env /etc/jupyterhub/proxy.env",
    "gateway": "/etc/dask-gateway/gateway.env /etc/dask-gateway/proxy.env",
    "controller": "/etc/slurm/slurmdbd.conf /etc/munge/munge.key",
}
# What the Hub asks of its proxy with the token that it has; the token is on no command line
HUBS_PROXY = (
    "set -a; . /etc/jupyterhub/hub.env; /usr/bin/python3 -c 'import os, urllib.request; print(urllib.request.urlopen("
    'urllib.request.Request("http://127.0.0.1:8001/api/routes", headers={"Authorization": "token "'
    ' + os.environ["CONFIGPROXY_AUTH_TOKEN"]})).status)\''
)


@pytest.fixture
def earlier_secrets():
    """The secrets that come back with the configuration; afterwards the scenario and its hosts have them again."""
    files = {SECRETS / name: (SECRETS / name).read_text() for name in COME_BACK}
    yield files
    bring_back(files)
    # Changes something only where the test did not come to its restore
    agreed = scenario.playbook("rotate")
    assert agreed.returncode == 0, agreed.stdout[-5000:]


def bring_back(files: dict[Path, str]) -> None:
    """Let the scenario's inventory have these secrets again."""
    for path, text in files.items():
        path.write_text(text)
        path.chmod(0o600)
    scenario.secrets.cache_clear()


def digests(host: str) -> list[str]:
    """What the files of a host with these secrets hold."""
    return [line.split()[0] for line in scenario.host(host).check_output(f"sha256sum {PLACES[host]}").splitlines()]


def accounting_records() -> set[str]:
    return set(scenario.host("controller").run("sacct -nXP -a -S 2020-01-01 -o JobID").stdout.split())


def test_alices_token_and_her_running_cluster_come_back_from_a_backup(
    computation, login_python, variables, earlier_secrets, tmp_path
):
    assert login_python("alice", "").returncode == 0  # with the token that she goes on with
    jobs = scenario.host("controller").check_output("squeue -h -u alice -o %i").split()
    scenario.wait_until("her jobs are in the accounting", lambda: set(jobs) <= accounting_records())
    backup = scenario.playbook("backup", "-e", f"@{variables}")
    assert backup.returncode == 0, backup.stdout[-5000:]
    (taken,) = (tmp_path / "fetched").iterdir()
    assert sorted(p.name.partition(".")[0] for p in taken.iterdir()) == ["accounting", "gateway", "hub"]
    key = json.loads(variables.read_text())["backup_identity"]
    for secret in (*scenario.secrets()["vault_dask_gateway_database_keys"], key):
        assert not [p for p in taken.iterdir() if secret.encode() in p.read_bytes()]

    # New hosts have new secrets, where the inventory is lost too
    then = {host: digests(host) for host in PLACES}
    for name in (*COME_BACK, *STAY):
        (SECRETS / name).unlink()
    scenario.secrets.cache_clear()
    rotated = scenario.playbook("rotate")
    assert rotated.returncode == 0, rotated.stdout[-5000:]
    new = {host: digests(host) for host in PLACES}
    assert not [host for host in PLACES if set(then[host]) & set(new[host])]

    for host, command in WIPE.items():
        scenario.host(host).check_output(command)
    scenario.wait_until("the empty gateway is up", lambda: scenario.get("gateway", "/api/health").status_code == 200)
    scenario.wait_until("the empty Hub is up", lambda: scenario.get("hub", "/hub/api/").status_code == 200)
    lost = login_python("alice", CONNECT.format(computation.cluster))
    assert lost.returncode != 0, "her token was to be unknown now"
    assert not set(jobs) & accounting_records()

    for host in WIPE:  # as on new hosts
        scenario.host(host).check_output("rm -rf /var/backups/dask-service")
    chosen = ("-e", f"@{variables}", "-e", f"restore_set={taken.name}")
    checked = scenario.playbook("restore", *chosen, "-e", "restore_check=true")
    assert checked.returncode == 0, checked.stdout[-5000:]
    assert login_python("alice", "import dask_gateway; dask_gateway.Gateway().list_clusters()").returncode != 0

    # A lost configuration comes back only where that is asked for
    setting = "/etc/dask-gateway/dask_gateway_config.py"
    gateway = scenario.host("gateway")
    before = gateway.check_output("sha256sum %s", setting)
    gateway.check_output("echo '# lost' > %s", setting)
    restore = scenario.playbook("restore", *chosen, "-e", "restore_configuration=true")
    assert gateway.check_output("sha256sum %s", setting) == before
    assert restore.returncode == 0, restore.stdout[-5000:]
    assert key.splitlines()[-1] not in restore.stdout
    bring_back(earlier_secrets)
    assert {host: digests(host) for host in PLACES} == then | {"controller": new["controller"]}
    assert scenario.host("hub").check_output(HUBS_PROXY) == "200"
    # Through the gateway's proxy: the empty gateway has taken its route to her cluster away
    found = login_python("alice", CONNECT.format(computation.cluster))
    assert found.stdout.splitlines()[-2:] == [f"['{computation.cluster}']", "42"], found.stderr
    assert set(jobs) <= accounting_records()
    scenario.wait_until("no job is left", lambda: not scenario.jobs_of("alice"))

    # She has stopped a cluster since: that would be lost
    refused = scenario.playbook("restore", *chosen)
    assert refused.returncode != 0
    assert "restore_over_newer=true" in refused.stdout
    assert "Stop what writes to it" not in refused.stdout

    # Her jobs have ended since, also for who restores the accounting alone; what is lost stays beside
    controller = scenario.host("controller")
    accounting = scenario.playbook("restore", *chosen, "--limit", "controller")
    assert accounting.returncode != 0
    assert "restore_over_newer=true" in accounting.stdout
    ends = ("sacct -nXP -j %s -o End", ",".join(jobs))
    scenario.wait_until("their ends are known", lambda: "Unknown" not in controller.check_output(*ends))
    over = scenario.playbook("restore", *chosen, "--limit", "controller", "-e", "restore_over_newer=true")
    assert over.returncode == 0, over.stdout[-5000:]
    assert "Unknown" in controller.check_output(*ends)
    kept = sorted(controller.check_output("mariadb -BNe %s", KEPT).split())
    cluster = controller.check_output("sacctmgr -nP show cluster format=cluster")
    dumped = controller.check_output("mariadb-dump --skip-extended-insert %s %s", kept[-1], f"{cluster}_job_table")
    assert "INSERT INTO" in dumped
    for database in kept:
        controller.check_output("mariadb -e %s", f"DROP DATABASE {database}")
    controller.check_output("sacctmgr --immediate show runawayjobs")
