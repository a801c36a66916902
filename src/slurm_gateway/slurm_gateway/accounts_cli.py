"""`gateway-admin accounts`: the access check, for operators."""

import asyncio
import json
import logging
import sys
import time
from pathlib import Path

from .accounts import CheckError, from_file
from .audit import AuditLog
from .messages import one_line
from .record import Record

CONFIG = "/etc/accounts-check/dask-gateway/accounts.json"
CODES = {"allowed": 0, "refused": 1, "unknown": 2}


def add_commands(commands):
    """Add the commands to those of a parser."""
    accounts = commands.add_parser("accounts", help="who holds the service").add_subparsers(
        required=True, metavar="command"
    )
    check = accounts.add_parser(
        "check",
        help="whether a user holds the service, and why",
        description="Say whether a user holds the service, and why. Exit code 0: allowed, 1: refused, 2: don't know.",
    )
    check.add_argument("user")
    check.add_argument("--live", action="store_true", help="ask now, whatever the service remembers")
    check.set_defaults(run=lambda options: asyncio.run(_check(options)))
    ask = accounts.add_parser(
        "ask",
        help="for other services of this host: a check whose answer is remembered and audited",
        description="The check for another service of this host: the answer in JSON, remembered and in the audit log.",
    )
    ask.add_argument("user")
    ask.add_argument("--action", default="check", help="what the user wants, for the audit log")
    ask.set_defaults(run=lambda options: asyncio.run(_ask(options)), verbose=False)
    probe = accounts.add_parser(
        "probe",
        help="whether the check can work: credentials, scope, address, authorities",
        description="Prove that the check can work. Exit code 0: it can, 1: something is to be mended, 2: not now.",
    )
    probe.set_defaults(run=lambda options: asyncio.run(_probe(options)))
    for command in (check, probe, ask):
        command.add_argument("--config", default=CONFIG, help="the check's configuration (%(default)s)")
    for command in (check, probe):
        command.add_argument("--json", action="store_true", help="print one JSON object")
        command.add_argument("--verbose", action="store_true", help="show what the service would log")


async def _ask(options):
    check = _opened(options)
    decision = await check.check(options.user, options.action)
    await check.close()
    print(json.dumps({"decision": decision.outcome, "message": decision.message}))
    return CODES[decision.outcome]


async def _check(options):
    check = without_a_trace(_opened(options))
    began = time.monotonic()
    decision = await check.check(options.user, fresh=options.live)
    seconds = time.monotonic() - began
    await check.close()
    if options.json:
        answer = {
            "user": decision.user,
            "decision": decision.outcome,
            "rule": decision.rule,
            "source": decision.source,
            "seconds": round(seconds, 3),
            "message": decision.message,
            "grants": list(decision.grants),
        }
        print(json.dumps(answer))
        return CODES[decision.outcome]
    print(f"{one_line(decision.user, 80)}: {decision.outcome}")
    print(f"  rule    {decision.rule}")
    print(f"  source  {decision.source}, in {seconds:.3f} s")
    if decision.message:
        print(f"  reads   {decision.message}")
    for number, grant in enumerate(decision.grants):
        name = f"{grant['category']}/{grant['service']} as {grant['role']}"
        line = f"{grant['id']}: {name}, until the end of {grant['expires']}: {grant['said']}"
        print(f"  {'' if number else 'grants':8}{one_line(line)}")
    return CODES[decision.outcome]


async def _probe(options):
    check = without_a_trace(_opened(options))
    try:
        sentences, code = await check.probe(), 0
    except CheckError as exc:
        sentences, code = [str(exc)], 2 if exc.temporary else 1
    await check.close()
    if options.json:
        print(json.dumps({"works": code == 0, "sentences": sentences}))
    else:
        print("\n".join(sentences), file=sys.stderr if code else sys.stdout)
    return code


def _opened(options):
    """The check as the service has it."""
    try:
        return from_file(options.config, log=quiet_log(options.verbose))
    except (OSError, ValueError, KeyError) as exc:
        print(f"The check's configuration can't be read ({exc}). Are you root?", file=sys.stderr)
        sys.exit(2)


def quiet_log(verbose=False):
    """A log for a command's errors alone, or for all that the service would log."""
    log = logging.getLogger("gateway-admin")
    log.addHandler(logging.StreamHandler())
    log.propagate = False
    log.setLevel("INFO" if verbose else "CRITICAL")
    return log


def without_a_trace(check):
    """The check, so that it writes neither its record nor its audit log."""
    known = check.record_file if Path(check.record_file).exists() else ""
    check.record = Record(known, check.wanted, check.log, writable=False)
    check.audit = AuditLog("", check.log)
    return check
