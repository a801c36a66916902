"""Prometheus reads what there is to read, and its alerts fire when the thing that they are about is broken."""

import json
import re
import shlex
import uuid
from contextlib import contextmanager
from urllib.parse import quote

import accounts_portal
import pytest
import scenario
from hub_client import trusting
from inventory_copies import certificate_for

# The query of the panel that shows what fires
FIRING = 'ALERTS{alertstate="firing"}'
# Each waits for an alert, and then for its end
TARGETS = {("gateway", ""), ("health", ""), ("hub", "")} | {
    (job, service) for job in ("address", "certificate") for service in ("gateway", "hub")
}


def on(host: str, command: str) -> str:
    return scenario.host(host).check_output(command)


def prometheus(path: str) -> dict:
    ask = f"import urllib.request as r; print(r.urlopen('http://127.0.0.1:9090/api/v1/{path}').read().decode())"
    return json.loads(on("controller", f"python3 -c {shlex.quote(ask)}"))["data"]


def firing(name: str, **labels: str) -> list[dict]:
    """The alerts of this name and these labels that fire."""
    return [
        alert
        for alert in prometheus("alerts")["alerts"]
        if alert["state"] == "firing" and {"alertname": name, **labels}.items() <= alert["labels"].items()
    ]


def shown(query: str) -> list[dict]:
    """What a panel of this query shows now."""
    return prometheus(f"query?query={quote(query)}")["result"]


def test_each_alert_does_what_its_examples_say():
    examples = (scenario.REPOSITORY / "tests/service/alerts.test.yml").read_text()
    on("controller", f"printf %s {shlex.quote(examples)} > /tmp/alerts.test.yml")
    done = scenario.host("controller").run("promtool test rules /tmp/alerts.test.yml")
    assert done.rc == 0, done.stdout + done.stderr
    for rule in prometheus("rules?type=alert")["groups"][0]["rules"]:
        name = rule["name"]
        fires = f"alertname: {name}\n        exp_alerts:\n          - exp_labels"
        assert fires in examples, f"{name} never fires there"
        assert name in {alert for alerts, _ in BROKEN for alert, _ in alerts}, f"nothing is broken for {name}"


def test_everything_is_read():
    def read() -> set:
        return {
            (target["labels"]["job"], target["labels"].get("service", ""))
            for target in prometheus("targets?state=active")["activeTargets"]
            if target["health"] == "up"
        }

    scenario.wait_until("all of it is read", lambda: read() == TARGETS, timeout=30)


@pytest.mark.parametrize(
    "metric",
    [
        "dask_gateway_health_part",
        "dask_gateway_database_bytes",
        "dask_gateway_longest_wait_seconds",
        "jupyterhub_database_bytes",
        "jupyterhub_running_servers",
        "probe_ssl_earliest_cert_expiry",
    ],
)
def test_what_alerts_ask_for_has_arrived(metric):
    scenario.wait_until(f"there is {metric}", lambda: prometheus(f"query?query={metric}")["result"], timeout=30)


def test_each_panel_of_the_dashboard_has_something_to_show():
    dashboard = json.loads((scenario.REPOSITORY / "roles/monitoring/files/dashboard.json").read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    assert FIRING in queries

    def empty() -> list[str]:
        known = prometheus("metadata").keys()
        return [query for query in queries if query != FIRING and not (shown(query) or is_rare(query, known))]

    def is_rare(query: str, known) -> bool:
        """Whether it asks for what happens seldom, of a counter that is read."""
        (counter,) = re.findall(r"\b((?:dask_gateway|accounts)_\w+)_total\b", query) or [""]
        return query.endswith("> 0") and counter in known

    scenario.wait_until("no panel is empty", lambda: not empty(), timeout=60)


@pytest.mark.parametrize("path", ["/metrics", "/metrics/health"])
def test_metrics_are_for_the_addresses_that_may_read_them_alone(path):
    name = scenario.site()["site_gateway_host"]
    request = f"GET {path} HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode()
    ask = f"""
import socket, ssl
server = socket.create_connection(("127.0.0.1", 443))
server = ssl.create_default_context().wrap_socket(server, server_hostname={name!r})
server.sendall({request!r})
print(server.recv(100).decode().split()[1])
"""
    said = on("gateway", f"python3 -c {shlex.quote(ask)}").strip()
    assert said == "403"


def test_the_hubs_metrics_want_a_token():
    assert scenario.get("hub", "/hub/metrics").status_code == 403


# -- broken things --------------------------------------------------------------------------------------------


@contextmanager
def stopped(host: str, unit: str):
    on(host, f"systemctl stop {unit}")
    try:
        yield
    finally:
        on(host, f"systemctl start {unit}")


@contextmanager
def portal_away():
    accounts_portal.stop()
    try:
        yield
    finally:
        accounts_portal.start()


@contextmanager
def held_queue(alice):
    on("controller", "scontrol update partitionname=standard state=down")
    try:
        with submitted(alice):
            yield
    finally:
        on("controller", "scontrol update partitionname=standard state=up")


@contextmanager
def submitted(alice, **options):
    """A cluster that alice asked for."""
    clusters = scenario.published_url("gateway") + "/api/v1/clusters/"
    answer = alice.post(clusters, json={"cluster_options": options}, timeout=60)
    assert answer.status_code == 201, answer.text
    try:
        yield
    finally:
        alice.delete(clusters + answer.json()["name"], timeout=60)


@contextmanager
def without_sudo(alice):
    on("gateway", "mv /etc/sudoers.d/dask-gateway /root/dask-gateway.sudoers")
    try:
        with submitted(alice):
            yield
    finally:
        on("gateway", "mv /root/dask-gateway.sudoers /etc/sudoers.d/dask-gateway")


@contextmanager
def orphan():
    """A job of alice's with the mark of a cluster that nobody knows; the gateway itself ends it."""
    mark = f"dask-gateway:{scenario.site()['site_gateway_host']}:{uuid.uuid4().hex}:scheduler:-"
    done = scenario.as_user("login", "alice", f"sbatch --comment {mark} --mem 100 --wrap 'sleep 600'")
    assert done.returncode == 0, done.stderr
    yield
    scenario.wait_until("the orphan is cancelled", lambda: not scenario.jobs_of("alice"))


@contextmanager
def expired_certificate():
    certificate, key = certificate_for(scenario.site()["site_gateway_host"], days=-1)
    files = {"/etc/nginx/tls-frontend.crt": certificate, "/etc/nginx/tls-frontend.key": key}
    for path, text in files.items():
        on("gateway", f"cp -p {path} {path}.kept && printf %s {shlex.quote(text)} > {path}")
    on("gateway", "systemctl reload nginx")
    try:
        yield
    finally:
        for path in files:
            on("gateway", f"mv {path}.kept {path}")
        on("gateway", "systemctl reload nginx")


@contextmanager
def grown_database():
    def change(statements: str) -> None:
        database = "sqlite3.connect('/var/lib/jupyterhub/jupyterhub.sqlite', timeout=30)"
        on("hub", f"python3 -c {shlex.quote(f'import sqlite3; {database}.executescript({statements!r})')}")

    change("create table ballast (x); insert into ballast values (zeroblob(25000000))")
    try:
        yield
    finally:
        change("drop table ballast; vacuum")


@contextmanager
def failing_canary():
    """A canary whose token the Hub does not know, in place of the timer's look without one."""
    look = "gateway-admin health --canary --token-file - --json"
    file = "/var/lib/dask-gateway-health/health.prom"
    with stopped("gateway", "dask-gateway-health.timer"):
        on("gateway", f"echo {'0' * 32} | {look} | gateway-admin health-metrics {file}")
        yield


@pytest.fixture
def alices_session(alice):
    """Requests of alice's to the gateway."""
    session = trusting(scenario.ca())
    session.headers["Authorization"] = f"jupyterhub {alice.new_token(note='monitoring')}"
    return session


BROKEN = [
    (
        [("GatewayDown", {}), ("MetricsMissing", {"job": "gateway"}), ("PartCritical", {"part": "gateway"})],
        lambda alice: stopped("gateway", "dask-gateway.service"),
    ),
    ([("HubDown", {}), ("PartCritical", {"part": "hub"})], lambda alice: stopped("hub", "jupyterhub.service")),
    ([("CanaryFailing", {"part": "canary: hub"})], lambda alice: failing_canary()),
    ([("HealthUnknown", {})], lambda alice: stopped("gateway", "dask-gateway-health.timer")),
    ([("PortalErrors", {})], lambda alice: portal_away()),
    ([("QueueWait", {"what": "cluster"})], lambda alice: held_queue(alice)),
    (
        [("FailedStarts", {"what": "cluster"})],
        lambda alice: submitted(alice, worker_setup="exit 3"),
    ),
    ([("ServiceFailures", {"reason": "sudo"})], lambda alice: without_sudo(alice)),
    ([("SlurmSilent", {})], lambda alice: stopped("controller", "slurmctld.service")),
    ([("OrphanedJobs", {})], lambda alice: orphan()),
    ([("CertificateExpires", {"service": "gateway"})], lambda alice: expired_certificate()),
    ([("DatabaseSize", {"job": "hub"})], lambda alice: grown_database()),
]


@pytest.mark.long
@pytest.mark.parametrize(
    ("alerts", "broken"),
    BROKEN,
    ids=lambda value: value[0][0] if isinstance(value, list) else "",
)
def test_an_alert_fires_while_the_thing_is_broken_and_ends_with_it(alerts, broken, alices_session):
    for name, labels in alerts:
        scenario.wait_until(f"{name} {labels} does not fire yet", lambda n=name, la=labels: not firing(n, **la), 150)

    with broken(alices_session):
        for name, labels in alerts:
            scenario.wait_until(f"{name} {labels} fires", lambda n=name, la=labels: firing(n, **la), 150)
            assert name in {series["metric"]["alertname"] for series in shown(FIRING)}

    for name, labels in alerts:
        scenario.wait_until(f"{name} {labels} ends", lambda n=name, la=labels: not firing(n, **la), 150)
