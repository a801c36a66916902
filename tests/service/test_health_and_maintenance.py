"""Operators look whether the service works, from end to end, and announce a maintenance, while alice computes."""

import json
import subprocess
from datetime import datetime, timedelta

import pytest
import scenario
from computation import Computation

COMPUTATION = """
import os

print("result", client.submit(lambda: time.sleep(5) or 6 * 7).result(), flush=True)
while not os.path.exists(os.path.expanduser("~/may-grow")):  # the gateway is restarted before
    time.sleep(0.2)
cluster.scale(2)
client.wait_for_workers(2)
print("grown", flush=True)
"""
MAY_GROW = "/home/users/alice/may-grow"
NEW_CLUSTER = "import dask_gateway; print(dask_gateway.Gateway(auth='jupyterhub').submit())"


@pytest.fixture
def computation(token_file, no_clusters_left):
    token_file("alice")
    scenario.host("login").check_output("rm -f %s", MAY_GROW)
    running = Computation("alice", COMPUTATION, timeout=240)
    yield running
    running.end()


def canary(token: str) -> tuple[int, dict]:
    """The exit code and the findings of `gateway-admin health --canary`, by their parts."""
    done = subprocess.run(
        ["docker", "exec", "-i", f"{scenario.PREFIX}-gateway", "gateway-admin", "health", "--json", "--canary",
         "--token-file=-"],
        input=token, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert token not in done.stdout + done.stderr
    answer = json.loads(done.stdout)
    assert done.returncode == answer["code"]
    return done.returncode, {finding["part"]: finding for finding in answer["findings"]}


def test_a_canary_goes_the_whole_way_and_leaves_nothing_but_what_was_there(hub_user, computation):
    code, found = canary(hub_user("carol").new_token(note="canary"))
    assert code == 0, {part: finding for part, finding in found.items() if finding["state"] != "ok"}
    hops = [part.removeprefix("canary: ") for part in found if part.startswith("canary")]
    assert hops == ["hub", "sign-in", "cluster", "connection", "task", "shutdown"]
    assert scenario.jobs_of("carol") == []
    assert computation.line("result") == "42"


@pytest.mark.long
def test_the_canary_names_the_hop_that_is_broken_and_stops_its_cluster(hub_user, no_clusters_left):
    token = hub_user("carol").new_token(note="canary")
    gateway = scenario.host("gateway")
    gateway.check_output("systemctl stop dask-gateway-proxy.service")
    try:
        code, found = canary(token)
    finally:
        gateway.check_output("systemctl start dask-gateway-proxy.service")
    assert code == 2
    states = {part.removeprefix("canary: "): f["state"] for part, f in found.items() if part.startswith("canary")}
    assert states == {"hub": "ok", "sign-in": "ok", "cluster": "ok", "connection": "critical", "shutdown": "ok"}
    assert scenario.jobs_of("carol") == []


def test_the_playbook_says_what_is_critical_and_shows_no_token(hub_user, tmp_path, computation):
    variables = tmp_path / "canary.json"
    token = hub_user("carol").new_token(note="canary")
    for wrong, said in ((False, "All is well."), (True, "canary: hub: the Hub does not know the")):
        variables.write_text(
            json.dumps(
                {"dask_gateway_canary_token": token[::-1] if wrong else token, "dask_gateway_canary_user": "carol"}
            )
        )
        variables.chmod(0o600)
        done = scenario.playbook("health", "-e", f"@{variables}", "-v")
        assert (done.returncode != 0) is wrong, done.stdout
        assert said in " ".join(done.stdout.split())
        assert token not in done.stdout + done.stderr
    assert computation.line("result") == "42"
    scenario.put_file("login", "alice", MAY_GROW, "")
    computation.line("grown")


HEALTH = "/var/lib/dask-gateway-health/health.prom"
CANARYS_TOKEN = "/etc/dask-gateway/canary-token"


@pytest.mark.long
def test_the_timer_sends_the_canary_of_a_site_that_has_one(hub_user, tmp_path, no_clusters_left):
    """In the unit's own sandbox, which has then more rights than where no canary goes."""
    gateway, token = scenario.host("gateway"), hub_user("carol").new_token(note="canary")
    variables = tmp_path / "canary.json"
    variables.write_text(json.dumps({"dask_gateway_canary_token": token, "dask_gateway_canary_user": "carol"}))
    variables.chmod(0o600)

    def told(part: str, code: int) -> bool:
        return f'dask_gateway_health_part{{part="canary: {part}"}} {code}.0' in gateway.check_output("cat %s", HEALTH)

    def kept_token() -> tuple[str, int, str]:
        file = gateway.file(CANARYS_TOKEN)
        return file.user, file.mode, file.content_string

    began = gateway.check_output("date +%s")
    try:
        done = scenario.playbook("gateway", "-e", f"@{variables}")
        assert done.returncode == 0, done.stdout[-6000:]
        assert kept_token() == ("root", 0o600, token)
        assert scenario.exposure("gateway", "dask-gateway-health.service") <= 4.0
        for part in ("hub", "sign-in", "cluster", "connection", "task", "shutdown"):
            scenario.wait_until(f"the canary's {part} is well", lambda part=part: told(part, 0), timeout=150)
        gateway.check_output("systemctl stop dask-gateway-proxy.service")
        scenario.wait_until("its connection fails", lambda: told("connection", 2), timeout=200)
        gateway.check_output("systemctl start dask-gateway-proxy.service")
        scenario.wait_until("its connection is well again", lambda: told("connection", 0), timeout=150)
        assert token not in gateway.check_output("journalctl --since @%s", began.strip())
    finally:
        gateway.check_output("systemctl start dask-gateway-proxy.service")
        without = scenario.playbook("gateway")
    assert without.returncode == 0, without.stdout[-6000:]
    assert not gateway.file(CANARYS_TOKEN).exists
    scenario.wait_until("no canary goes", lambda: 'part="canary' not in gateway.check_output("cat %s", HEALTH))
    scenario.wait_until("none of its jobs is left", lambda: not scenario.jobs_of("carol"))


def test_in_a_maintenance_nobody_gets_a_new_cluster_and_running_ones_go_on(computation, login_python):
    until = (datetime.now() + timedelta(hours=2)).isoformat(timespec="minutes")
    begin = ("-e", "maintenance=on", "-e", f"maintenance_until={until}", "-e", "maintenance_message='New disks.'")
    try:
        done = scenario.playbook("maintenance", *begin)
        assert done.returncode == 0, done.stdout
        assert "changed=1" in done.stdout
        assert "changed=0" in scenario.playbook("maintenance", *begin).stdout
        scenario.host("gateway").check_output("systemctl restart dask-gateway.service")
        scenario.wait_until("the gateway is back", lambda: scenario.get("gateway", "/api/health").status_code == 200)
        refused = login_python("alice", NEW_CLUSTER)
        assert refused.returncode != 0
        assert "being maintained: there are no new clusters until" in refused.stderr
        assert "New disks." in refused.stderr
        assert computation.line("result") == "42"
        scenario.put_file("login", "alice", MAY_GROW, "")
        computation.line("grown")
        code = scenario.host("gateway").run("gateway-admin health")
        assert code.rc == 1
        assert "New disks." in code.stdout
    finally:
        done = scenario.playbook("maintenance", "-e", "maintenance=off")
    assert "changed=1" in done.stdout
    allowed = login_python("alice", NEW_CLUSTER)
    assert allowed.returncode == 0, allowed.stderr
