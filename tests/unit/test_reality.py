"""Preflight judges the hosts: each thing that must be true of them, broken once."""

from __future__ import annotations

import copy
import json
import re
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path

import pytest
from inventory_copies import REPOSITORY, certificate_for
from preflight.reality import after_findings, before_findings

sys.path.insert(0, str(REPOSITORY / "plugins/module_utils"))

import observations

HOMES = {"inode": 11, "inside": {"alice": 101, "bob": 102}}
GROUP = {"gid": 27001, "members": {"alice": 26001, "carol": 26003}}
HEALTH = {"status": 200, "body": json.dumps({"status": "pass"}), "days": 60}


def probe(**seen) -> dict:
    """What a host shows on which all is well."""
    usual = {
        "clock": 0.2,
        "names": {"dask-gateway.lotus.test": ["10.0.0.2"]},
        "addresses": {"https://dask-gateway.lotus.test/api/health": HEALTH},
        "users": {},
        "groups": {"dask": GROUP},
        "home_folder": "/home/users",
        "home": HOMES,
        "pythons": {"/usr/bin/python3": ""},
        "job": None,
        "jobs": None,
        "nodes": None,
        "installed": None,
    }
    return copy.deepcopy(usual | seen)


def service() -> dict:
    """Hosts on which all is well."""
    rights = {"user": "dask-gateway", "answers": True, "said": "", "hidden": True, "rights": "Operator", "unseen": []}
    return {
        "hub": probe(installed=True),
        "gateway": probe(
            users={"dask-gateway": 640},
            job={"user": "alice", "accepted": True, "said": "sbatch: Job 7 to start at …"},
            jobs=rights,
            installed=True,
        ),
        "controller": probe(users={"dask-gateway": 640}, home_folder="", home=None, addresses={}),
        "node1": probe(),
    }


def with_a_node(**seen) -> dict:
    """Hosts on which all is well, and a node, seen by a job of the canary's between the times 1000 and 1020."""
    hosts = service()
    there = {key: probe(pythons={"/apps/jaspy/envs/1/bin/python": ""})[key] for key in NODES_KEYS}
    node = {"node": "quarry7", "time": 1010.0, "seen": there}
    node.update({key: seen.pop(key) for key in ("node", "time") if key in seen})
    node["seen"].update(seen)
    hosts["gateway"]["nodes"] = {"user": "canary", "said": "", "earliest": 1000.0, "latest": 1020.0, "seen": [node]}
    return hosts


NODES_KEYS = ("names", "addresses", "users", "groups", "home_folder", "home", "pythons")


def findings(hosts: dict, certificate: str = "") -> list[str]:
    certificates = {"gateway": certificate or certificate_for("dask-gateway.lotus.test")[0]}
    return before_findings(hosts) + after_findings(hosts, certificates)


def test_nothing_is_found_where_all_is_well():
    assert findings(service()) == []


BROKEN: dict[str, tuple[Callable[[dict], object], str]] = {
    "a clock is behind": (
        lambda h: h["node1"].update(clock=-50.0),
        "^node1: its clock is 50 s behind those of the others",
    ),
    "a clock is ahead": (lambda h: h["hub"].update(clock=301.0), "^hub: its clock is 301 s ahead of"),
    "a name does not resolve": (
        lambda h: h["node1"]["names"].update({"dask-gateway.lotus.test": []}),
        "^node1: the name dask-gateway.lotus.test does not resolve",
    ),
    "the gateway's user has two numbers": (
        lambda h: h["controller"]["users"].update({"dask-gateway": 998}),
        "the user dask-gateway has different numbers: 640 on gateway; 998 on controller",
    ),
    "a group has two numbers": (
        lambda h: h["node1"]["groups"]["dask"].update(gid=1001),
        "the group dask has different numbers: 1001 on node1; 27001 on controller, gateway, hub",
    ),
    "a user has two numbers": (
        lambda h: h["hub"]["groups"]["dask"]["members"].update(alice=1000),
        "the user alice has different numbers: 1000 on hub",
    ),
    "a host lacks the homes": (
        lambda h: h["node1"].update(home=None),
        r"^node1: there is no folder /home/users \(site_home_directory\)",
    ),
    "a host has homes of its own": (
        lambda h: h["node1"].update(home={"inode": 11, "inside": {"alice": 900}}),
        r"/home/users is not the same file system on all hosts \(hub, gateway / node1\)",
    ),
    "a host has an empty folder": (
        lambda h: h["hub"].update(home={"inode": 2, "inside": {}}),
        r"not the same file system on all hosts \(hub / gateway, node1\)",
    ),
    "Python mixes TLS connections up": (
        lambda h: h["node1"]["pythons"].update({"/usr/bin/python3": "This Python (3.13 with OpenSSL 3.5.7) hands on"}),
        "^node1: /usr/bin/python3: This Python .3.13 with OpenSSL 3.5.7. hands on",
    ),
    "the gateway is down": (
        lambda h: h["hub"].update(addresses={"https://g/api/health": {"error": "Connection refused"}}),
        "^hub: https://g/api/health gives no answer: Connection refused",
    ),
    "the certificate is for another name": (
        lambda h: h["hub"].update(addresses={"https://g/api/health": {"certificate": "Hostname mismatch"}}),
        "shows a certificate that is not believed: Hostname mismatch",
    ),
    "the certificate ends soon": (
        lambda h: h["hub"].update(addresses={"https://g/api/health": HEALTH | {"days": 13.4}}),
        "shows a certificate that ends in 13 days",
    ),
    "another server answers": (
        lambda h: h["hub"].update(addresses={"https://g/api/health": HEALTH | {"body": "<html>"}}),
        "is answered by something else than this service",
    ),
    "the portal fails": (
        lambda h: h["gateway"].update(addresses={"https://portal": HEALTH | {"status": 503}}),
        "^gateway: https://portal answers with status 503",
    ),
    "no job is accepted": (
        lambda h: h["gateway"]["job"].update(accepted=False, said="sbatch: error: Invalid account"),
        "^gateway: the batch cluster does not accept a test job of alice: sbatch: error: Invalid account",
    ),
    "SLURM does not answer": (
        lambda h: h["gateway"]["jobs"].update(answers=False, said="squeue: error: no contact"),
        "SLURM's commands do not work for dask-gateway: squeue: error: no contact",
    ),
    "the gateway is no operator": (
        lambda h: h["gateway"]["jobs"].update(rights="None"),
        "SLURM hides users' jobs from dask-gateway .PrivateData=jobs.: give it an operator's rights",
    ),
    "the gateway is an operator by another number": (
        lambda h: h["gateway"]["jobs"].update(unseen=["77"]),
        "hides users' jobs from dask-gateway .PrivateData=jobs., such as 77: .*the same number on the controller",
    ),
}


@pytest.mark.parametrize(("break_it", "sentence"), BROKEN.values(), ids=BROKEN.keys())
def test_one_thing_that_is_wrong_is_told_in_one_sentence(break_it, sentence):
    hosts = service()
    break_it(hosts)
    found = findings(hosts)
    assert len(found) == 1, found
    assert re.search(sentence, found[0]), found[0]


def test_a_node_that_a_job_has_looked_at_is_a_host_among_the_others():
    assert findings(with_a_node()) == []


@pytest.mark.parametrize(
    ("seen", "sentence"),
    [
        ({"time": 900.0}, r"^quarry7 \(by a job\): its clock is 100 s behind"),
        ({"time": 1080.0}, r"^quarry7 \(by a job\): its clock is 60 s ahead"),
        ({"time": 1049.0}, ""),
        ({"groups": {"dask": GROUP | {"gid": 9}}}, "the group dask has different numbers: 9 on quarry7"),
        ({"home": None}, r"^quarry7 \(by a job\): there is no folder /home/users"),
        ({"home": HOMES | {"inode": 5}}, r"not the same file system on all hosts \(hub, gateway, node1 / quarry7"),
        ({"pythons": {}}, r"^quarry7 \(by a job\): there is no environment of jaspy"),
        ({"pythons": {"/apps/jaspy/envs/1/bin/python": "exec format error"}}, "exec format error"),
        ({"names": {"dask-gateway.lotus.test": []}}, r"^quarry7 \(by a job\): the name dask-gateway.lotus.test"),
        ({"addresses": {"https://g/api/health": {"error": "timed out"}}}, r"^quarry7 .*gives no answer: timed out"),
    ],
)
def test_one_thing_that_is_wrong_on_a_node_is_told_in_one_sentence(seen, sentence):
    found = findings(with_a_node(**seen))
    assert len(found) == bool(sentence), found
    assert not found or re.search(sentence, found[0]), found[0]


def test_a_job_that_did_not_come_to_look_is_told_with_what_slurm_says():
    hosts = with_a_node()
    hosts["gateway"]["nodes"].update(seen=[], said="after 300 s its job 7 was PENDING (Resources), and was cancelled")
    assert findings(hosts) == [
        "gateway: a job of canary did not tell what it sees on the nodes: "
        "after 300 s its job 7 was PENDING (Resources), and was cancelled"
    ]


def test_the_program_of_the_job_tells_what_the_module_wants_to_know():
    """By the Python of the distribution, as on a node."""
    program = (REPOSITORY / "plugins/module_utils/observations.py").read_text()
    wanted = {
        "names": ["localhost"], "addresses": [], "users": [], "groups": ["root"], "home": "/", "pythons": [],
        "python_check": "",
    }  # fmt: skip
    done = subprocess.run(
        ["/usr/bin/python3", "-I", "-c", program, json.dumps(wanted)], capture_output=True, text=True, check=True
    )
    told = json.loads(done.stdout)
    assert told["node"] == socket.gethostname().partition(".")[0]
    assert abs(told["time"] - time.time()) < 30
    assert told["seen"].keys() == set(NODES_KEYS)
    assert told["seen"]["groups"] == {"root": {"gid": 0, "members": {}}}
    assert told["seen"]["home"] == observations.home("/")


def test_a_certificate_of_the_inventory_that_ends_soon_is_told_before_it_is_installed():
    [found] = findings(service(), certificate_for("dask-gateway.lotus.test", days=13)[0])
    assert found.startswith("gateway: the certificate in the inventory (tls_frontend_certificate) ends in 1")


def test_everything_that_is_wrong_is_told_at_once():
    hosts = service()
    for break_it, _ in BROKEN.values():
        break_it(hosts)
    assert len(findings(hosts)) > 10


def test_a_host_alone_is_not_compared_with_others():
    assert findings({"node1": probe()}) == []


def test_homes_that_come_and_go_between_two_looks_are_no_difference():
    hosts = service()
    hosts["node1"]["home"]["inside"]["carol"] = 103
    del hosts["hub"]["home"]["inside"]["bob"]
    assert findings(hosts) == []


def test_before_an_installation_nobody_asks_what_only_the_service_can_answer():
    hosts = service()
    for host in hosts.values():
        host.update(installed=False, addresses={"https://g/api/health": {"error": "Connection refused"}})
    hosts["gateway"]["job"].update(accepted=False)
    assert findings(hosts) == []


def test_the_probe_of_a_python_runs_the_check(tmp_path: Path):
    good = observations.pythons([sys.executable], "print('fine')")
    assert list(good.values()) == [""]
    [fault] = observations.pythons([sys.executable], "raise SystemExit('it mixes connections up')").values()
    assert fault == "it mixes connections up"
    check = (REPOSITORY / "src/dask_user_tools/dask_user_tools/tls.py").read_text()
    assert list(observations.pythons([sys.executable], check).values()) == [""]
    assert observations.pythons([str(tmp_path / "*")], check) == {}


def test_the_probe_of_homes_and_names_answers_what_is_there(tmp_path: Path):
    (tmp_path / "alice").mkdir()
    seen = observations.home(str(tmp_path))
    assert seen == {"inode": tmp_path.stat().st_ino, "inside": {"alice": (tmp_path / "alice").stat().st_ino}}
    assert observations.home(str(tmp_path / "none")) is None
    assert observations.resolved("localhost")
    assert observations.resolved("no-such-name.invalid") == []
    assert observations.user_id("root") == 0
    assert observations.group("no-such-group") is None
    assert "error" in observations.asked("https://127.0.0.1:9/")


@pytest.fixture
def answering(tmp_path, monkeypatch):
    """``answering(name, days)``: the address of a server whose certificate is for that name; it alone is believed."""
    servers = []

    def start(name: str, days: int = 90) -> str:
        certificate, key = certificate_for(name, days=days)
        (tmp_path / "pem").write_text(certificate + key)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tmp_path / "pem")
        server = HTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        believing = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        believing.load_verify_locations(cadata=certificate)
        monkeypatch.setattr(observations.ssl, "create_default_context", lambda: believing)
        return f"https://localhost:{server.server_port}/no-such-file"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_a_host_that_asks_sees_whose_certificate_it_is_and_how_long_it_lives(answering):
    assert observations.asked(answering("elsewhere.lotus.test"))["certificate"].startswith("Hostname mismatch")
    assert "expired" in observations.asked(answering("localhost", days=-1))["certificate"]
    soon = observations.asked(answering("localhost", days=5))
    assert (soon["status"], round(soon["days"])) == (404, 5)
    assert "refused" in observations.asked("https://localhost:9/")["error"]
