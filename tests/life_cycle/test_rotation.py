"""Operators rotate secrets while alice computes."""

import base64
import json
import os
import re
import subprocess
import time
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
    return run("playbooks/rotate.yml", *options)


def run(playbook: str, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["ansible-playbook", "--inventory", scenario.INVENTORY, *options, playbook],
        cwd=scenario.REPOSITORY, env=os.environ | scenario.PLAIN_OUTPUT, capture_output=True, text=True, timeout=600,
    )  # fmt: skip


def gateway_secrets() -> str:
    return scenario.host("gateway").check_output("cat /etc/dask-gateway/gateway.env")


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
    # The other side of what they share has then nothing new, either
    held = digests()
    more = another | {"vault_dask_gateway_jupyterhub_api_token": "0" * 64, "vault_slurm_munge_key": "MDAw" * 40}
    refused = rotate(f"--extra-vars={json.dumps(more)}")
    assert refused.returncode == 2
    assert digests() == held


def test_nothing_is_rotated_while_a_host_that_has_the_same_secrets_is_left_out_or_away():
    before = digests()
    new = {"vault_slurm_munge_key": "MDAw" * 40, "vault_dask_gateway_jupyterhub_api_token": "0" * 64}
    others = ",".join(host for host in PLACES if host != "node2")

    left_out = rotate(f"--extra-vars={json.dumps(new)}", "--limit", f"{others},localhost")
    assert left_out.returncode != 0
    assert "Nothing was changed: node2 would keep the secrets" in " ".join(left_out.stdout.split())
    one_side = rotate(f"--extra-vars={json.dumps(new)}", "--limit", "hub,localhost", "--tags=hub,gateway")
    assert one_side.returncode != 0
    assert "Nothing was changed: gateway would keep" in " ".join(one_side.stdout.split())

    node2 = f"{scenario.PREFIX}-node2"
    subprocess.run(["docker", "pause", node2], check=True, capture_output=True)
    try:
        away = rotate(f"--extra-vars={json.dumps(new)}")
        assert away.returncode != 0
        # It may come later, where that is said; here nothing is new for the others
        named = ("-e", "rotate_without=node2", "--limit", "localhost:all:!node2")
        without = rotate(*named, "--tags=slurm")
        assert without.returncode == 0, without.stdout[-5000:]
        assert "The inventory is complete" in without.stdout, "it was looked at first"
    finally:
        subprocess.run(["docker", "unpause", node2], check=True, capture_output=True)
    assert digests() == before


COMPUTE = """
import dask_gateway
gw = dask_gateway.Gateway(auth="jupyterhub")
cluster = gw.new_cluster()
cluster.scale(1)
print(cluster.get_client().submit(lambda: 6 * 7).result(timeout=120))
cluster.shutdown()
"""
# What is written where a secret arrives, but for those of the gateway, which the test above looks at
PLACES = {
    "hub": "/etc/jupyterhub/hub.env /etc/jupyterhub/proxy.env",
    "gateway": "/etc/dask-gateway/gateway.env /etc/dask-gateway/pages.env /etc/munge/munge.key",
    "controller": "/etc/slurm/slurmdbd.conf /etc/munge/munge.key /etc/prometheus/hub-token",
    "node1": "/etc/munge/munge.key",
    "node2": "/etc/munge/munge.key",
    "login": "/etc/munge/munge.key",
}
ROTATED_SECRETS = (
    "jupyterhub_cookie_secret",
    "jupyterhub_crypt_key",
    "jupyterhub_proxy_auth_token",
    "dask_gateway_jupyterhub_api_token",
    "monitoring_hub_token",
    "slurm_munge_key",
    "slurm_database_password",
)
HER_SERVERS_PAGE = "/user/alice/lab"


def digests() -> dict[tuple[str, str], str]:
    """What the files with secrets hold, on each host."""
    return {
        (host, line.split()[1]): line.split()[0]
        for host, files in PLACES.items()
        for line in scenario.host(host).check_output(f"sha256sum {files}").splitlines()
    }


def signed_in(user, path: str = "/hub/home") -> bool:
    """Whether the browser's session opens this page, and is not led to the sign-in."""
    page = user.browser.get(f"{user.url}{path}", timeout=30)
    page.raise_for_status()
    return "/hub/login" not in page.url


def test_secrets_of_all_hosts_are_rotated_and_jobs_servers_and_tokens_go_on(computation, alices_server, login_python):
    """The Hub's, munge's, of SLURM's database, and by site.yml's part of the gateway the one that the portal gives."""
    token = alices_server.new_token(note="from before the rotation")
    assert signed_in(alices_server)
    assert signed_in(alices_server, HER_SERVERS_PAGE)
    before, jobs, server = digests(), set(scenario.jobs_of("alice")), alices_server.server_pid()
    for name in ROTATED_SECRETS:
        (SECRETS / name).unlink()
    scenario.secrets.cache_clear()

    done = rotate()

    assert done.returncode == 0, done.stdout[-5000:]
    after = digests()
    assert [place for place in before if before[place] == after[place]] == []
    assert len({digest for (_, path), digest in after.items() if path.endswith("munge.key")}) == 1
    assert jobs <= set(scenario.jobs_of("alice")), "jobs were to live through another key of munge"
    hub = 'up{job="hub"}'
    since = ("promtool query instant http://127.0.0.1:9090 %s", f"{hub} and timestamp({hub}) > {time.time()}")
    prometheus = scenario.host("controller")
    scenario.wait_until("Prometheus reads the Hub with it", lambda: "=> 1 " in prometheus.check_output(*since), 120)
    # The cookie secret ends sessions of browsers, and nothing else
    assert not signed_in(alices_server)
    assert alices_server.holds(token)
    scenario.wait_until("her server answers through the proxy", alices_server.server_answers)
    # It takes the Hub's last answer about a session for 10 s
    asks = "her server asks the browser who it is"
    scenario.wait_until(asks, lambda: not signed_in(alices_server, HER_SERVERS_PAGE), 20)
    assert alices_server.server_pid() == server
    scenario.put_file("login", "alice", ROTATED, "")
    assert computation.line("scheduler") == "True", "it is another scheduler"
    assert int(computation.line("result")) == 4950
    computation.line("shut down")

    # The portal's operators have given another secret
    controller = scenario.host("controller")
    (SECRETS / "accounts_check_client_secret").unlink()
    scenario.secrets.cache_clear()
    portal = run("molecule/shared/portal.yml")
    assert portal.returncode == 0, portal.stdout[-5000:]
    assert scenario.host("gateway").run("gateway-admin accounts probe").rc != 0, "the earlier one was to be refused"
    site = run("playbooks/gateway.yml")
    assert site.returncode == 0, site.stdout[-5000:]
    assert scenario.host("gateway").run("gateway-admin accounts check alice --live").rc == 0

    # Everything that is new has the new ones: from the Hub's answer about a token to the accounting's record of a job
    records = "sacct -nXP -a -S now-1hour -u alice -o JobID,State"
    known = set(controller.check_output(records).split())
    computed = login_python("alice", COMPUTE)
    assert computed.stdout.split() == ["42"], computed.stderr
    scenario.wait_until("the accounting has her jobs", lambda: set(controller.check_output(records).split()) - known)
    again = rotate()
    assert again.returncode == 0, again.stdout[-3000:]
    assert "changed=0" in again.stdout.partition("PLAY RECAP")[2]
    assert not re.search(r"changed=[1-9]", again.stdout)
