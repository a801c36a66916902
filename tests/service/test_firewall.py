"""Hosts let in what docs/ports.md names and nothing else, with alice computing; rules that lock out are taken back."""

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import scenario
from bare_host import BARE, bare_host
from browser import Person, chromium
from computation import ENDLESS, Computation

pytestmark = pytest.mark.long

HOSTS = [host for host in scenario.HOSTS if host != "site"]
RULES = "nft list ruleset"
# Adaptive, as in the user's guide, on both nodes
ANOTHER_CLUSTER = """
import dask_gateway
gw = dask_gateway.Gateway(auth="jupyterhub")
options = gw.cluster_options()
options.worker_cores = 4
cluster = gw.new_cluster(options, shutdown_on_close=False)
cluster.adapt(minimum=3, maximum=3)
client = cluster.get_client()
client.wait_for_workers(3, timeout=120)
print(client.submit(sum, [x.result() for x in client.map(lambda n: n * n, range(10))]).result(), cluster.name)
"""


def rules(operators: str) -> tuple[str, str]:
    """Arguments that switch the rules on, each host named by itself, and Ansible coming from `operators`."""
    given = {
        "firewall_enabled": True,
        "firewall_operators_networks": [operators],
        "firewall_service_networks": [f"{scenario.address(host)}/32" for host in ("hub", "gateway")],
        "firewall_batch_networks": [f"{scenario.address(host)}/32" for host in HOSTS if host != "hub"],
    }
    return "-e", json.dumps(given)


def names_of(host: str) -> str:
    """A line for /etc/hosts."""
    inspect = '{{range .NetworkSettings.Networks}}{{.IPAddress}} {{join .Aliases " "}}{{end}}'
    done = subprocess.run(
        ["docker", "inspect", "--format", inspect, f"{scenario.PREFIX}-{host}"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    # The longest first: a host's own name is its whole one
    address, *names = done.stdout.split()
    return " ".join([address, *sorted(names, key=len, reverse=True)])


def write_hosts(host: str, text: str) -> None:
    """In its place: Docker has mounted the file."""
    subprocess.run(
        ["docker", "exec", "-i", f"{scenario.PREFIX}-{host}", "tee", "/etc/hosts"],
        input=text, text=True, check=True, capture_output=True,
    )  # fmt: skip


@pytest.fixture
def hosts_with_names_of_their_own() -> Iterator[None]:
    """Docker answers questions for names by rules of nftables in each host, which a firewall of the host's flushes.

    Afterwards no host has rules of the role's, and Docker answers again.
    """
    lines = "\n".join(names_of(host) for host in scenario.HOSTS)
    before, resolvers = {}, {}
    for name in HOSTS:
        host = scenario.host(name)
        before[name] = host.file("/etc/hosts").content_string
        resolvers[name] = {
            kind: re.search(r"127\.0\.0\.11:(\d+)", host.check_output(f"ss -Hln{kind[0]} src 127.0.0.11"))[1]
            for kind in ("udp", "tcp")
        }
        host.check_output("apt-get update -qq && apt-get install -y -qq --no-install-recommends nftables >/dev/null")
        write_hosts(name, f"{before[name]}{lines}\n")
    yield
    without = scenario.playbook("firewall")
    for name in HOSTS:
        docker = "".join(
            f"ip daddr 127.0.0.11 {kind} dport 53 dnat to 127.0.0.11:{port};" for kind, port in resolvers[name].items()
        )
        table = f"table ip names {{ chain output {{ type nat hook output priority -100; {docker} }}; }}"
        scenario.host(name).check_output("nft flush ruleset && nft %s", table)
        write_hosts(name, before[name])
        scenario.host(name).check_output("getent hosts site && apt-get purge -y -qq nftables >/dev/null")
    assert without.returncode == 0, without.stdout[-5000:]


@pytest.fixture
def computation(token_file, no_clusters_left) -> Iterator[Computation]:
    token_file("alice")
    running = Computation("alice", ENDLESS, timeout=1200)
    yield running
    running.end()


def reached(source: str, target: str, port: int) -> bool:
    """Whether somebody on one host comes through to a port of another."""
    probe = "timeout 3 bash -c 'exec 3<>/dev/tcp/%s/%s'"
    return scenario.host(source).run(probe, scenario.address(target), str(port)).rc == 0


def jobs_port() -> tuple[str, int]:
    """A node, and a port on which a program of alice's listens there."""
    for node in ("node1", "node2"):
        for line in scenario.host(node).check_output("ss -Hlnt").splitlines():
            address, _, port = line.split()[3].rpartition(":")
            if int(port) >= 32768 and not address.startswith("127."):
                return node, int(port)
    raise AssertionError("nothing of alice's listens on a node")


def test_the_service_goes_on_behind_its_rules_and_others_come_to_nothing(
    hosts_with_names_of_their_own, computation, login_python, alice_and_her_server
):
    node, port = jobs_port()
    gateway = scenario.host("gateway")
    gateway.check_output("systemd-run --unit=not-in-the-table /usr/bin/python3 -m http.server 9999")
    try:
        scenario.wait_until("others come to all of it", lambda: reached("login", "gateway", 9999), timeout=20)
        assert reached("site", node, port)
        assert computation.line("result") == "42"

        done = scenario.playbook("firewall", *rules(operators="192.0.2.7/32"))
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr
        assert all("policy drop" in scenario.host(host).check_output(RULES) for host in HOSTS)
        again = scenario.playbook("firewall", *rules(operators="192.0.2.7/32"))
        assert set(re.findall(r"changed=(\d+)", again.stdout)) == {"0"}, again.stdout[-6000:]

        assert not reached("login", "gateway", 9999)
        assert not reached("site", node, port)
        assert not reached("site", "controller", 6817)
        assert reached("login", "controller", 6817)
        assert reached("gateway", node, port)
        assert reached("site", "gateway", 443)
    finally:
        gateway.check_output("systemctl stop not-in-the-table")

    # What ran goes on, and new work comes to every host
    for _ in range(3):
        assert computation.line("result") == "42"
    done = login_python("alice", ANOTHER_CLUSTER, timeout=300)
    assert done.returncode == 0, done.stderr
    result, cluster = done.stdout.split()[-2:]
    assert result == "285"
    step = scenario.as_user("login", "alice", "srun --nodes 1 hostname")
    assert step.stdout.strip() in ("node1", "node2"), step.stderr
    alice_and_her_server.stop_server()
    alice_and_her_server.start_server()
    with alice_and_her_server.kernel() as kernel:
        clusters = "import dask_gateway; print([c.name for c in dask_gateway.Gateway().list_clusters()])"
        assert cluster in kernel.run(clusters)
    with chromium() as browser:
        alice = Person(browser, "alice")
        page = alice.open(f"{alice.gateway}/clusters/{cluster}/status")
        alice.fill_in(page)
        page.locator(".bk-Figure, .bk-Row, .bk-Column").first.wait_for()
    health = gateway.run("gateway-admin health --json")
    assert health.rc == 0, health.stdout


@pytest.fixture
def by_ssh(tmp_path: Path):
    """A bare host that is reached by ssh, as a site's hosts are, and ``play(*arguments)``: firewall.yml on it."""
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    with bare_host(BARE, "login", like="login") as host:
        host.check_output(
            "apt-get update -qq && apt-get install -y -qq --no-install-recommends openssh-server nftables >/dev/null"
            " && mkdir -p -m 700 /root/.ssh && echo %s > /root/.ssh/authorized_keys && systemctl start ssh",
            key.with_suffix(".pub").read_text().strip(),
        )
        reach = {
            "ansible_connection": "ssh",
            "ansible_host": scenario.address(BARE),
            "ansible_user": "root",
            "ansible_ssh_private_key_file": str(key),
            "ansible_ssh_common_args": "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null",
        }

        def play(*arguments: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                ["ansible-playbook", "--inventory", scenario.INVENTORY, "--limit", "login",
                 "-e", json.dumps(reach), *arguments, "playbooks/firewall.yml"],
                cwd=scenario.REPOSITORY, env=os.environ | scenario.PLAIN_OUTPUT | {"ANSIBLE_TIMEOUT": "5"},
                capture_output=True, text=True, timeout=600,
            )  # fmt: skip

        yield host, play


def test_rules_that_keep_ansible_out_are_taken_back_and_those_that_let_it_in_stay(by_ssh):
    host, play = by_ssh
    sites_own = "table inet site { chain input { type filter hook input priority 5; tcp dport 9 drop; }; }"
    host.check_output("echo %s > /etc/nftables.conf && systemctl enable --now nftables", f"flush ruleset\n{sites_own}")
    before = host.check_output(RULES)
    assert "table inet site" in before
    original = host.check_output("sha256sum /etc/nftables.conf")

    locked_out = play(*rules(operators="192.0.2.7/32"))
    assert locked_out.returncode != 0
    assert "login has not kept its new rules" in " ".join(locked_out.stdout.split()), locked_out.stdout[-6000:]
    assert "firewall_operators_networks, at port 22" in " ".join(locked_out.stdout.split())
    assert "unreachable=0" in locked_out.stdout  # it came back before the run had ended
    assert host.check_output(RULES) == before
    # Nor does the next start lock out anybody
    assert host.check_output("sha256sum /etc/nftables.conf") == original

    network = subprocess.run(
        ["docker", "network", "inspect", "--format", "{{(index .IPAM.Config 0).Gateway}}", scenario.PREFIX],
        capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    let_in = play(*rules(operators=f"{network}/32"))
    assert let_in.returncode == 0, let_in.stdout[-6000:] + let_in.stderr
    assert "policy drop" in host.check_output(RULES)
    assert "table inet site" not in host.check_output(RULES)
    again = play(*rules(operators=f"{network}/32"))
    assert re.search(r"login .*changed=0", again.stdout), again.stdout[-6000:]

    # A host that the service came to before it remembered what was there
    off = play()
    assert off.returncode == 0, off.stdout[-6000:]
    assert host.check_output("sha256sum /etc/nftables.conf") == original
    assert host.check_output(RULES) == before
    assert host.service("nftables").is_enabled
    assert not host.file("/var/lib/dask-service/before-firewall").exists
