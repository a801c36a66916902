"""The access check: does this user hold the service now?

It knows nothing of the gateway. A check is a class with one question, `decide`, which may take its time and may not
know; the class AccountsCheck around it caches its answers for a short time and makes one question of many that come
at the same time.
"""

import asyncio
import grp
import os
import pwd
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from traitlets import Float, Integer, Unicode
from traitlets.config import LoggingConfigurable


@dataclass(frozen=True)
class Decision:
    """The answer for one user: allowed or not, the rule that decided, and the sentence for a user who is not."""

    user: str
    allowed: bool
    rule: str
    message: str = ""
    known: bool = True  # False: nobody could be asked, which is neither yes nor no


class AccountsCheck(LoggingConfigurable):
    """The base of the checks: caching, and one question at a time for each user."""

    service = Unicode("dask", help="The name of the service that a user must hold.", config=True)
    apply_url = Unicode(help="The address at which a user applies for the service.", config=True)
    allowed_max_age = Float(30, help="Seconds for which a yes is remembered.", config=True)
    refused_max_age = Float(10, help="Seconds for which a no is remembered.", config=True)
    timeout = Float(10, help="Seconds after which an unanswered question counts as 'don't know'.", config=True)

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self._answers = {}
        self._questions = {}

    async def check(self, user):
        """The decision for this user; never an exception."""
        now = time.monotonic()
        decision, until = self._answers.get(user, (None, 0))
        if now < until:
            return decision
        question = self._questions.get(user)
        if question is None:
            question = self._questions[user] = asyncio.ensure_future(self._ask(user))
            question.add_done_callback(lambda _: self._questions.pop(user, None))
        return await asyncio.shield(question)  # one caller who goes away does not end it for the others

    async def _ask(self, user):
        try:
            async with asyncio.timeout(self.timeout):
                decision = await self.decide(user)
        except TimeoutError:
            decision = self.unknown(user, f"no answer in {self.timeout:g} s")
        except Exception as exc:
            self.log.warning("The access check of %s failed", user, exc_info=True)
            decision = self.unknown(user, f"{type(exc).__name__}: {exc}")
        if decision.known:
            age = self.allowed_max_age if decision.allowed else self.refused_max_age
            self._answers = {u: (d, t) for u, (d, t) in self._answers.items() if t > time.monotonic()}
            self._answers[user] = (decision, time.monotonic() + age)
        return decision

    async def decide(self, user):
        """The decision for this user, asked now. To be written by each check."""
        raise NotImplementedError

    def refused(self, user, rule):
        apply = f" Apply at {self.apply_url} ; it can" if self.apply_url else " It can"
        return Decision(
            user,
            False,
            rule,
            f"{user} does not hold the service '{self.service}'.{apply} take a few minutes to reach this service.",
        )

    def unknown(self, user, why):
        self.log.warning("It can't be found out whether %s holds the service: %s", user, why)
        return Decision(
            user, False, "unavailable", "Your access can't be checked at the moment. Try again in a few minutes.", False
        )


class GroupCheck(AccountsCheck):
    """Who is in a group of the site's directory holds the service."""

    group = Unicode("dask", help="The group of the directory whose members hold the service.", config=True)
    minimum_uid = Integer(1000, help="The smallest user id of a person; smaller ones are the system's.", config=True)

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        # A directory that does not answer blocks the call: not in the event loop, and not in its common pool.
        self._threads = ThreadPoolExecutor(4, thread_name_prefix="directory")

    async def decide(self, user):
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._look_up, user)

    def _look_up(self, user):
        try:
            gid = grp.getgrnam(self.group).gr_gid
        except KeyError:
            return self.unknown(user, f"the group '{self.group}' is not known on this host")
        try:
            entry = pwd.getpwnam(user)
        except KeyError:
            return self.refused(user, "unknown user")
        if entry.pw_name != user or entry.pw_uid < self.minimum_uid:
            return self.refused(user, "not a user of the site")
        if gid not in os.getgrouplist(user, entry.pw_gid):
            return self.refused(user, f"not a member of the group '{self.group}'")
        return Decision(user, True, f"member of the group '{self.group}'")
