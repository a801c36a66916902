"""`gateway-admin accounts`, as operators and the role use it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from stand_in import CLIENT, SCOPE

SOURCES = Path(__file__).resolve().parents[3] / "src/slurm_gateway"


@pytest.fixture
def admin(portal, tmp_path):
    """``admin("check", "alice", portal={…})``: what the command prints, and its exit code."""

    def run(*arguments, settings=None, audited=False, **changes):
        secret = tmp_path / "client-secret"
        if not secret.exists():
            secret.write_text(CLIENT["secret"])
        path = tmp_path / "accounts.json"
        connection = {
            "url": portal.url,
            "ca_file": portal.ca,
            "client_id": CLIENT["id"],
            "client_secret_file": str(secret),
            "scope": SCOPE,
        }
        check = {
            "apply_url": "https://accounts.test/dask/",
            "timeout": 1.5,
            "record_file": str(tmp_path / "record.sqlite"),
            "audit_file": str(tmp_path / "audit.log") if audited else "",
        }
        content = settings or {"backend": "portal", "AccountsCheck": check, "Portal": connection | changes}
        path.write_text(json.dumps(content))
        return subprocess.run(
            [sys.executable, "-m", "slurm_gateway.cli", "accounts", arguments[0], "--config", path, *arguments[1:]],
            env=os.environ | {"PYTHONPATH": str(SOURCES)},
            capture_output=True,
            text=True,
            timeout=60,
        )

    return run


def test_check_prints_the_grants_the_decision_the_rule_and_the_source(portal, admin):
    portal.control.add_service("default", "dask")
    portal.control.grant("alice", category="default", expires="2030-01-31")
    done = admin("check", "alice")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert lines[0] == "alice: allowed"
    assert "counts until the end of" in lines[1]
    assert lines[2].strip().startswith("source  live, in 0.")
    assert lines[3].endswith(": counts")
    assert lines[4].endswith("default/dask as USER, until the end of 2030-01-31: another category")


@pytest.mark.parametrize(
    ("user", "fault", "code", "decision"),
    [("alice", None, 0, "allowed"), ("bob", None, 1, "refused"), ("alice", "close", 2, "unknown")],
)
def test_the_exit_code_and_the_json_tell_the_decision(portal, admin, user, fault, code, decision):
    if fault:
        portal.control.fault("grants", fault)
    done = admin("check", user, "--json")
    answer = json.loads(done.stdout)
    assert (done.returncode, answer["decision"], answer["source"]) == (code, decision, "live")
    assert set(answer) == {"user", "decision", "rule", "source", "seconds", "message", "grants"}


def test_a_name_that_looks_like_an_option_is_a_name(admin):
    done = admin("check", "--json", "--", "--live")
    assert (done.returncode, json.loads(done.stdout)["user"]) == (1, "--live")


def test_check_leaves_no_trace(admin, tmp_path):
    admin("check", "alice")
    assert not (tmp_path / "record.sqlite").exists()


def test_what_another_service_asks_is_remembered_and_audited(portal, admin, tmp_path):
    answer = json.loads(admin("ask", "alice", "--action", "sign in", audited=True).stdout)
    assert answer == {"decision": "allowed", "message": ""}
    portal.control.revoke("alice")
    assert admin("ask", "alice", audited=True).returncode == 0, "it is remembered for a minute"
    done = admin("ask", "bob", audited=True)
    assert done.returncode == 1
    assert json.loads(done.stdout)["message"].startswith("bob does not hold the service 'dask'.")
    entries = [json.loads(line) for line in (tmp_path / "audit.log").read_text().splitlines()]
    assert [(e["user"], e["source"], e["action"]) for e in entries] == [
        ("alice", "live", "sign in"),
        ("alice", "cache", "check"),
        ("bob", "live", "check"),
    ]


@pytest.mark.parametrize("arguments", [["check"], ["check", "alice", "--unknown"], ["guess"]])
def test_a_mistake_of_use_is_no_refusal(admin, arguments):
    assert admin(*arguments).returncode == 2


def test_a_configuration_that_is_not_there_is_no_refusal(admin, tmp_path):
    done = admin("check", "alice", "--config", str(tmp_path / "none.json"))
    assert done.returncode == 2
    assert "can't be read" in done.stderr


def test_probe_proves_credentials_and_contract(admin):
    done = admin("probe")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        f"The client 'dask-gateway' gets a token with the scope {SCOPE}.",
        "It may ask for the grants of any user.",
        "additional_services/dask as USER has been granted to somebody.",
    ]


def test_probe_says_that_nobody_holds_the_service_yet(portal, admin):
    portal.control.forget("alice")
    assert "Nobody has ever been granted additional_services/dask as USER" in admin("probe").stdout


def test_probe_names_a_wrong_secret_without_showing_it(admin, tmp_path):
    (tmp_path / "client-secret").write_text("not-the-secret")
    done = admin("probe")
    assert done.returncode == 1
    assert "knows no client dask-gateway with the secret of" in done.stderr
    assert "Check accounts_check_client_id and vault_accounts_check_client_secret." in done.stderr
    assert "not-the-secret" not in done.stderr


WRONG = {
    "scope": ({"scope": "jasmin.services.userservices.all:write"}, "Check accounts_check_scope"),
    "authority": ({"ca_file": "/etc/ssl/certs/ca-certificates.crt"}, "Check site_ca_certificates"),
    "authority's file": ({"ca_file": "/nowhere"}, "Check accounts_check_ca_file."),
    "name": ({"url": "https://accounts.invalid"}, "Check accounts_check_portal_url, and this host's name service."),
}


@pytest.mark.parametrize(("changes", "sentence"), WRONG.values(), ids=WRONG)
def test_probe_names_what_is_wrong_and_what_to_do(admin, changes, sentence):
    done = admin("probe", **changes)
    assert done.returncode == 1, done.stdout + done.stderr
    assert sentence in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_probe_names_another_address_of_the_portal(portal, admin):
    assert "there is no portal's API" in admin("probe", url=f"{portal.url}/services").stderr


@pytest.mark.parametrize(
    ("kind", "sentence"), [("redirect", "a page for signing in"), ("html", "not the portal's API")]
)
def test_probe_names_an_address_at_which_people_sign_in(portal, admin, kind, sentence):
    portal.control.fault("token", kind)
    done = admin("probe")
    assert (done.returncode, sentence in done.stderr) == (1, True), done.stderr


def test_probe_names_a_token_that_is_refused(portal, admin):
    portal.control.fault("token", "refused_token")
    assert "refuses the token that it has just issued" in admin("probe").stderr


@pytest.mark.parametrize("fault", [{"kind": "close"}, {"kind": "status", "code": 503}, {"kind": "slow", "seconds": 60}])
def test_probe_says_that_the_portal_is_away_with_another_code(portal, admin, fault):
    portal.control.fault("grants", **fault)
    assert admin("probe").returncode == 2


def test_probe_of_a_group(admin):
    assert admin("probe", settings={"backend": "group", "GroupCheck": {"group": "root"}}).returncode == 0
    done = admin("probe", settings={"backend": "group", "GroupCheck": {"group": "no-such-group"}})
    assert (done.returncode, done.stderr) == (
        1,
        "The group 'no-such-group' is not known on this host. Is its name right?\n",
    )


def test_probe_of_no_check_is_loud(admin):
    assert "NO ACCESS CHECK" in admin("probe", settings={"backend": "none"}).stdout
