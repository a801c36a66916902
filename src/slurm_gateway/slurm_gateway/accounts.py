"""The access check: does this user hold the service now?

It knows nothing of the gateway. A check is a class with one question, `decide`, which may take its time and may not
know; the class AccountsCheck around it remembers answers for a short time, makes one question of many that come at
the same time, lets those go on for a while who were allowed when the answer was last known, and writes down what it
decided.
"""

import asyncio
import grp
import json
import os
import pwd
import re
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

from traitlets import Float, Instance, Integer, Unicode, default
from traitlets.config import Config, LoggingConfigurable

from . import metrics
from .audit import AuditLog
from .grants import judge
from .messages import one_line
from .portal import Portal, PortalAwayError, PortalError
from .record import Record


@dataclass(frozen=True)
class Decision:
    """The answer for one user: allowed or not, the rule that decided, and the sentence for a user who is not."""

    user: str
    allowed: bool
    rule: str
    message: str = ""
    known: bool = True  # False: nobody could be asked, which is neither yes nor no
    kind: str = ""  # of a no and of a don't know; see AccountsCheck.sentence
    source: str = "live"  # or cache, or grace: the last known answer, as there is none now
    grants: tuple = ()  # what the accounts portal listed, with what was said of each
    ends: float | None = None  # when a yes is over, if that is known; in seconds of the epoch

    @property
    def outcome(self):
        """The answer in a word."""
        return "allowed" if self.allowed else "refused" if self.known else "unknown"


class CheckError(Exception):
    """The check can't work; the text is for the operator who can mend it.

    `temporary` is whether it may work later as it is.
    """

    def __init__(self, message, temporary=False):
        super().__init__(message)
        self.temporary = temporary


class AccountsCheck(LoggingConfigurable):
    """The base of the checks."""

    category = Unicode("additional_services", help="The category of the service at the accounts portal.", config=True)
    service = Unicode("dask", help="The name of the service that a user must hold.", config=True)
    role = Unicode("USER", help="The role for the service that a user must hold.", config=True)
    apply_url = Unicode(help="The address at which a user applies for the service.", config=True)
    support = Unicode("the site's support", help="Whom a user asks for help.", config=True)
    user_pattern = Unicode(
        r"[A-Za-z0-9_][A-Za-z0-9_.@+-]{0,63}",
        help="A regular expression for the whole of a user name; about another one nobody is asked.",
        config=True,
    )
    users_group = Unicode(
        help="A group of the site's directory in which a user must be as well; empty for none.", config=True
    )
    time_zone = Unicode(help="The site's time zone, such as Europe/London; empty for that of this host.", config=True)

    allowed_max_age = Float(60, help="Seconds for which a yes is remembered.", config=True)
    refused_max_age = Float(10, help="Seconds for which a no is remembered.", config=True)
    timeout = Float(10, help="Seconds after which an unanswered question counts as 'don't know'.", config=True)
    grace_time = Float(
        3600,
        help="Seconds for which a user whose last known answer was a yes goes on when the answer can't be known.",
        config=True,
    )

    record_file = Unicode(help="The file in which answers are remembered across restarts; empty for none.", config=True)
    audit_file = Unicode(help="The audit log, of one JSON object a line; empty for none.", config=True)

    record = Instance(Record)
    audit = Instance(AuditLog)
    clock = staticmethod(time.time)

    @default("record")
    def _default_record(self):
        return Record(self.record_file, self.wanted, self.log)

    @default("audit")
    def _default_audit(self):
        return AuditLog(self.audit_file, self.log)

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self._questions = {}
        # A directory that does not answer blocks the call: not in the event loop, and not in its common pool.
        self._threads = ThreadPoolExecutor(4, thread_name_prefix="directory")
        self.zone = ZoneInfo(self.time_zone) if self.time_zone else _zone_of_this_host()

    @property
    def wanted(self):
        """What a user must hold, in words."""
        return f"{self.category}/{self.service} as {self.role}"

    async def close(self):
        """End what is kept open."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self.record.close()
        self.audit.close()

    async def check(self, user, action="check", fresh=False, audited=True):
        """The decision for this user; never an exception.

        `action` is what the user wants, for the audit log; with `fresh`, what is remembered does not count.
        """
        began = time.monotonic()
        decision = (None if fresh else await self._remembered(user)) or await self._asked(user)
        metrics.DECISIONS.labels(decision.outcome, decision.source).inc()
        metrics.DECISION_SECONDS.labels(decision.source).observe(time.monotonic() - began)
        if audited:
            self.audit.write(
                user=user,
                decision=decision.outcome,
                reason=decision.rule,
                source=decision.source,
                service=self.service,
                action=action,
            )
        return decision

    async def decide(self, user):
        """The decision for this user, asked now. To be written by each check."""
        raise NotImplementedError

    async def start(self):
        """Be ready for the first question, and tell the operators if it can't be answered; never an exception."""

    async def probe(self):
        """Prove that users can be asked about: sentences about what was found; CheckError says what to mend."""
        raise NotImplementedError

    # -- what can be answered ---------------------------------------------------------------------------------

    def refused(self, user, rule, kind="not held", **more):
        """A no."""
        return Decision(user, False, rule, self.sentence(kind, user), kind=kind, **more)

    def unknown(self, user, why, kind="away", **more):
        """Neither yes nor no. Of the kind `away`, the last known answer may stand in for it."""
        self.log.warning("It can't be found out whether %s holds the service: %s", one_line(user, 80), one_line(why))
        return Decision(user, False, one_line(why), self.sentence(kind, user), known=False, kind=kind, **more)

    def sentence(self, kind, user, last_allowed=0):
        """What a user reads who is not allowed."""
        user = one_line(user, 80)
        apply = f"Apply at {self.apply_url} ; it" if self.apply_url else "It"
        apply += " can take a few minutes to reach this service."
        if kind == "held before":
            seen = datetime.fromtimestamp(last_allowed, self.zone).date()
            return (
                f"{user} no longer holds the service '{self.service}': it was last seen on {seen}, and has expired or "
                f"was revoked since. {apply}"
            )
        if kind == "not a user":
            return f"'{user}' is not a user name of this site."
        if kind == "not in the group":
            return (
                f"{user} holds the service '{self.service}', but is not in the site's users group "
                f"'{self.users_group}', for whose members alone it runs anything. It can take a while to get there; "
                f"if that lasts, ask {self.support}."
            )
        if kind == "away":
            return (
                "The accounts service can't be reached, try again in a few minutes. (Until then it can't be found out "
                f"whether {user} holds the service '{self.service}'.)"
            )
        if kind == "broken":
            return (
                f"The accounts service gives this service no answer, so it can't be found out whether {user} holds the "
                f"service '{self.service}'. It is for the operators to mend; try again later, or ask {self.support}."
            )
        return f"{user} does not hold the service '{self.service}'. {apply}"

    # -- how an answer comes about ----------------------------------------------------------------------------

    async def _remembered(self, user):
        memory = await self.record.get(user)
        if not memory.asked_at - 1 <= self.clock() < memory.until:  # a clock that was set back makes nothing younger
            return None
        known = {"source": "cache", "grants": memory.grants}
        if memory.allowed:
            return Decision(user, True, memory.rule, ends=memory.ends, **known)
        message = self.sentence(memory.kind, user, memory.last_allowed)
        return Decision(user, False, memory.rule, message, kind=memory.kind, **known)

    async def _asked(self, user):
        question = self._questions.get(user)
        if question is None:
            question = self._questions[user] = asyncio.ensure_future(self._ask(user))
            question.add_done_callback(lambda _: self._questions.pop(user, None))
        return await asyncio.shield(question)  # one caller who goes away does not end it for the others

    async def _ask(self, user):
        if not re.fullmatch(self.user_pattern, user):
            return self.refused(user, "not the form of a user name", kind="not a user")
        try:
            async with asyncio.timeout(self.timeout):
                decision = await self.decide(user)
                if decision.allowed and self.users_group:
                    decision = await self._in_directory(self._and_in_users_group, decision)
        except TimeoutError:
            decision = self.unknown(user, f"no answer in {self.timeout:g} s")
        except Exception as exc:
            self.log.warning("The access check of %s failed", user, exc_info=True)
            decision = self.unknown(user, f"{type(exc).__name__}: {exc}", kind="broken")
        return await (self._learnt(decision) if decision.known else self._without_answer(decision))

    async def _learnt(self, decision):
        now = self.clock()
        values = {"allowed": decision.allowed, "rule": decision.rule, "grants": decision.grants, "asked_at": now}
        if decision.allowed:
            until = min(now + self.allowed_max_age, decision.ends or now + self.allowed_max_age)
            values.update(kind="", until=until, last_allowed=now, ends=decision.ends)
        else:
            before = (await self.record.get(decision.user)).last_allowed
            if before and decision.kind == "not held":
                message = self.sentence("held before", decision.user, before)
                decision = replace(decision, kind="held before", message=message)
            values.update(kind=decision.kind, until=now + self.refused_max_age)
        await self.record.put(decision.user, **values)
        return decision

    async def _without_answer(self, decision):
        """The last known answer stands in, if it was a yes, not long ago, and has not come to its own end since."""
        if decision.kind != "away":
            return decision
        memory, now = await self.record.get(decision.user), self.clock()
        if (
            not memory.allowed
            or not memory.last_allowed - 60 <= now <= memory.last_allowed + self.grace_time
            or (memory.ends is not None and now >= memory.ends)
        ):
            return decision
        rule = f"{memory.rule}; known {now - memory.last_allowed:.0f} s ago, and now: {decision.rule}"
        return Decision(decision.user, True, rule, source="grace", grants=memory.grants, ends=memory.ends)

    # -- the site's directory ---------------------------------------------------------------------------------

    async def _in_directory(self, look_up, argument):
        return await asyncio.get_running_loop().run_in_executor(self._threads, look_up, argument)

    def _and_in_users_group(self, decision):
        try:
            group = grp.getgrnam(self.users_group).gr_gid
        except KeyError:
            return self.unknown(decision.user, f"the group '{self.users_group}' is not known on this host")
        try:
            entry = pwd.getpwnam(decision.user)
        except KeyError:
            entry = None
        if entry and entry.pw_name == decision.user and group in os.getgrouplist(decision.user, entry.pw_gid):
            return decision
        rule = f"{decision.rule}, but not in the group '{self.users_group}'"
        return self.refused(decision.user, rule, kind="not in the group", grants=decision.grants)


class GroupCheck(AccountsCheck):
    """Who is in a group of the site's directory holds the service."""

    group = Unicode("dask", help="The group of the directory whose members hold the service.", config=True)
    minimum_uid = Integer(1000, help="The smallest user id of a person; smaller ones are the system's.", config=True)

    async def decide(self, user):
        return await self._in_directory(self._look_up, user)

    async def probe(self):
        try:
            group = await self._in_directory(grp.getgrnam, self.group)
        except KeyError:
            raise CheckError(f"The group '{self.group}' is not known on this host. Is its name right?") from None
        return [f"The group '{self.group}' is known on this host (gid {group.gr_gid})."]

    def _look_up(self, user):
        try:
            gid = grp.getgrnam(self.group).gr_gid
        except KeyError:
            return self.unknown(user, f"the group '{self.group}' is not known on this host")
        try:
            entry = pwd.getpwnam(user)
        except KeyError:
            # To somebody who asks, a no like any other; but it may be the directory that is away, see revocations.py
            return self.refused(user, "unknown user", kind="unknown user")
        if entry.pw_name != user or entry.pw_uid < self.minimum_uid:
            return self.refused(user, "not a user of the site")
        if gid not in os.getgrouplist(user, entry.pw_gid):
            return self.refused(user, f"not a member of the group '{self.group}'")
        return Decision(user, True, f"member of the group '{self.group}'")


class NoCheck(AccountsCheck):
    """Everybody holds the service."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.log.warning(
            "NO ACCESS CHECK IS CONFIGURED: everybody with an account%s may use this service",
            f" in the group '{self.users_group}'" if self.users_group else "",
        )

    async def decide(self, user):
        return Decision(user, True, "no check is configured")

    async def probe(self):
        return ["NO ACCESS CHECK IS CONFIGURED: everybody with an account may use this service."]


class NotConfigured(AccountsCheck):
    """Nobody is let in, as nobody said who may be; clusters that run can still be listed and stopped."""

    async def decide(self, user):
        return self.unknown(user, "the access check is not configured", kind="broken")

    async def probe(self):
        raise CheckError("The access check is not configured.")


class PortalCheck(AccountsCheck):
    """Who is granted the service at the site's accounts portal holds it."""

    clock_tolerance = Float(30, help="Seconds by which the portal's clock may be ahead of this host's.", config=True)
    portal = Instance(Portal)

    @default("portal")
    def _default_portal(self):
        return Portal(parent=self, log=self.log)

    async def close(self):
        await super().close()
        await self.portal.close()

    async def decide(self, user):
        try:
            listed = await self.portal.grants(user, self.timeout - 0.2)
        except PortalError as exc:
            return self.unknown(user, str(exc), kind="away" if isinstance(exc, PortalAwayError) else "broken")
        verdict = self.judge(listed)
        grants = tuple(asdict(grant) for grant in verdict.grants)
        if verdict.held is None:
            return self.unknown(user, verdict.rule, kind="broken", grants=grants)
        if not verdict.held:
            return self.refused(user, verdict.rule, grants=grants)
        return Decision(user, True, verdict.rule, grants=grants, ends=verdict.ends)

    async def start(self):
        try:
            await self.portal.token(self.timeout)
        except PortalError as exc:
            self.log.error("The accounts portal can't be asked: %s", exc)
        else:
            self.log.info("The accounts portal %s gives this service a token", self.portal.url)

    async def probe(self):
        try:
            return await self._probe()
        except PortalError as exc:
            hint = HINTS.get(re.sub(r"(?<=status_)40.", "4", exc.kind), "")
            temporary = isinstance(exc, PortalAwayError) and not hint
            raise CheckError(f"The accounts portal can't be asked: {exc}. {hint}".strip(), temporary) from None

    async def _probe(self):
        portal, nobody = self.portal, f"nobody-{os.urandom(6).hex()}"
        await portal.token(self.timeout)
        found = [f"The client '{portal.client_id}' gets a token with the scope {portal.scope}."]
        if await portal.grants(nobody, self.timeout) != []:
            raise CheckError(
                f"{portal.url} does not answer [] about {nobody}, whom it can't know: is it a portal at all?"
            )
        found.append("It may ask for the grants of any user.")
        query = {"category": self.category, "service": self.service, "role": self.role}
        status, _ = await portal.filtered(nobody, self.timeout, **query)
        if status == 400:
            found.append(f"Nobody has ever been granted {self.wanted}. If that is a surprise, check the names.")
        else:
            found.append(f"{self.wanted} has been granted to somebody.")
        return found

    def judge(self, listed):
        """What the portal's answer comes to now."""
        return judge(
            listed,
            category=self.category,
            service=self.service,
            role=self.role,
            now=datetime.fromtimestamp(self.clock(), UTC),
            zone=self.zone,
            tolerance=timedelta(seconds=self.clock_tolerance),
        )


# What an operator does about an error of this kind, by the name that the role's variable has.
HINTS = {
    "credentials": "Check accounts_check_client_id and vault_accounts_check_client_secret.",
    "scope": "Check accounts_check_scope, and ask the portal's operators to allow it to this client.",
    "certificate": "Check site_ca_certificates, or accounts_check_ca_file if the portal has an authority of its own.",
    "authorities": "Check accounts_check_ca_file.",
    "redirect": "Check accounts_check_portal_url: a page for signing in answers there, and not the portal's API.",
    "rubbish": "Check accounts_check_portal_url: it is not the portal's API that answers there.",
    "name": "Check accounts_check_portal_url, and this host's name service.",
    "status_4": "Check accounts_check_portal_url: there is no portal's API.",
    "token": "Ask the portal's operators.",
}

CHECKS = {"portal": PortalCheck, "group": GroupCheck, "none": NoCheck}


def from_file(path, **kwargs):
    """The check that a JSON file describes.

    The file has `backend`, one of portal, group and none, and an object of settings for each class, such as
    `"AccountsCheck": {"service": "dask"}`.

    Raises
    ------
    OSError, ValueError, KeyError
        When it can't be read, or says something else.
    """
    settings = json.loads(Path(path).read_text())
    return CHECKS[settings.pop("backend")](config=Config(settings), **kwargs)


def _zone_of_this_host():
    try:
        with Path("/etc/localtime").open("rb") as file:
            return ZoneInfo.from_file(file)
    except OSError:
        return UTC
