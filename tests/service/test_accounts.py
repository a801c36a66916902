"""The accounts portal decides who may: granted, revoked, expired, granted again, and what happens while it is away."""

import json
import os
import re
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import accounts_portal
import pytest
import scenario
from accounts_portal import A_CLUSTER, AUDIT_LOG, CONFIGURATION, audited, check
from computation import Computation
from hub_client import KernelError, trusting
from portal_control import SERVICE, PortalControl

# Seconds for which the portal is away; 300 with script/test --all
OUTAGE = int(os.environ.get("DASK_SERVICE_OUTAGE", "10"))
SETTINGS = scenario.site()
HOME = SETTINGS["site_home_directory"]
APPLY = f"Apply at {SETTINGS['site_accounts_apply_url']} ; it can take a few minutes to reach this service."
TODAY = accounts_portal.today()


@pytest.fixture(scope="module", autouse=True)
def no_looks_at_the_health():
    """They ask the portal too, and these tests count what it is asked."""
    gateway = scenario.host("gateway")
    gateway.check_output("systemctl stop dask-gateway-health.timer dask-gateway-health.service")
    yield
    gateway.check_output("systemctl start dask-gateway-health.timer")


@pytest.fixture(scope="module")
def asks(hub_user) -> accounts_portal.Requests:
    return accounts_portal.Requests(hub_user)


@pytest.fixture(scope="module", autouse=True)
def as_before(asks):
    """After these tests the gateway has noticed that alice and carol hold the service again."""
    yield
    for user in ("alice", "carol"):
        scenario.wait_until(
            f"{user} is let in again", lambda user=user: asks.new_cluster(user) == A_CLUSTER, timeout=30, every=1
        )
        scenario.wait_until(f"no job of {user} is left", lambda user=user: not scenario.jobs_of(user))


@pytest.fixture
def portal() -> Iterator[PortalControl]:
    """The portal's control; before and after the test the portal is what the inventory says."""
    control = accounts_portal.control()
    control.reset()
    yield control
    accounts_portal.start()
    control.reset()


# -- who may ----------------------------------------------------------------------------------------------------


def test_in_a_notebook_bob_reads_the_sentence_and_he_owns_no_job(portal, hub_user):
    bob = hub_user("bob")
    bob.start_server()
    try:
        with bob.kernel() as kernel, pytest.raises(KernelError) as refused:
            kernel.run("import dask_gateway; dask_gateway.Gateway().new_cluster()")
    finally:
        bob.stop_server()
    assert refused.value.shown == f"ValueError: bob does not hold the service 'dask'. {APPLY}", "and no traceback"
    assert scenario.jobs_of("bob") == []
    entry = audited("bob")[-1]
    assert (entry["decision"], entry["action"], entry["service"]) == ("refused", "create", SERVICE)
    assert entry["source"] in ("live", "cache")
    assert "no grant of additional_services/dask as USER counts" in entry["reason"]


def test_a_grant_that_expires_today_is_good_and_yesterdays_is_not(portal, asks):
    portal.expire("carol", TODAY)
    assert asks.new_cluster("carol", live=True) == A_CLUSTER
    portal.expire("carol", TODAY - timedelta(days=1))
    assert asks.new_cluster("carol", live=True) == (
        f"carol no longer holds the service 'dask': it was last seen on {TODAY}, and has expired or was revoked since. "
        + APPLY
    )


def test_of_two_unexpired_grants_of_which_one_is_superseded_one_is_enough(portal, asks):
    portal.grant("carol", expires=TODAY + timedelta(days=3), supersede=True)
    code, answer = check("carol", "--live")
    assert (code, [grant["said"] for grant in answer["grants"]]) == (0, ["counts", "counts"])
    assert asks.new_cluster("carol", live=True) == A_CLUSTER


def test_another_category_or_role_is_not_the_service(portal, asks):
    portal.add_service("default", SERVICE)
    portal.forget("carol")
    for which in ({"category": "default"}, {"role": "DEPUTY"}, {"role": "MANAGER"}):
        portal.grant("carol", **which)
    code, answer = check("carol", "--live")
    assert code == 1
    assert [grant["said"] for grant in answer["grants"]] == ["another category", "another role", "another role"]
    assert "carol no longer holds the service 'dask'" in asks.new_cluster("carol", live=True)


NOT_HERS = ["ALICE", "Alice", "alice/", "carol/../alice", "../alice", "alice%2F", "alice\nbob", "a" * 300, "--live", ""]


def test_a_name_that_is_not_hers_does_not_get_what_alice_has(portal):
    portal.count_from_zero()
    with ThreadPoolExecutor(2) as pool:
        answers = dict(zip(NOT_HERS, pool.map(lambda name: check(name, "--live"), NOT_HERS), strict=True))
    decisions = {name: (code, answer["decision"], answer["user"]) for name, (code, answer) in answers.items()}
    assert decisions == {name: (1, "refused", name) for name in NOT_HERS}
    assert set(portal.requests()["users"]) == {"ALICE", "Alice"}, "what can be no user's name is asked nobody about"


def test_who_lost_the_service_can_still_list_and_stop_clusters_but_not_let_them_grow(
    portal, asks, new_cluster, login_python
):
    name = new_cluster("carol")
    portal.revoke("carol")
    scenario.wait_until(
        "carol is refused",
        lambda: asks.scale("carol", name, count=0).status_code == 409,
        timeout=SETTINGS["accounts_check_allowed_max_age"] + 5,
    )
    for numbers in ({"count": 1}, {"minimum": 0, "maximum": 2}):
        answer = asks.scale("carol", name, **numbers)
        assert answer.status_code == 409
        assert "carol no longer holds the service 'dask'" in answer.json()["error"]
    program = f"""
import dask_gateway
gateway = dask_gateway.Gateway(auth="jupyterhub")
print([cluster.name for cluster in gateway.list_clusters()])
gateway.stop_cluster("{name}")
"""
    done = login_python("carol", program)
    assert (done.returncode, done.stdout.strip()) == (0, f"['{name}']"), done.stderr
    scenario.wait_until("no job is left", lambda: scenario.jobs_of("carol") == [])


def test_bob_applies_on_the_page_that_the_refusal_names_mary_grants_and_what_is_left_is_said(portal, asks):
    page = re.search(r"Apply at (\S+) ;", asks.new_cluster("bob"))[1]
    passwords = scenario.passwords() | {
        user["name"]: user["password"] for user in SETTINGS["scenario_accounts_portal"]["users"]
    }
    applied, mine = accounts_portal.browse(
        "bob", passwords["bob"], {"page": page, "form": {"reason": "Ocean models"}}, {"page": "/services/"}
    )
    assert applied["address"] == page
    assert "have not decided yet" in applied["text"]
    assert "jasmin-login" in mine["text"].partition("<h2>additional_services")[0], "his services come first"
    (waiting,) = accounts_portal.browse("mary", passwords["mary"], {"page": page})
    assert "Ocean models" in waiting["text"]
    number = re.search(r"/requests/(\d+)/", waiting["text"])[1]
    decision = {"grant": "", "expires": str(TODAY + timedelta(days=30))}
    (refused,) = accounts_portal.browse(
        "bob", passwords["bob"], {"page": "/services/", "action": f"/requests/{number}/", "form": decision}
    )
    assert refused["status"] == 403, "nobody grants to himself"
    (granted,) = accounts_portal.browse(
        "mary", passwords["mary"], {"page": page, "action": f"/requests/{number}/", "form": decision}
    )
    assert "bob was granted" in granted["text"]

    sentence = asks.new_cluster("bob", live=True)
    assert sentence.startswith("bob holds the service 'dask', but is not in the site's users group 'dask'")
    assert "Apply" not in sentence
    assert scenario.jobs_of("bob") == []


# -- a computation and what happens meanwhile -------------------------------------------------------------------

COMPUTATION = """
import sys
from distributed import as_completed

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


@pytest.fixture
def computation(token_file, no_clusters_left):
    """``computation("carol", tasks=20)``: that user's program, computing."""
    running = []

    def begin(user: str, tasks: int) -> Computation:
        token_file(user)
        running.append(Computation(user, COMPUTATION.format(tasks=tasks), timeout=tasks + 300))
        return running[-1]

    yield begin
    for program in running:
        program.end()


def test_a_revoked_users_cluster_is_stopped_in_time_after_a_warning_results_are_kept_and_granted_again_she_is_in(
    portal, asks, computation
):
    within = SETTINGS["dask_gateway_revocation_time"]
    running = computation("carol", tasks=within + 120)
    running.line("result")
    service = "systemctl show --value --property=MainPID dask-gateway"
    process = scenario.host("gateway").check_output(service)
    portal.revoke("carol")
    revoked = time.monotonic()

    log = f"{HOME}/carol/.dask-gateway/logs/{running.cluster}/scheduler.log"
    warning = scenario.wait_until(
        "carol finds the warning in her cluster's log",
        lambda: scenario.host("node1").run("grep 'This cluster will be stopped' %s", log).stdout,
        timeout=within,
    )
    assert "carol no longer holds the service 'dask'" in warning
    assert scenario.jobs_of("carol") != []
    scenario.wait_until("carol's jobs have ended", lambda: scenario.jobs_of("carol") == [], timeout=within + 30)
    assert time.monotonic() - revoked <= within + 30  # SLURM's own time to end a job

    portal.grant("carol")
    granted = time.monotonic()
    scenario.wait_until("carol is let in again", lambda: asks.new_cluster("carol") == A_CLUSTER, timeout=60, every=1)
    assert time.monotonic() - granted <= 60
    assert scenario.host("gateway").check_output(service) == process, "nothing was restarted for that"

    lines = running.rest()
    kept = int(next(line for line in lines if line.startswith("kept")).split()[1])
    assert kept >= within / 4, lines[-5:]
    entries = [(e["decision"], e["cluster"]) for e in audited("carol") if e.get("cluster") == running.cluster]
    assert entries == [("cluster warned", running.cluster), ("cluster stopped", running.cluster)]


def test_a_portal_that_is_away_ends_no_computation_and_lets_those_go_on_who_were_allowed(portal, asks, computation):
    portal.revoke("carol")
    assert asks.new_cluster("carol", live=True) != A_CLUSTER
    tasks = OUTAGE + 5
    running = computation("alice", tasks=tasks)
    running.line("result")

    accounts_portal.stop()
    away_until = time.monotonic() + OUTAGE
    assert asks.new_cluster("alice", live=True) == A_CLUSTER
    sentence = asks.new_cluster("carol")
    assert sentence.startswith("The accounts service can't be reached, try again")
    assert "Apply" not in sentence
    assert asks.scale("alice", running.cluster, count=1).ok
    code, answer = check("bob", "--live")
    assert (code, answer["decision"]) == (2, "unknown")
    time.sleep(max(0, away_until - time.monotonic()))
    accounts_portal.start()

    lines = running.rest()
    assert lines[-1] == f"kept {tasks}", lines[-3:]
    entries = audited("alice")
    assert "grace" in {entry["source"] for entry in entries}
    assert not [entry for entry in entries if entry.get("cluster") == running.cluster]


FAULTS = [{"kind": "slow", "seconds": 3}, {"kind": "status", "code": 503, "times": 2}, {"kind": "html", "times": 2}]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault["kind"])
def test_a_portal_that_is_slow_or_stumbles_is_not_noticed_and_holds_up_nobody_else(portal, asks, fault):
    asks.session("carol")
    asks.session("alice")
    accounts_portal.wait_until_asked_anew("alice")
    portal.fault("grants", **fault)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(asks.new_cluster, "alice")
        listed = asks.session("carol").get(asks.clusters, timeout=30)
        assert listed.ok
        if fault["kind"] == "slow":
            assert not waiting.done(), "carol was answered meanwhile"
        assert waiting.result(timeout=60) == A_CLUSTER
    assert audited("alice")[-1]["source"] == "live"


def test_a_token_that_the_portal_forgot_is_replaced(portal, asks):
    portal.forget_tokens()
    portal.count_from_zero()
    assert asks.new_cluster("carol", live=True) == A_CLUSTER
    assert portal.requests()["token"] == 1


# Made in the Hub's database, as 200 people who sign in would be in the directory and take a while.
MAKE_USERS = """
from jupyterhub import orm
db = orm.new_session_factory("sqlite:////var/lib/jupyterhub/jupyterhub.sqlite")()
role = orm.Role.find(db, "user")
users = [orm.User(name=f"crowd{number}", roles=[role]) for number in range(200)]
db.add_all(users)
db.commit()
for user in users:
    print(user.new_api_token(scopes=["access:services!service=dask-gateway"], note="crowd"))
"""
REMOVE_USERS = """
import sqlite3
db = sqlite3.connect("/var/lib/jupyterhub/jupyterhub.sqlite", timeout=30)
db.execute("pragma foreign_keys = on")
db.execute("delete from users where name like 'crowd%'")
db.commit()
"""


@pytest.fixture
def crowd() -> Iterator[list[str]]:
    """Tokens of 200 users."""

    def in_hub(program: str) -> str:
        return scenario.host("hub").check_output("/opt/jupyterhub/bin/python -c %s", program)

    in_hub(REMOVE_USERS)
    try:
        yield in_hub(MAKE_USERS).split()
    finally:
        in_hub(REMOVE_USERS)


def test_200_users_who_ask_at_once_cost_the_portal_200_requests_and_others_are_answered_meanwhile(portal, asks, crowd):
    assert len(crowd) == 200
    asks.new_cluster("bob", live=True)  # the gateway has a token of the portal
    portal.count_from_zero()
    session = trusting(scenario.ca())
    # As dask_gateway.Gateway does: the token once, and then the cookie that came with the answer
    other = trusting(scenario.ca())
    other.cookies.update(asks.session("alice").get(asks.clusters, timeout=60).cookies)

    def ask(token: str) -> tuple[int, str]:
        answer = session.post(
            asks.clusters, json={}, headers={"Authorization": f"jupyterhub {token}"}, cookies={}, timeout=120
        )
        return answer.status_code, answer.json()["error"]

    slowest = 0.0
    with ThreadPoolExecutor(200) as pool:
        waiting = [pool.submit(ask, token) for token in crowd]
        while not all(question.done() for question in waiting):
            began = time.monotonic()
            assert other.get(asks.clusters, timeout=60).ok
            slowest = max(slowest, time.monotonic() - began)
            time.sleep(0.2)
        answers = [question.result() for question in waiting]
    refused = f"crowdN does not hold the service 'dask'. {APPLY}"
    assert Counter((status, re.sub(r"crowd\d+", "crowdN", text)) for status, text in answers) == {(422, refused): 200}
    counted = portal.requests()
    assert counted["grants"] + counted["token"] <= 200
    assert slowest < 10


# -- for operators ----------------------------------------------------------------------------------------------


def test_an_operator_reads_the_grants_the_decision_the_rule_and_the_source(portal, asks):
    gateway = scenario.host("gateway")
    done = gateway.run("gateway-admin accounts check --live alice")
    assert done.rc == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "alice: allowed"
    assert "counts until the end of" in lines[1]
    assert re.fullmatch(r"  source  live, in \d\.\d+ s", lines[2])
    assert lines[3].endswith(": counts")

    assert asks.new_cluster("alice") == A_CLUSTER
    code, answer = check("alice")
    assert (code, answer["source"]) == (0, "cache"), "what the gateway remembers is shown"


def test_the_probe_says_what_is_to_be_mended(portal):
    gateway = scenario.host("gateway")
    done = gateway.run("gateway-admin accounts probe")
    assert done.rc == 0, done.stderr
    assert "gets a token with the scope" in done.stdout

    settings = json.loads(gateway.check_output(f"cat {CONFIGURATION}/accounts.json"))
    settings["AccountsCheck"]["timeout"] = 2
    gateway.check_output("umask 077; echo wrong > /run/wrong-secret")

    def probe(**changes: str) -> str:
        changed = json.dumps(settings | {"Portal": settings["Portal"] | changes})
        gateway.check_output("umask 077; echo %s > /run/accounts.json", changed)
        done = gateway.run("gateway-admin accounts probe --config=/run/accounts.json")
        assert (done.rc, done.stdout, len(done.stderr.splitlines())) == (1, "", 1)
        return done.stderr

    secret = probe(client_secret_file="/run/wrong-secret")
    assert "Check accounts_check_client_id and vault_accounts_check_client_secret." in secret
    scope = probe(scope="jasmin.services.userservices.all:write")
    assert "Check accounts_check_scope, and ask the portal's operators to allow it to this client." in scope
    assert "Check site_ca_certificates" in probe(ca_file="/etc/ssl/certs/ISRG_Root_X1.pem")
    portal.fault("token", "redirect")
    assert "a page for signing in answers there, and not the portal's API" in probe()
    gateway.check_output("rm /run/accounts.json /run/wrong-secret")


def test_the_audit_log_is_the_operators_and_goes_on_after_it_was_rotated(portal, asks):
    gateway = scenario.host("gateway")
    asks.new_cluster("bob")

    def owner_and_mode(path: str) -> tuple[str, str, str]:
        file = gateway.file(path)
        return file.user, file.group, f"{file.mode:o}"

    folder = AUDIT_LOG.rpartition("/")[0]
    assert owner_and_mode(folder) == ("dask-gateway", "adm", "2750")
    assert owner_and_mode(AUDIT_LOG) == ("dask-gateway", "adm", "640")
    assert scenario.as_user("gateway", "alice", f"cat {AUDIT_LOG}").stdout == ""
    as_an_operator = "setpriv --reuid=nobody --regid=nogroup --groups=adm cat %s"
    assert json.loads(gateway.check_output(as_an_operator, AUDIT_LOG).splitlines()[-1])["user"] == "bob"

    before = len(audited("bob"))
    gateway.check_output("logrotate --force /etc/logrotate.d/accounts-check-dask-gateway")
    assert audited("bob") == []
    asks.new_cluster("bob")
    assert len(audited("bob")) == 1
    assert owner_and_mode(AUDIT_LOG) == ("dask-gateway", "adm", "640")
    rotated = gateway.check_output(f"ls -t {AUDIT_LOG}-*").split()[0]
    assert owner_and_mode(rotated) == ("dask-gateway", "adm", "640")
    kept = [json.loads(line)["user"] for line in gateway.check_output(f"cat {rotated}").splitlines()]
    assert kept.count("bob") == before


def test_metrics_are_served_on_the_loopback_and_nowhere_else(portal, asks):
    asks.new_cluster("bob")
    gateway = scenario.host("gateway")
    text = gateway.check_output(
        "python3 -c %s",
        "import urllib.request as u; print(u.urlopen('http://127.0.0.1:8002/metrics').read().decode())",
    )
    assert re.search(r'accounts_check_decisions_total{outcome="refused",source="\w+"} [1-9]', text)
    assert re.search(r'accounts_check_seconds_count{source="live"} [1-9]', text)
    assert "accounts_portal_errors_total" in text
    listens = gateway.check_output("ss -Hltn sport = 8002")
    assert [line.split()[3] for line in listens.splitlines()] == ["127.0.0.1:8002"]


def test_neither_credentials_nor_what_is_remembered_can_be_read_by_users():
    seen = scenario.as_user("gateway", "alice", f"cat {CONFIGURATION}/* /var/lib/accounts-check/dask-gateway/*")
    assert seen.stdout == ""
    assert seen.stderr.count("Permission denied") >= 2
