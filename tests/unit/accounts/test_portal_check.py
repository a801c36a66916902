"""The check against the accounts portal: what it answers, how often it asks, and what it says when it can't know."""

import asyncio
import json
import logging
import sqlite3
import time
from datetime import date, datetime, timedelta

import pytest
from stand_in import CLIENT, SCOPE

from slurm_gateway.accounts import CHECKS, from_file

TODAY = date.today()
APPLY = "https://accounts.test/services/additional_services/dask/"


class Clock:
    """A clock that tests set forward."""

    ahead = 0.0

    def __call__(self):
        return time.time() + self.ahead


@pytest.fixture
def settings(portal, tmp_path):
    """What stands in the file that the check is made from."""
    secret = tmp_path / "client-secret"
    secret.write_text(CLIENT["secret"] + "\n")
    return {
        "backend": "portal",
        "AccountsCheck": {
            "apply_url": APPLY,
            "time_zone": "Europe/London",
            "record_file": str(tmp_path / "record.sqlite"),
            "audit_file": str(tmp_path / "audit.log"),
        },
        "PortalCheck": {},
        "Portal": {
            "url": portal.url,
            "ca_file": portal.ca,
            "client_id": CLIENT["id"],
            "client_secret_file": str(secret),
            "scope": SCOPE,
        },
    }


@pytest.fixture
def run(settings, tmp_path):
    """``run(test, AccountsCheck={…})``: the coroutine function `test`, with a check."""

    def run(test, **changes):
        for section, values in changes.items():
            settings[section] |= values
        path = tmp_path / "accounts.json"
        path.write_text(json.dumps(settings))

        async def body():
            check = from_file(path)
            check.clock = clock = Clock()
            try:
                return await test(check, clock)
            finally:
                await check.close()

        return asyncio.run(asyncio.wait_for(body(), 60))

    return run


@pytest.fixture
def decide(run):
    """``decide("alice")``: the decision for her, by a check that remembers nothing but its record."""

    def decide(user, **changes):
        async def ask(check, _):
            return await check.check(user)

        return run(ask, **changes)

    return decide


def audited(tmp_path):
    return [json.loads(line) for line in (tmp_path / "audit.log").read_text().splitlines()]


# -- yes and no -------------------------------------------------------------------------------------------------------


def test_who_is_granted_the_service_is_allowed(decide):
    decision = decide("alice")
    assert decision.allowed
    assert decision.rule.endswith(f"counts until the end of {TODAY + timedelta(days=365)}")
    assert decision.source == "live"


def test_who_never_was_is_told_where_to_apply(decide):
    decision = decide("bob")
    assert (decision.outcome, decision.source) == ("refused", "live")
    assert decision.message == (
        f"bob does not hold the service 'dask'. Apply at {APPLY} ; it can take a few minutes to reach this service."
    )


def test_a_service_that_nobody_holds_yet_is_a_no_and_no_error(portal, decide):
    portal.control.forget("alice")
    portal.control.forget("mary")
    assert decide("alice").outcome == "refused"


def test_the_manager_of_the_service_does_not_hold_it(decide):
    decision = decide("mary")
    assert decision.outcome == "refused"
    assert "another role" in decision.rule


def test_the_same_name_in_another_category_is_another_service(portal, decide):
    portal.control.add_service("default", "dask")
    portal.control.grant("bob", category="default")
    assert "another category" in decide("bob").rule


def test_it_is_held_to_the_end_of_the_day_on_which_it_expires(portal, decide):
    portal.control.expire("alice", TODAY)
    decision = decide("alice")
    assert decision.allowed
    midnight = datetime.fromtimestamp(decision.ends)
    assert midnight.date() == TODAY + timedelta(days=1)


@pytest.mark.parametrize("how", ["expire", "revoke"])
def test_who_held_it_before_is_told_when_it_was_last_seen(portal, run, how):
    async def ask(check, clock):
        assert (await check.check("alice")).allowed
        if how == "expire":
            portal.control.expire("alice", TODAY - timedelta(days=1))
        else:
            portal.control.revoke("alice")
        clock.ahead = 61
        return await check.check("alice")

    decision = run(ask)
    assert decision.outcome == "refused"
    assert decision.message == (
        f"alice no longer holds the service 'dask': it was last seen on {TODAY}, and has expired or was revoked since. "
        f"Apply at {APPLY} ; it can take a few minutes to reach this service."
    )


def test_two_unexpired_grants_of_which_one_is_superseded_count(portal, decide):
    portal.control.grant("alice", expires=TODAY + timedelta(days=10), supersede=True)
    assert decide("alice").allowed


def test_a_grant_of_tomorrow_does_not_count_today(portal, decide):
    portal.control.grant("bob", granted_at=(datetime.now().astimezone() + timedelta(days=1)).isoformat())
    assert "not yet in force" in decide("bob").rule


@pytest.mark.parametrize("user", ["Alice", "ALICE", "alice.", "alice+", "alice@lotus.test"])
def test_names_that_are_nearly_hers_are_others(decide, user):
    assert decide(user).outcome == "refused"


@pytest.mark.parametrize(
    "user",
    ["alice/../alice", "../alice", "bob/../alice", "alice%2f", "alice?role=USER", "alice\x00", "a" * 300, "", "."],
)
def test_about_what_is_no_user_name_the_portal_is_not_asked(portal, decide, user):
    portal.control.count_from_zero()
    decision = decide(user)
    assert decision.outcome == "refused"
    assert "is not a user name of this site" in decision.message
    assert portal.control.requests()["grants"] == 0


# -- how often it asks ------------------------------------------------------------------------------------------------


def test_a_yes_is_remembered_for_60_seconds_and_a_no_for_10(portal, run):
    async def ask(check, clock):
        sources = []
        for seconds in (0, 9, 11, 59, 61):
            clock.ahead = seconds
            sources.append([(await check.check(user)).source for user in ("alice", "bob")])
        return sources

    assert run(ask) == [
        ["live", "live"],
        ["cache", "cache"],
        ["cache", "live"],
        ["cache", "live"],
        ["live", "cache"],
    ]


def test_a_yes_is_not_remembered_beyond_its_end(portal, run):
    portal.control.expire("alice", TODAY)

    async def ask(check, clock):
        midnight = datetime.combine(TODAY + timedelta(days=1), datetime.min.time(), check.zone).timestamp()
        clock.ahead = midnight - time.time() - 10
        before = await check.check("alice")
        clock.ahead += 15
        return before, await check.check("alice")

    before, after = run(ask)
    assert before.allowed
    assert not after.allowed


def test_a_no_becomes_a_yes_within_seconds_of_the_grant(portal, run):
    async def ask(check, clock):
        assert not (await check.check("bob")).allowed
        portal.control.grant("bob")
        clock.ahead = 11
        return await check.check("bob")

    assert run(ask).allowed


def test_what_is_remembered_outlives_a_restart(portal, decide):
    assert decide("alice").source == "live"
    portal.control.count_from_zero()
    decision = decide("alice")
    assert (decision.allowed, decision.source) == (True, "cache")
    assert decision.grants[0]["said"] == "counts"
    assert portal.control.requests()["grants"] == 0


def test_another_services_answers_are_not_taken_for_this_ones(portal, decide):
    assert decide("alice").allowed
    decision = decide("alice", AccountsCheck={"service": "transfer"})
    assert (decision.outcome, decision.kind) == ("refused", "not held")


def test_many_questions_about_one_user_are_one_request(portal, run):
    portal.control.count_from_zero()

    async def ask(check, _):
        return await asyncio.gather(*(check.check("alice") for _ in range(100)))

    assert all(decision.allowed for decision in run(ask))
    assert portal.control.requests() == {"token": 1, "grants": 1, "users": {"alice": 1}}


def test_200_users_at_once_cost_200_requests_and_one_token(portal, run):
    async def ask(check, _):
        await check.check("alice")
        portal.control.count_from_zero()
        return await asyncio.gather(*(check.check(f"user{number}") for number in range(200)))

    decisions = run(ask, AccountsCheck={"timeout": 30})
    assert {decision.outcome for decision in decisions} == {"refused"}
    counted = portal.control.requests()
    assert (counted["token"], counted["grants"]) == (0, 200)


def test_a_token_is_had_at_the_start_and_a_portal_that_is_away_then_ends_nothing(portal, run, caplog):
    async def ask(check, _):
        await check.start()
        counted = portal.control.requests()["token"]
        portal.control.fault("token", "close")
        check.portal._token = None
        await check.start()
        portal.control.behave()
        return counted, (await check.check("alice")).allowed

    portal.control.count_from_zero()
    assert run(ask, AccountsCheck={"timeout": 2}) == (1, True)
    assert "The accounts portal can't be asked" in caplog.text


# -- tokens -----------------------------------------------------------------------------------------------------------


def test_a_token_that_was_revoked_is_replaced_once(portal, run):
    async def ask(check, _):
        await check.check("alice")
        portal.control.forget_tokens()
        portal.control.count_from_zero()
        return await asyncio.gather(*(check.check(f"user{number}") for number in range(20)))

    assert {decision.outcome for decision in run(ask)} == {"refused"}
    assert portal.control.requests()["token"] == 1


def test_a_new_token_is_used_before_the_old_one_expires(portal, run):
    portal.control.client(token_lifetime=2)

    async def ask(check, _):
        decisions = []
        for _ in range(5):
            decisions.append(await check.check("alice", fresh=True))
            await asyncio.sleep(0.95)
        return decisions

    portal.control.count_from_zero()
    assert all(decision.allowed for decision in run(ask))
    counted = portal.control.requests()
    assert counted["grants"] == 5, "no question had to be asked twice"
    assert counted["token"] >= 2


def test_the_old_token_is_used_to_its_end_when_there_is_no_new_one(portal, run):
    portal.control.client(token_lifetime=100)

    async def ask(check, _):
        await check.check("alice")
        check.portal._token_renewal = 0
        portal.control.fault("token", "status", code=503)
        return await check.check("bob")

    assert run(ask).outcome == "refused"


def test_a_changed_secret_is_read_without_a_restart(portal, run, tmp_path):
    async def ask(check, _):
        await check.check("alice")
        portal.control.client(id=CLIENT["id"], secret="another", scopes=[SCOPE])
        (tmp_path / "client-secret").write_text("another")
        return await check.check("bob")

    assert run(ask).outcome == "refused"


def test_a_token_that_is_refused_as_soon_as_it_is_issued_is_not_asked_for_again_and_again(portal, decide):
    portal.control.fault("token", "refused_token")
    portal.control.count_from_zero()
    decision = decide("alice")
    assert (decision.outcome, decision.kind) == ("unknown", "broken")
    assert portal.control.requests()["token"] == 2


# -- don't know -------------------------------------------------------------------------------------------------------

OUTAGES = {
    "500": {"kind": "status", "code": 500},
    "503": {"kind": "status", "code": 503},
    "429": {"kind": "status", "code": 429},
    "a page of HTML": {"kind": "html"},
    "a redirect to sign in": {"kind": "redirect"},
    "rubbish": {"kind": "rubbish"},
    "100 MB": {"kind": "huge"},
    "half an answer": {"kind": "cut"},
    "a closed connection": {"kind": "close"},
    "a byte a second": {"kind": "drip"},
    "nothing": {"kind": "slow", "seconds": 600},
}
away = pytest.mark.parametrize("fault", OUTAGES.values(), ids=OUTAGES)


@away
@pytest.mark.parametrize("at", ["grants", "token"])
def test_a_portal_that_is_away_is_no_reason_to_apply(portal, decide, at, fault):
    portal.control.fault(at, **fault)
    began = time.monotonic()
    decision = decide("alice", AccountsCheck={"timeout": 1})
    assert time.monotonic() - began < 4
    assert (decision.outcome, decision.kind) == ("unknown", "away")
    assert decision.message.startswith("The accounts service can't be reached, try again")
    assert "pply" not in decision.message


def test_nobody_listens(portal, decide):
    decision = decide("alice", AccountsCheck={"timeout": 1}, Portal={"url": "https://localhost:1"})
    assert (decision.outcome, decision.kind) == ("unknown", "away")


def test_a_name_that_is_not_known(portal, decide):
    decision = decide("alice", AccountsCheck={"timeout": 1}, Portal={"url": "https://accounts.invalid"})
    assert (decision.outcome, decision.kind) == ("unknown", "away")


@away
def test_a_short_outage_is_not_noticed(portal, decide, fault):
    if fault["kind"] in ("slow", "drip"):
        pytest.skip("these take all of the time")
    portal.control.fault("grants", **fault, times=2)
    assert decide("alice").allowed


def test_it_is_not_asked_before_the_time_that_it_asks_for(portal, decide):
    portal.control.fault("grants", "status", code=429, retry_after=1, times=1)
    portal.control.count_from_zero()
    began = time.monotonic()
    assert decide("alice").allowed
    assert time.monotonic() - began >= 1
    assert portal.control.requests()["grants"] == 2


def test_a_slow_portal_is_waited_for(portal, decide):
    portal.control.fault("grants", "slow", seconds=2)
    assert decide("alice").allowed


def test_in_10_seconds_it_is_asked_a_few_times_and_not_more(portal, decide):
    portal.control.fault("grants", "status", code=503)
    portal.control.count_from_zero()
    began = time.monotonic()
    decide("alice")
    assert 5 < time.monotonic() - began < 12
    assert 4 <= portal.control.requests()["grants"] <= 10


@away
def test_who_was_allowed_within_the_grace_time_goes_on(portal, run, fault):
    async def ask(check, clock):
        await check.check("alice")
        portal.control.fault("grants", **fault)
        clock.ahead = 600
        return await check.check("alice")

    decision = run(ask, AccountsCheck={"timeout": 1})
    assert (decision.outcome, decision.source) == ("allowed", "grace")


def test_grace_outlives_a_restart(portal, decide):
    assert decide("alice", AccountsCheck={"allowed_max_age": 0}).allowed
    portal.control.fault("token", "close")
    decision = decide("alice", AccountsCheck={"timeout": 1})
    assert (decision.outcome, decision.source) == ("allowed", "grace")


def test_grace_ends(portal, run):
    async def ask(check, clock):
        await check.check("alice")
        portal.control.fault("grants", "close")
        clock.ahead = 3601
        return await check.check("alice")

    assert run(ask, AccountsCheck={"timeout": 2}).outcome == "unknown"


def test_grace_is_not_renewed_by_itself(portal, run):
    async def ask(check, clock):
        await check.check("alice")
        portal.control.fault("grants", "close")
        outcomes = []
        for seconds in (1800, 3500, 3700):
            clock.ahead = seconds
            outcomes.append((await check.check("alice")).outcome)
        return outcomes

    assert run(ask, AccountsCheck={"timeout": 2}) == ["allowed", "allowed", "unknown"]


def test_there_is_no_grace_after_a_no(portal, run):
    async def ask(check, clock):
        await check.check("alice")
        portal.control.revoke("alice")
        await check.check("alice", fresh=True)
        portal.control.fault("grants", "close")
        clock.ahead = 60
        return await check.check("alice")

    assert run(ask, AccountsCheck={"timeout": 2}).outcome == "unknown"


def test_there_is_no_grace_beyond_the_end_of_what_was_granted(portal, run):
    portal.control.expire("alice", TODAY)

    async def ask(check, clock):
        midnight = datetime.combine(TODAY + timedelta(days=1), datetime.min.time(), check.zone).timestamp()
        clock.ahead = midnight - time.time() - 30
        assert (await check.check("alice")).allowed
        portal.control.fault("grants", "close")
        clock.ahead += 60
        return await check.check("alice")

    assert run(ask, AccountsCheck={"timeout": 3}).outcome == "unknown"


def test_a_clock_that_is_set_back_prolongs_neither_memory_nor_grace(portal, run):
    async def ask(check, clock):
        clock.ahead = 86400
        await check.check("alice")
        clock.ahead = 0
        portal.control.fault("grants", "close")
        return await check.check("alice")

    assert run(ask, AccountsCheck={"timeout": 2}).outcome == "unknown"


# -- it fails closed on everything else -------------------------------------------------------------------------------

REFUSALS = {
    "400": {"kind": "status", "code": 400},
    "403": {"kind": "status", "code": 403},
    "404": {"kind": "status", "code": 404},
    "an object": {"kind": "object"},
    "text": {"kind": "body", "body": "yes"},
    "true": {"kind": "body", "body": True},
    "numbers": {"kind": "body", "body": [1, 2]},
    "grants without fields": {"kind": "body", "body": [{"service": "dask"}]},
}


@pytest.mark.parametrize("fault", REFUSALS.values(), ids=REFUSALS)
def test_an_answer_that_is_not_understood_lets_nobody_in_not_even_by_grace(portal, run, fault):
    async def ask(check, clock):
        await check.check("alice")
        portal.control.fault("grants", **fault)
        clock.ahead = 61
        return await check.check("alice")

    decision = run(ask, AccountsCheck={"timeout": 1})
    assert (decision.outcome, decision.kind) == ("unknown", "broken")
    assert "Apply" not in decision.message
    assert "for the operators to mend" in decision.message


def test_a_wrong_secret_lets_nobody_in_and_does_not_knock_for_each_user(portal, run, tmp_path):
    (tmp_path / "client-secret").write_text("wrong")
    portal.control.count_from_zero()

    async def ask(check, _):
        return await asyncio.gather(*(check.check(f"user{number}") for number in range(20)))

    assert {(decision.outcome, decision.kind) for decision in run(ask)} == {("unknown", "broken")}
    assert portal.control.requests()["token"] == 1


def test_a_portal_of_another_authority_is_told_nothing(portal, decide):
    portal.control.count_from_zero()
    decision = decide("alice", AccountsCheck={"timeout": 1}, Portal={"ca_file": ""})
    assert decision.outcome == "unknown"
    assert "certificate" in decision.rule
    assert portal.control.requests() == {"token": 0, "grants": 0, "users": {}}


# -- the users group --------------------------------------------------------------------------------------------------


def test_who_holds_it_but_is_not_in_the_users_group_reads_another_sentence(decide, monkeypatch):
    monkeypatch.setattr("grp.getgrnam", lambda name: type("Group", (), {"gr_gid": 27001}))
    monkeypatch.setattr("pwd.getpwnam", lambda name: type("User", (), {"pw_name": name, "pw_gid": 27000}))
    monkeypatch.setattr("os.getgrouplist", lambda name, gid: [27000])
    decision = decide("alice", AccountsCheck={"users_group": "dask", "support": "support@lotus.test"})
    assert (decision.outcome, decision.kind) == ("refused", "not in the group")
    assert "site's users group 'dask'" in decision.message
    assert "ask support@lotus.test" in decision.message
    assert "Apply" not in decision.message


def test_who_does_not_hold_it_is_told_so_whatever_the_group(decide):
    assert decide("bob", AccountsCheck={"users_group": "dask"}).kind == "not held"


# -- what is written down ---------------------------------------------------------------------------------------------


def test_every_decision_is_in_the_audit_log(portal, run, tmp_path):
    async def ask(check, clock):
        await check.check("alice", action="create")
        await check.check("bob", action="create")
        await check.check("alice", action="scale")
        portal.control.fault("grants", "close")
        clock.ahead = 100
        await check.check("alice", action="adapt")
        await check.check("carol")
        await check.check('eve", "decision": "allowed"}\n{')

    run(ask, AccountsCheck={"timeout": 2})
    entries = audited(tmp_path)
    assert [(e["user"], e["decision"], e["source"], e["action"]) for e in entries] == [
        ("alice", "allowed", "live", "create"),
        ("bob", "refused", "live", "create"),
        ("alice", "allowed", "cache", "scale"),
        ("alice", "allowed", "grace", "adapt"),
        ("carol", "unknown", "live", "check"),
        ('eve", "decision": "allowed"}\n{', "refused", "live", "check"),
    ]
    for entry in entries:
        assert datetime.fromisoformat(entry["time"]) <= datetime.now().astimezone()
        assert entry["reason"]


def test_the_audit_log_goes_on_in_a_new_file_when_it_was_rotated(portal, run, tmp_path):
    async def ask(check, _):
        await check.check("alice")
        (tmp_path / "audit.log").rename(tmp_path / "audit.log.1")
        await check.check("alice")

    run(ask)
    assert len(audited(tmp_path)) == 1


def test_a_log_or_a_record_that_cannot_be_written_changes_no_decision(portal, decide, tmp_path):
    (tmp_path / "file").write_text("")
    unwritable = str(tmp_path / "file/of-a-folder")
    assert decide("alice", AccountsCheck={"audit_file": unwritable, "record_file": unwritable}).allowed


def test_a_record_that_is_damaged_changes_no_decision(portal, decide, tmp_path):
    (tmp_path / "record.sqlite").write_bytes(b"no database" * 100)
    assert decide("alice").allowed
    assert decide("bob").outcome == "refused"


def test_the_record_is_its_owners_alone(decide, tmp_path):
    decide("alice")
    assert (tmp_path / "record.sqlite").stat().st_mode & 0o777 == 0o600
    with sqlite3.connect(tmp_path / "record.sqlite") as database:
        assert database.execute("select user from answers").fetchall() == [("alice",)]


def test_credentials_are_in_no_log_and_no_message(portal, run, caplog, tmp_path, capfd):
    caplog.set_level(logging.DEBUG)
    tokens = []

    async def ask(check, clock):
        await check.check("alice")
        tokens.append(check.portal._token)
        texts = [repr(check.portal), repr(vars(check)), str(check.portal.config)]
        for at in ("grants", "token"):
            for fault in [*OUTAGES.values(), *REFUSALS.values(), {"kind": "refused_token"}]:
                if fault["kind"] in ("slow", "drip") or (at == "grants" and fault["kind"] == "refused_token"):
                    continue
                portal.control.fault(at, **fault)
                if at == "token":
                    portal.control.forget_tokens()
                texts.append(str(await check.check("alice", fresh=True)))
                tokens.append(check.portal._token)
                portal.control.behave()
        return texts

    texts = run(ask, AccountsCheck={"timeout": 2})
    written = caplog.text + "".join(texts) + (tmp_path / "audit.log").read_text() + "".join(capfd.readouterr())
    for secret in (CLIENT["secret"], *tokens):
        assert secret not in written


def test_no_check_says_so_loudly_at_each_start(caplog):
    async def ask():
        check = CHECKS["none"]()
        return await check.check("anybody")

    assert asyncio.run(ask()).allowed
    assert "NO ACCESS CHECK IS CONFIGURED" in caplog.text
