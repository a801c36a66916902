"""The accounts portal decides who may: granted, revoked, expired, granted again, and what happens while it is away."""

import json
import os
import subprocess
import time
from collections.abc import Iterator
from datetime import date, timedelta

import pytest
import scenario
from portal_control import CATEGORY, SERVICE, PortalControl

# Seconds for which the portal is away; 300 with script/test --all
OUTAGE = int(os.environ.get("DASK_SERVICE_OUTAGE", "15"))
TODAY = date.today()
HOME = "/home/users"


def call_control(method: str, path: str, body: str) -> str:
    program = (
        "import sys, urllib.error, urllib.request as u\n"
        "method, path = sys.argv[1:]\n"
        "request = u.Request(f'http://127.0.0.1:8001/control/{path}', sys.stdin.buffer.read(), method=method)\n"
        "try: print(u.urlopen(request, timeout=20).read().decode())\n"
        "except urllib.error.HTTPError as error: print(error.read().decode())"
    )
    return subprocess.run(
        ["docker", "exec", "-i", f"{scenario.PREFIX}-site", "python3", "-c", program, method, path],
        input=body, capture_output=True, text=True, check=True, timeout=60,
    ).stdout  # fmt: skip


@pytest.fixture(scope="module")
def settings() -> dict:
    """What the inventory says of the access check."""
    return scenario.site()


@pytest.fixture
def portal() -> Iterator[PortalControl]:
    """The portal's control; afterwards everything is as it was before, and the gateway has noticed."""
    control = PortalControl(call_control)
    control.reset()
    yield control
    scenario.host("site").check_output("systemctl start accounts-portal")
    scenario.wait_until("the portal is back", lambda: portal_answers(control))
    control.reset()
    scenario.wait_until("alice and carol are let in again", lambda: check("alice")[0] == check("carol")[0] == 0)


def portal_answers(control) -> bool:
    try:
        return "token" in control.requests()
    except (subprocess.CalledProcessError, ValueError):
        return False


def check(user: str, *options: str) -> tuple[int, dict]:
    """What `gateway-admin accounts check` says: its exit code and its answer."""
    done = scenario.host("gateway").run(
        "gateway-admin accounts check --json %s -- %s", " ".join(options) or "--json", user
    )
    return done.rc, json.loads(done.stdout)


def audited(user: str) -> list[dict]:
    """The entries of the audit log about a user."""
    text = scenario.host("gateway").check_output("cat /var/log/accounts-check/dask-gateway/audit.log")
    entries = [json.loads(line) for line in text.splitlines()]
    return [entry for entry in entries if entry["user"] == user]


ATTEMPT = """
import dask_gateway
gateway = dask_gateway.Gateway(auth="jupyterhub")
try:
    print("cluster", gateway.submit())
except Exception as error:
    print(f"{type(error).__name__}: {error}")
"""


@pytest.fixture
def attempt(login_python, no_clusters_left):
    """``attempt("carol")``: what she reads when she asks for a cluster; `cluster <name>` if she gets one."""

    def run(user: str) -> str:
        done = login_python(user, ATTEMPT)
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stdout + done.stderr
        return done.stdout.strip()

    return run


# -- who may ----------------------------------------------------------------------------------------------------


def test_a_grant_that_expires_today_is_good_and_yesterdays_is_not(portal, attempt, settings):
    portal.expire("carol", TODAY)
    assert attempt("carol").startswith("cluster ")
    portal.expire("carol", TODAY - timedelta(days=1))
    time.sleep(settings["accounts_check_allowed_max_age"])
    printed = attempt("carol")
    assert f"carol no longer holds the service 'dask': it was last seen on {TODAY}" in printed
    assert f"Apply at {scenario.site()['site_accounts_apply_url']} ;" in printed


def test_who_is_granted_it_again_is_in_within_a_minute_without_a_restart(portal, attempt):
    portal.forget("carol")
    scenario.wait_until("carol is refused", lambda: check("carol")[0] == 1, timeout=70)
    assert "carol" in attempt("carol")
    portal.grant("carol")
    scenario.wait_until("carol is let in again", lambda: attempt("carol").startswith("cluster "), timeout=60, every=2)


def test_who_is_granted_it_but_is_not_in_the_users_group_reads_so_and_owns_no_job(portal, attempt):
    portal.grant("bob")
    scenario.wait_until("the grant is seen", lambda: check("bob")[1]["rule"].startswith("grant"), timeout=30)
    printed = attempt("bob")
    assert "bob holds the service 'dask', but is not in the site's users group 'dask'" in printed
    assert "Apply" not in printed
    assert scenario.jobs_of("bob") == []


def test_two_unexpired_grants_of_which_one_is_superseded_are_good(portal, attempt):
    portal.grant("carol", expires=TODAY + timedelta(days=3), supersede=True)
    assert check("carol", "--live")[0] == 0
    assert attempt("carol").startswith("cluster ")


@pytest.mark.parametrize("which", [{"category": "default"}, {"role": "MANAGER"}, {"role": "DEPUTY"}])
def test_another_category_or_role_is_not_the_service(portal, which):
    portal.add_service("default", SERVICE)
    portal.forget("carol")
    portal.grant("carol", **which)
    code, answer = check("carol", "--live")
    assert code == 1
    assert [grant["said"] for grant in answer["grants"]] == [f"another {next(iter(which))}"]


@pytest.mark.parametrize(
    "name", ["Alice", "ALICE", "alice/", "carol/../alice", "../alice", "a" * 300, "alice%2F", "-", ""]
)
def test_a_name_that_is_not_hers_does_not_get_what_alice_has(portal, name):
    code, answer = check(name, "--live")
    assert (code, answer["decision"]) == (1, "refused")


def test_a_user_who_lost_the_service_can_still_list_and_stop_clusters(portal, attempt, login_python):
    name = attempt("carol").split()[1]
    portal.revoke("carol")
    scenario.wait_until("carol is refused", lambda: check("carol", "--live")[0] == 1)
    program = f"""
import dask_gateway
gateway = dask_gateway.Gateway(auth="jupyterhub")
print([cluster.name for cluster in gateway.list_clusters()])
gateway.stop_cluster("{name}")
"""
    done = login_python("carol", program)
    assert (done.returncode, done.stdout.strip()) == (0, f"['{name}']"), done.stderr
    scenario.wait_until("no job is left", lambda: scenario.jobs_of("carol") == [])


# -- a computation and what happens meanwhile -------------------------------------------------------------------

COMPUTATION = """
import sys, time
import dask_gateway
from distributed import as_completed

gateway = dask_gateway.Gateway(auth="jupyterhub")
cluster = gateway.new_cluster(shutdown_on_close=False)
cluster.scale(1)
client = cluster.get_client()
client.wait_for_workers(1)
print("computing", cluster.name, flush=True)
futures = client.map(lambda x: time.sleep(1) or x * x, range({tasks}))
results = []
try:
    for _, result in as_completed(futures, with_results=True):
        results.append(result)
        print("result", result, flush=True)
except Exception as error:
    print("broken off", type(error).__name__, flush=True)
print("kept", len(results), flush=True)
"""


class Computation:
    """A program of a user on the login host; each of its lines comes as it is printed."""

    def __init__(self, user: str, tasks: int):
        path = f"{HOME}/{user}/computation.py"
        scenario.put_file("login", user, path, COMPUTATION.format(tasks=tasks))
        self.process = subprocess.Popen(
            ["docker", "exec", f"{scenario.PREFIX}-login", "runuser", "-l", user, "-c",
             f"module load jaspy && timeout {tasks + 300} python {path}"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.cluster = self.line("computing")

    def line(self, first_word: str) -> str:
        line = self.process.stdout.readline()
        if not line.startswith(first_word):
            out, err = self.process.communicate()
            raise AssertionError(f"expected a line {first_word!r}, the program printed: {line}{out}\\n{err}")
        return line.removeprefix(first_word).strip()

    def rest(self) -> list[str]:
        """The lines that are left, up to its end."""
        out, _ = self.process.communicate(timeout=400)
        return out.splitlines()


@pytest.fixture
def computation(token_file, no_clusters_left):
    """``computation("carol", tasks=20)``: that user's program, computing."""
    running = []

    def start(user: str, tasks: int) -> Computation:
        token_file(user)
        running.append(Computation(user, tasks))
        return running[-1]

    yield start
    for program in running:
        program.process.kill()
        program.process.communicate()


def test_a_cluster_of_a_user_who_is_revoked_is_stopped_in_time_after_a_warning_and_finished_results_are_kept(
    portal, computation, settings
):
    within = settings["dask_gateway_revocation_time"]
    running = computation("carol", tasks=within + 120)
    assert int(running.line("result")) >= 0
    portal.revoke("carol")
    revoked = time.monotonic()

    log = f"{HOME}/carol/.dask-gateway/logs/{running.cluster}/scheduler.log"
    node = scenario.host("node1")
    warning = scenario.wait_until(
        "carol finds the warning in her cluster's log",
        lambda: node.run("grep 'This cluster will be stopped' %s", log).stdout,
        timeout=within,
    )
    assert "carol no longer holds the service 'dask'" in warning
    assert scenario.jobs_of("carol") != []
    scenario.wait_until("carol's jobs have ended", lambda: scenario.jobs_of("carol") == [], timeout=within + 30)
    assert time.monotonic() - revoked <= within + 30  # SLURM's own time to end a job

    lines = running.rest()
    kept = int(next(line for line in lines if line.startswith("kept")).split()[1])
    assert kept >= within / 4, lines[-5:]
    entries = [(e["decision"], e.get("cluster")) for e in audited("carol") if e["decision"].startswith("cluster ")]
    assert entries[-2:] == [("cluster warned", running.cluster), ("cluster stopped", running.cluster)]


def test_a_portal_that_is_away_ends_no_computation_and_lets_those_go_on_who_were_allowed(
    portal, attempt, computation, settings
):
    assert attempt("alice").startswith("cluster ")
    portal.revoke("carol")
    scenario.wait_until("carol is refused", lambda: check("carol")[0] == 1, timeout=70)
    tasks = OUTAGE + 15
    running = computation("alice", tasks=tasks)
    running.line("result")

    scenario.host("site").check_output("systemctl stop accounts-portal")
    away_until = time.monotonic() + OUTAGE
    time.sleep(settings["accounts_check_allowed_max_age"])
    assert attempt("alice").startswith("cluster ")
    assert check("alice")[1]["source"] == "grace"
    printed = attempt("carol")
    assert "The accounts service can't be reached, try again" in printed
    assert "Apply" not in printed
    time.sleep(max(0, away_until - time.monotonic()))
    scenario.host("site").check_output("systemctl start accounts-portal")

    lines = running.rest()
    assert lines[-1] == f"kept {tasks}", lines[-3:]
    assert {entry["source"] for entry in audited("alice")} >= {"live", "grace"}
    assert not [entry for entry in audited("alice") if entry["decision"].startswith("cluster ")]


@pytest.mark.parametrize(
    "fault",
    [{"kind": "slow", "seconds": 4}, {"kind": "status", "code": 503, "times": 2}, {"kind": "html", "times": 2}],
    ids=lambda fault: fault["kind"],
)
def test_a_portal_that_is_slow_or_stumbles_is_not_noticed(portal, attempt, settings, fault):
    time.sleep(settings["accounts_check_allowed_max_age"])
    portal.fault("grants", **fault)
    assert attempt("carol").startswith("cluster ")


def test_others_are_answered_while_somebody_waits_for_a_slow_portal(portal, settings):
    time.sleep(settings["accounts_check_allowed_max_age"])
    portal.fault("grants", "slow", seconds=8)
    gateway = scenario.host("gateway")
    began = time.monotonic()
    waiting = subprocess.Popen(
        ["docker", "exec", f"{scenario.PREFIX}-gateway", "gateway-admin", "accounts", "check", "--live", "alice"],
        stdout=subprocess.DEVNULL,
    )
    assert scenario.get("gateway", "/api/health").status_code == 200
    assert time.monotonic() - began < 5
    assert waiting.wait(timeout=30) == 0
    assert gateway.check_output("systemctl is-active dask-gateway") == "active"


def test_a_token_that_the_portal_forgot_is_replaced(portal, attempt, settings):
    time.sleep(settings["accounts_check_allowed_max_age"])
    portal.forget_tokens()
    portal.count_from_zero()
    assert attempt("carol").startswith("cluster ")
    assert portal.requests()["token"] == 1


def test_200_users_who_ask_at_once_cost_200_requests(portal):
    program = """
import asyncio, logging
from slurm_gateway.accounts import from_file
from slurm_gateway.audit import AuditLog
from slurm_gateway.record import Record

async def main():
    log = logging.getLogger("test")
    check = from_file("/etc/accounts-check/dask-gateway/accounts.json", log=log)
    check.record, check.audit = Record("", check.wanted, log), AuditLog("", log)
    await check.start()
    decisions = await asyncio.gather(*(check.check(f"user{n}") for n in range(200) for _ in range(3)))
    print(*{decision.outcome for decision in decisions})
    await check.close()

asyncio.run(main())
"""
    portal.count_from_zero()
    done = scenario.host("gateway").run("/opt/dask-gateway/bin/python -c %s", program)
    assert done.stdout.strip() == "refused", done.stderr
    counted = portal.requests()
    assert (counted["token"], counted["grants"]) == (1, 200)


# -- for operators ----------------------------------------------------------------------------------------------


def test_an_operator_reads_the_grants_the_decision_the_rule_and_the_source(portal):
    gateway = scenario.host("gateway")
    for user, code, words in (("alice", 0, "alice: allowed"), ("bob", 1, "bob: refused")):
        done = gateway.run("gateway-admin accounts check %s", user)
        assert done.rc == code, done.stderr
        assert done.stdout.splitlines()[0] == words
    assert "counts until the end of" in gateway.run("gateway-admin accounts check --live alice").stdout
    scenario.host("site").check_output("systemctl stop accounts-portal")
    assert gateway.run("gateway-admin accounts check --live bob").rc == 2


def test_the_answer_of_the_gateway_is_remembered_for_the_operator(portal, attempt):
    attempt("alice")
    code, answer = check("alice")
    assert (code, answer["source"]) == (0, "cache")


def test_the_probe_proves_credentials_and_contract(portal):
    done = scenario.host("gateway").run("gateway-admin accounts probe")
    assert done.rc == 0, done.stderr
    assert "gets a token with the scope" in done.stdout


def test_every_decision_is_audited_and_operators_can_read_it(portal, attempt):
    attempt("bob")
    entry = audited("bob")[-1]
    assert (entry["decision"], entry["source"] in ("live", "cache"), entry["action"]) == ("refused", True, "create")
    assert "no grant of" in entry["reason"]
    file = scenario.host("gateway").file("/var/log/accounts-check/dask-gateway/audit.log")
    assert (file.user, file.group, f"{file.mode:o}") == ("dask-gateway", "adm", "640")
    folder = scenario.host("gateway").file("/var/log/accounts-check/dask-gateway")
    assert f"{folder.mode:o}" == "2750"


def test_the_audit_log_goes_on_after_it_was_rotated(portal, attempt):
    gateway = scenario.host("gateway")
    attempt("bob")
    gateway.check_output("logrotate --force /etc/logrotate.d/accounts-check-dask-gateway")
    file = gateway.file("/var/log/accounts-check/dask-gateway/audit.log")
    assert (file.size, file.user, file.group, f"{file.mode:o}") == (0, "dask-gateway", "adm", "640")
    attempt("bob")
    assert audited("bob")
    gateway.check_output("rm /var/log/accounts-check/dask-gateway/audit.log-*")


def test_metrics_are_served_on_the_loopback_and_nowhere_else(portal, attempt):
    attempt("bob")
    program = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:8002/metrics').read().decode())"
    text = scenario.host("gateway").check_output("python3 -c %s", program)
    assert 'accounts_check_decisions_total{outcome="refused"' in text
    assert "accounts_portal_errors_total" in text
    assert "127.0.0.1:8002" in scenario.host("gateway").check_output("ss -Hltn sport = 8002")
    assert "0.0.0.0:8002" not in scenario.host("gateway").check_output("ss -Hltn sport = 8002")


@pytest.mark.parametrize("name", ["accounts.json", "client-secret"])
def test_credentials_are_the_services_alone(name):
    file = scenario.host("gateway").file(f"/etc/accounts-check/dask-gateway/{name}")
    assert (file.user, f"{file.mode:o}") == ("dask-gateway", "600")
    seen = scenario.as_user("gateway", "alice", f"cat {file.path}; cat /var/lib/accounts-check/dask-gateway/*")
    assert seen.stdout == ""


# -- the pages that a refusal points to -------------------------------------------------------------------------


def test_the_page_that_a_refusal_names_is_there(portal, attempt):
    address = scenario.site()["site_accounts_apply_url"]
    assert f"Apply at {address} ;" in attempt("bob")
    program = "import sys, urllib.request as u; r = u.urlopen(sys.argv[1]); print(r.status, r.url)"
    printed = scenario.host("login").check_output("python3 -c %s %s", program, address)
    assert (
        printed
        == f"200 https://accounts.{scenario.site()['site_domain']}/accounts/login/?next=/services/{CATEGORY}/dask/"
    )
