"""What each host offers to somebody who should not be there: units, ports, sudo, files, TLS, the firewall's rules."""

import re
import subprocess
import xml.etree.ElementTree
from functools import cache

import pytest
import scenario
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

SERVICE_HOSTS = [host for host in scenario.HOSTS if host != "site"]
FIREWALL = scenario.REPOSITORY / "roles/firewall"
PORTS = yaml.safe_load((FIREWALL / "vars/main.yml").read_text())["_firewall_ports"]

# `systemd-analyze security`: 0 is locked up, 10 is free. Why a unit needs rights stands in the unit, in these words.
# Users' servers are transient units for the users' own programs, which may do what their users may.
WITHOUT_PRIVILEGE, WITH_PRIVILEGE = 2.0, 4.0
PRIVILEGED = {
    "jupyterhub.service": "# It runs as root: only root may ask systemd for units that run as users",
    "dask-gateway.service": "# Missing because of sudo:",
    "dask-gateway-health.service": "# Root, for it reads the gateway's configuration and the canary's token",
    "nginx.service": "# The main process binds the ports, reads the key and opens the logs as root",
}
# Not sandboxed at all, with the reason in the unit
EXEMPT = {"slurmd.service": "# No sandbox: what slurmd may not do, no user's job may."}


@cache
def groups_of(host: str) -> list[str]:
    """The groups of a host of the scenario."""
    inventory = yaml.safe_load((scenario.INVENTORY / "hosts.yml").read_text())["all"]["children"]
    return [name for name, group in inventory.items() if host in group["hosts"]]


def exposures(host: str) -> dict[str, float]:
    """What systemd thinks of each unit that Ansible has written, or added to."""
    ours = scenario.host(host).check_output(
        "grep -rlE 'Ansible managed' /etc/systemd/system --include='*.service' --include='*.conf' || true"
    )
    units = {re.sub(r"^/etc/systemd/system/([^/]+?\.service)(\.d/.*)?$", r"\1", path) for path in ours.split()}
    units = {unit for unit in units if unit.endswith(".service")}
    return {unit: scenario.exposure(host, unit) for unit in units}


@pytest.mark.parametrize("host", [host for host in SERVICE_HOSTS if host != "login"])
def test_every_unit_of_ours_is_sandboxed_as_far_as_its_work_allows(host):
    found = exposures(host)
    assert found, "no unit of ours was found"
    limits = {unit: WITH_PRIVILEGE if unit in PRIVILEGED else WITHOUT_PRIVILEGE for unit in found}
    open_units = {unit: level for unit, level in found.items() if level > limits[unit] and unit not in EXEMPT}
    assert open_units == {}
    reasons = EXEMPT | PRIVILEGED
    for unit in found.keys() & reasons.keys():
        assert reasons[unit] in scenario.host(host).check_output("systemctl cat %s", unit)


def listening(host: str) -> list[tuple[str, int, str]]:
    """Address, port and control group of each socket that waits for somebody."""
    sockets = []
    for line in scenario.host(host).check_output("ss -H -l -n -t -u -e 2>/dev/null").splitlines():
        kind, address = line.split()[0], line.split()[4]
        address, _, port = address.rpartition(":")
        if address != "127.0.0.11":  # Docker's own name server
            group = re.search(r"cgroup:(\S+)", line)
            sockets.append((f"{kind} {address.split('%')[0]}", int(port), group[1] if group else "?"))
    return sockets


def is_in_table(host: str, socket: tuple[str, int, str]) -> bool:
    address, port, group = socket
    loopback = address in ("tcp 127.0.0.1", "tcp [::1]")
    return any(
        set(row["groups"]) & set(groups_of(host))
        and address.startswith("tcp")
        and (row["port"] == port or (row["port"] == "ephemeral" and port >= 32768))
        and (row["address"] == "any" or loopback)
        and any(re.fullmatch(row["unit"], part) for part in group.split("/"))
        for row in PORTS
    )


@pytest.mark.parametrize("host", SERVICE_HOSTS)
def test_nothing_listens_that_is_not_in_the_table_of_ports(host):
    assert [socket for socket in listening(host) if not is_in_table(host, socket)] == []


@pytest.mark.parametrize("host", SERVICE_HOSTS)
def test_what_the_table_says_of_a_host_is_there(host):
    wanted = {row["port"] for row in PORTS if set(row["groups"]) & set(groups_of(host))}
    # sshd is the site's; a container has none
    assert wanted - {"ephemeral", 22} - {port for _, port, _ in listening(host)} == set()


def test_what_is_not_in_the_table_is_found():
    login = scenario.host("login")
    pids = [
        login.check_output("setsid python3 -m http.server %s >/dev/null 2>&1 & echo $!", port)
        for port in ("9999", "40001")
    ]

    def found() -> set[int]:
        return {port for address, port, group in listening("login") if not is_in_table("login", (address, port, group))}

    try:
        scenario.wait_until("both are found", lambda: found() == {9999, 40001}, timeout=20)
    finally:
        login.run("kill %s %s", *pids)


def test_sudo_lets_the_gateway_run_the_launcher_and_nobody_anything_else():
    gateway = scenario.host("gateway")
    gateway.check_output("visudo -c")
    rules = [
        line
        for line in gateway.check_output("cat /etc/sudoers.d/*").splitlines()
        if line.strip() and not line.startswith("#")
    ]
    launcher = scenario.launcher()
    assert [rule for rule in rules if not rule.startswith("Defaults:dask-gateway ")] == [
        f'Cmnd_Alias DASK_GATEWAY_LAUNCHER = {launcher} ""',
        "dask-gateway ALL=(%dask, !root) NOPASSWD: DASK_GATEWAY_LAUNCHER",
    ]
    for path in (launcher, "/etc/dask-gateway/launcher.json", "/etc/sudoers.d/dask-gateway"):
        while path != "/":
            file = gateway.file(path)
            assert file.user == "root", path
            assert not file.mode & 0o022, path
            path = path.rpartition("/")[0] or "/"


@pytest.mark.parametrize("host", [host for host in SERVICE_HOSTS if host != "gateway"])
def test_no_other_host_has_a_rule_for_sudo(host):
    assert scenario.host(host).run("ls -A /etc/sudoers.d 2>/dev/null | grep -v README").stdout == ""


@pytest.mark.parametrize("host", SERVICE_HOSTS)
def test_nobody_can_write_what_the_service_reads(host):
    """Files that everybody may write, or folders without the sticky bit."""
    found = scenario.host(host).run(
        "find /etc /opt /usr /var/lib /var/log /run -xdev -perm -o=w ! -type l ! -type s ! -type c"
        " ! -perm -1000 ! -path '/run/systemd/inaccessible/*' 2>/dev/null"
    )
    assert found.stdout.splitlines() == []


@pytest.fixture(scope="module")
def sslscan():
    """``sslscan(host name)``: Debian's sslscan on the site's host, outside the service."""
    site = scenario.host("site")
    if site.run("command -v sslscan").rc:
        site.check_output(
            "apt-get update -qq"
            " && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends sslscan >/dev/null"
        )

    def scan(name: str) -> xml.etree.ElementTree.Element:
        out = site.check_output("sslscan --xml=- --no-colour --sni-name=%s %s:443 2>/dev/null", name, name)
        return xml.etree.ElementTree.fromstring(out).find("ssltest")  # noqa: S314

    return scan


@pytest.mark.parametrize("service", ["site_notebook_host", "site_gateway_host"])
def test_connections_are_tls_1_2_or_better_with_modern_ciphers(sslscan, service):
    found = sslscan(scenario.site()[service])
    enabled = {f"{p.get('type')} {p.get('version')}" for p in found.iter("protocol") if p.get("enabled") == "1"}
    assert enabled == {"tls 1.2", "tls 1.3"}
    ciphers = {(c.get("sslversion"), c.get("cipher")) for c in found.iter("cipher")}
    modern = re.compile(r"TLSv1\.3 TLS_(AES_\d+_GCM|CHACHA20_POLY1305)_SHA\d+|TLSv1\.2 ECDHE-.*(-GCM-SHA\d+|-POLY1305)")
    assert ciphers
    assert [c for c in ciphers if not modern.fullmatch(" ".join(c))] == []
    assert [c for c in found.iter("compression") if c.get("supported") != "0"] == []
    assert [h.get("sslversion") for h in found.iter("heartbleed") if h.get("vulnerable") != "0"] == []


def firewall_rules(host: str) -> str:
    """The rules that the role would write for a host of the scenario."""
    values = yaml.safe_load((FIREWALL / "defaults/main.yml").read_text())
    values |= yaml.safe_load((FIREWALL / "vars/main.yml").read_text())
    values |= {"ansible_managed": "managed", "group_names": groups_of(host)}
    values |= {"firewall_service_networks": ["172.16.0.0/12"], "firewall_batch_networks": ["172.16.0.0/12", "fd00::/8"]}
    values["firewall_operators_networks"] = ["192.0.2.7/32"]
    values["firewall_more_rules"] = ["tcp dport 9100 ip saddr 192.0.2.8 accept"]
    template = trust_as_template((FIREWALL / "templates/nftables.conf.j2").read_text())
    return Templar(DataLoader(), variables=values).template(template)


@pytest.fixture(scope="module")
def firewalled():
    """A container that may have rules of its own, in the network of the scenario: the hosts' own may not."""
    name = f"{scenario.PREFIX}-firewall"
    what = "{{.Image}} {{range $name, $_ := .NetworkSettings.Networks}}{{$name}}{{end}}"
    inspect = ["docker", "inspect", "--format", what, f"{scenario.PREFIX}-gateway"]
    image, network = subprocess.run(inspect, capture_output=True, text=True, check=True).stdout.split()
    subprocess.run(["docker", "rm", "--force", name], capture_output=True)
    subprocess.run(
        ["docker", "run", "--detach", "--name", name, "--network", network, "--cap-add", "NET_ADMIN",
         "--entrypoint", "sleep", image, "600"], check=True, capture_output=True,
    )  # fmt: skip

    def run(command: str, given: str = "") -> subprocess.CompletedProcess[str]:
        call = ["docker", "exec", "-i", name, "sh", "-c", command]
        return subprocess.run(call, input=given, capture_output=True, text=True, timeout=120)

    done = run(
        "apt-get update -qq && apt-get install -y -qq --no-install-recommends nftables python3-minimal >/dev/null"
    )
    assert done.returncode == 0, done.stderr
    yield run
    subprocess.run(["docker", "rm", "--force", name], capture_output=True)


@pytest.mark.parametrize("host", SERVICE_HOSTS)
def test_the_rules_for_a_host_are_rules_of_nftables(firewalled, host):
    done = firewalled("nft -c -f -", firewall_rules(host))
    assert done.returncode == 0, done.stderr + firewall_rules(host)


def test_the_rules_let_in_what_the_table_says_and_nothing_else(firewalled):
    address = firewalled("hostname -i").stdout.strip()
    for port in (443, 9999):
        assert firewalled(f"(cd /tmp; setsid python3 -m http.server {port} >/dev/null 2>&1 &)").returncode == 0

    def reached(port: int) -> bool:
        return scenario.host("login").run("timeout 2 bash -c 'exec 3<>/dev/tcp/%s/%s'", address, str(port)).rc == 0

    scenario.wait_until("both answer without rules", lambda: reached(443) and reached(9999), timeout=20)
    done = firewalled("nft -f -", firewall_rules("gateway"))
    assert done.returncode == 0, done.stderr
    assert reached(443)
    assert not reached(9999)
    firewalled("nft flush ruleset")
    assert reached(9999)
