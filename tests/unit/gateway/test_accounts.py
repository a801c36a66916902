"""The access check: yes, no, and don't know."""

import asyncio
import grp
import os
import pwd
import threading
import time
from types import SimpleNamespace

import pytest

from slurm_gateway.accounts import AccountsCheck, Decision, GroupCheck


@pytest.fixture
def directory(monkeypatch):
    """A directory with alice in the group, bob out of it, and a system user that somebody put into it."""
    users = {"alice": (26001, [27000, 27001]), "bob": (26002, [27000]), "daemon": (1, [1, 27001])}

    def getpwnam(name):
        if name.lower() not in users:
            raise KeyError(name)
        return SimpleNamespace(pw_name=name.lower(), pw_uid=users[name.lower()][0], pw_gid=users[name.lower()][1][0])

    monkeypatch.setattr(pwd, "getpwnam", getpwnam)
    monkeypatch.setattr(grp, "getgrnam", {"dask": SimpleNamespace(gr_gid=27001)}.__getitem__)
    monkeypatch.setattr(os, "getgrouplist", lambda name, gid: users[name][1])


def decide(user, **settings):
    return asyncio.run(GroupCheck(apply_url="https://accounts.test/dask/", **settings).check(user))


def test_a_member_of_the_group_holds_the_service(directory):
    assert decide("alice").allowed


@pytest.mark.parametrize("user", ["../alice", "alice/../alice", "alice\n", "", "a" * 300, "al ice", "ålice", "-u"])
def test_what_is_no_user_name_is_asked_nobody_about(user):
    decision = decide(user)
    assert not decision.allowed
    assert decision.known
    assert "is not a user name of this site" in decision.message


@pytest.mark.parametrize("user", ["bob", "nobody-at-all", "daemon", "Alice"])
def test_anybody_else_is_told_where_to_apply(directory, user):
    decision = decide(user)
    assert not decision.allowed
    assert decision.known
    assert decision.message == (
        f"{user} does not hold the service 'dask'. Apply at https://accounts.test/dask/ ; it can take a few minutes to "
        "reach this service."
    )


def test_a_group_that_the_host_does_not_know_is_neither_yes_nor_no(directory):
    decision = decide("alice", group="typo")
    assert not decision.allowed
    assert not decision.known
    assert "Apply" not in decision.message


def test_a_directory_that_does_not_answer_is_neither_yes_nor_no_and_blocks_nobody(directory, monkeypatch):
    away = threading.Event()
    monkeypatch.setattr(pwd, "getpwnam", lambda name: away.wait(5))

    async def ask():
        check = GroupCheck(timeout=0.3)
        began = time.monotonic()
        question = asyncio.ensure_future(check.check("alice"))
        ticks = 0
        while not question.done():
            await asyncio.sleep(0.01)
            ticks += 1
        away.set()
        return await question, ticks, time.monotonic() - began

    decision, ticks, seconds = asyncio.run(ask())
    assert not decision.allowed
    assert not decision.known
    assert ticks > 10
    assert seconds < 2


class Counting(AccountsCheck):
    """A check that counts its questions."""

    count = 0
    allowed = True

    async def decide(self, user):
        self.count += 1
        await asyncio.sleep(0.01)
        return Decision(user, True, "yes") if self.allowed else self.refused(user, "no")


def test_many_questions_at_the_same_time_are_one_and_its_answer_is_remembered_shortly():
    async def ask():
        check = Counting(allowed_max_age=0.2)
        await asyncio.gather(*(check.check("alice") for _ in range(200)))
        await check.check("alice")
        first = check.count
        await asyncio.sleep(0.25)
        check.allowed = False
        return first, (await check.check("alice")).allowed, check.count

    assert asyncio.run(ask()) == (1, False, 2)


def test_a_caller_who_goes_away_does_not_end_the_question_for_the_others():
    async def ask():
        check = Counting()
        first = asyncio.ensure_future(check.check("alice"))
        second = asyncio.ensure_future(check.check("alice"))
        await asyncio.sleep(0)
        first.cancel()
        return (await second).allowed

    assert asyncio.run(ask())


def test_a_check_that_breaks_refuses():
    class Broken(AccountsCheck):
        async def decide(self, user):
            raise RuntimeError("bug")

    decision = asyncio.run(Broken().check("alice"))
    assert not decision.allowed
    assert not decision.known
