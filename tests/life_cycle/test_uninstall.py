"""A host that had the service is what it was before, and can have the service again."""

import json
import re
from contextlib import ExitStack

import pytest
import scenario
from bare_host import BARE, bare_host, changes, play, restarted
from hub_client import HubUser, trusting

# What may differ afterwards, and why
ALLOWED = {
    r"/var/backups(/.*)?": "the last backup; dpkg's copies of its database",
    r"/var/log(/.*)?": "journals, and what apt and dpkg write of what they did",
    r"/var/lib/(apt|dpkg|systemd|ucf|pam|dbus|private)(/.*)?": "what the distribution remembers",
    r"/var/cache/(apt|debconf|ldconfig|private)(/.*)?": "caches of the distribution",
    r"/var/tmp/.*|/root/\.(ansible|local|cache)(/.*)?": "temporary files of Ansible and systemd",
    r"/etc/(passwd|group|shadow|gshadow|subuid|subgid)-?": "Debian leaves its packages' system users",
    r"/etc/(ld\.so\.cache|\.pwd\.lock|machine-id|\.updated)|/var/\.updated": "written by the distribution",
    r"/etc/ssl/certs(/.*)?|/var/lib/ca-certificates(/.*)?": "made anew; the authorities are compared by themselves",
    r".*/__pycache__(/.*)?": "what Python has compiled of the distribution's own modules",
}
# The system users of Debian's packages
LEFT_USERS = {"munge", "slurm", "sssd", "prometheus", "mysql", "_prometheus"}

FIND = r"find / -xdev \( -path /proc -o -path /sys -o -path /dev -o -path /run -o -path /tmp \) -prune -o "
LIST = FIND + r"-printf '%p\t%y %m %U:%G %l\n'"
SUMS = "find /etc -xdev -type f -exec sha256sum {} + | sed -E 's/^(\\S+) +(.*)$/\\2\\t\\1/'"
UNITS = 'systemctl list-unit-files --no-legend --plain | awk \'{print "unit " $1 "\\t" $2}\''
AUTHORITIES = "sort /etc/ssl/certs/ca-certificates.crt | sha256sum | sed 's/^/authorities\\t/'"
PACKAGES = r"dpkg-query -W -f 'package ${Package}\t${db:Status-Abbrev}\n' | grep -v '\trc'"
FAILED = 'systemctl list-units --failed --no-legend --plain | awk \'{print "failed " $1 "\\t"}\''


def snapshot(host) -> dict[str, str]:
    """Files with kind, mode, owner and (below /etc) content; units, packages and authorities."""
    found: dict[str, str] = {}
    for command in (LIST, SUMS, UNITS, AUTHORITIES, PACKAGES, FAILED):
        for line in host.check_output(command).splitlines():
            name, _, about = line.partition("\t")
            found[name] = f"{found.get(name, '')} {about}".strip()
    return found


def differences(before: dict[str, str], after: dict[str, str]) -> list[str]:
    return [
        f"{name}: {before.get(name, 'nothing')} -> {after.get(name, 'nothing')}"
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name) and not any(re.fullmatch(pattern, name) for pattern in ALLOWED)
    ]


@pytest.fixture
def bare():
    """``bare("hub")``: a bare container of that name beside the service's own host, with the file systems of that."""
    with ExitStack() as started:
        yield lambda name: started.enter_context(bare_host(BARE, name, like=name))


# A container of its own may have rules of its own; one host with them is enough
FIREWALL = {
    "firewall_enabled": True,
    "firewall_service_networks": ["172.16.0.0/12"],
    "firewall_batch_networks": ["172.16.0.0/12"],
}
RULES = "nft list ruleset"


@pytest.fixture
def homes():
    """What there is in the homes, whose it is, and what is in a file that nobody writes to meanwhile."""
    results = f"{scenario.site()['site_home_directory']}/alice/results"
    look = "find /home -printf '%%p %%y %%m %%U:%%G\\n' | sort; cat %s"
    with scenario.removed_after("login", results):
        scenario.put_file("login", "alice", results, "42")
        yield lambda: scenario.host("site").check_output(look, results)


@pytest.mark.parametrize("name", ["login", "gateway", "hub", "controller", "node1"])
def test_a_host_is_what_it_was_before_the_service_came(name, bare, key, homes, request):
    if name == "gateway":
        # A second gateway of the same name would not know them
        request.getfixturevalue("no_clusters_left")
    host = bare(name)
    homes_before = homes()
    before = snapshot(host)
    also = ("-e", json.dumps(FIREWALL if name == "login" else {}))
    changed = changes(play("site.yml", name, *also))
    assert changed > 10
    assert len(differences(before, snapshot(host))) > 100
    if name == "login":
        assert "policy drop" in host.check_output(RULES)
        assert changes(play("playbooks/firewall.yml", name, *also)) == 0

    asked = play("playbooks/uninstall.yml", name, "-e", key, *also)
    assert asked.returncode != 0
    assert "add -e uninstall=yes" in asked.stdout
    # Also where the site wants its firewall no more by now
    changed = changes(play("playbooks/uninstall.yml", name, "-e", key, "-e", "uninstall=yes"))
    assert host.run(RULES).stdout == ""
    assert changed > 5
    assert differences(before, snapshot(host)) == []
    users = set(host.check_output("cut -d: -f1 /etc/passwd").split())
    assert users - set(scenario.host("site").check_output("cut -d: -f1 /etc/passwd").split()) - LEFT_USERS == set()
    assert homes() == homes_before
    kept = {"gateway": "gateway", "hub": "hub", "controller": "accounting"}.get(name)
    if kept:
        assert host.check_output("ls /var/backups/dask-service/*/") == f"{kept}.tar.gz.age"

    changed = changes(play("playbooks/uninstall.yml", name, "-e", key, "-e", "uninstall=yes"))
    assert changed == 0
    if name == "login":
        restarted(BARE)
        changed = changes(play("site.yml", name))
        assert changed > 10


def test_nothing_is_removed_where_something_runs_or_could_not_be_kept(alice, no_clusters_left, key):
    """Of the service itself, which goes on."""
    clusters = scenario.published_url("gateway") + "/api/v1/clusters/"
    session = trusting(scenario.ca())
    session.headers["Authorization"] = f"jupyterhub {alice.new_token(note='uninstall')}"
    name = session.post(clusters, json={"cluster_options": {}}, timeout=60).json()["name"]
    try:
        limit = ("--limit", "gateway,controller", "-e", "uninstall=yes")
        busy = scenario.playbook("uninstall", "-e", key, *limit)
        assert busy.returncode != 0
        assert "clusters of alice" in busy.stdout
        assert "Nothing was removed" in busy.stdout
    finally:
        session.delete(clusters + name, timeout=60)
    scenario.wait_until("her jobs have ended", lambda: not scenario.jobs_of("alice"))
    unkept = scenario.playbook("uninstall", *limit)
    assert unkept.returncode != 0
    assert "a last backup is encrypted for backup_recipients" in unkept.stdout
    assert scenario.get("gateway", "/api/health").status_code == 200


@pytest.fixture
def waiting_jobs():
    """Jobs stay in the queue: a scheduler that ran would tell the service's own gateway of itself."""
    controller = scenario.host("controller")
    controller.check_output("scontrol update nodename=ALL state=drain reason=uninstall")
    yield
    controller.check_output("scontrol update nodename=ALL state=resume")


def alices_server_there(host, request):
    """What is said of it, and whether it is there."""
    there = HubUser(scenario.published_url(BARE), scenario.ca(), "alice", scenario.passwords()["alice"])
    there.sign_in()
    there.start_server()
    return "servers of users run (jupyter-alice", lambda: host.run("pgrep --uid alice").succeeded


def alices_cluster_there(host, request):
    """What is said of it, and whether it is there."""
    alice = request.getfixturevalue("alice")
    request.getfixturevalue("waiting_jobs")
    session = trusting(scenario.ca())
    session.headers["Authorization"] = f"jupyterhub {alice.new_token(note='uninstall')}"
    clusters = scenario.published_url(BARE) + "/api/v1/clusters/"
    session.post(clusters, json={"cluster_options": {}}, timeout=60).raise_for_status()
    scenario.wait_until("its job is in the queue", lambda: scenario.jobs_of("alice"))
    return "clusters of alice", lambda: scenario.jobs_of("alice") != []


@pytest.mark.parametrize(("name", "begin"), [("hub", alices_server_there), ("gateway", alices_cluster_there)])
def test_what_runs_is_ended_and_the_database_lost_where_an_operator_says_so(name, begin, bare, request):
    host = bare(name)
    changes(play("site.yml", name))
    found, runs = begin(host, request)
    sure = ("-e", "uninstall=yes", "-e", "uninstall_backup=false")
    refused = play("playbooks/uninstall.yml", name, *sure)
    assert refused.returncode != 0
    said = " ".join(refused.stdout.split())
    assert found in said
    assert "-e uninstall_running=end" in said
    assert runs()
    done = play("playbooks/uninstall.yml", name, *sure, "-e", "uninstall_running=end")
    assert changes(done) > 5
    said = " ".join(done.stdout.split())
    assert f"WITHOUT A BACKUP of {name}, which are lost. What runs is ended: {found}" in said
    assert not runs()
    assert host.run("ls -A /var/backups/dask-service").stdout == ""
