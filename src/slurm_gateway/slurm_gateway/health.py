"""Whether each part that a cluster needs does its work: one finding for each, with a sentence about it.

Some are asked by the running gateway, as the user that it is, and some from outside, also when it does not run.
"""

import asyncio
import grp
import os
import pwd
import shutil
import sqlite3
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import aiohttp

from . import maintenance as maintenances
from .accounts import CheckError
from .messages import one_line
from .slurm import SlurmError

FINE, WARNING, CRITICAL = 0, 1, 2
WORDS = {FINE: "ok", WARNING: "warning", CRITICAL: "critical"}
MIB = 2**20
# Of the disk with the gateway's database
DISK_WARNING, DISK_CRITICAL = 1024 * MIB, 100 * MIB


@dataclass(frozen=True)
class Finding:
    """What was found about one part."""

    part: str
    code: int
    said: str
    seconds: float = 0

    def to_dict(self):
        return {**asdict(self), "state": WORDS[self.code], "seconds": round(self.seconds, 3)}


async def examine(checks, seconds=20):
    """The findings of {part: a function whose awaited answer is (code, sentence)}, all asked at the same time."""

    async def one(part, check):
        began = time.monotonic()
        try:
            async with asyncio.timeout(seconds):
                code, said = await check()
        except TimeoutError:
            code, said = CRITICAL, f"no answer in {seconds} s"
        except Exception as exc:
            code, said = CRITICAL, f"{type(exc).__name__}: {exc}"
        return Finding(part, code, one_line(said, 500), time.monotonic() - began)

    return await asyncio.gather(*(one(part, check) for part, check in checks.items()))


# -- what can be asked from outside ---------------------------------------------------------------------------


async def answers(url, what):
    """Whether something at this address passes on that the gateway is fine."""
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session,
            session.get(url, allow_redirects=False) as response,
        ):
            if response.status == 200 and (await response.json(content_type=None)).get("status") == "pass":
                return FINE, f"{what} answers at {url}"
            return CRITICAL, f"{what} runs, but {url} answers with status {response.status}"
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError, AttributeError) as exc:
        return CRITICAL, f"{what} does not answer at {url}: {type(exc).__name__}: {exc}"


async def disk(folder):
    """Whether the gateway can go on writing its database."""
    try:
        free, files = shutil.disk_usage(folder).free, os.statvfs(folder)
    except OSError as exc:
        return CRITICAL, f"{folder} can't be looked at: {exc.strerror}"
    said = f"{free // MIB} MiB are free in {folder}"
    if files.f_files and files.f_favail < 100:
        return CRITICAL, f"only {files.f_favail} files can be made in {folder}"
    return (CRITICAL if free < DISK_CRITICAL else WARNING if free < DISK_WARNING else FINE), said


async def slurmctld(slurm):
    """Whether a controller of SLURM's answers."""
    try:
        hosts = await slurm.ping()
    except SlurmError as exc:
        return CRITICAL, str(exc)
    down = [host for host, up in hosts.items() if not up]
    if len(down) == len(hosts):
        return CRITICAL, f"slurmctld is down: {', '.join(down) or 'none is configured'}. Clusters and jobs go on"
    if down:
        return WARNING, f"a backup has taken over: slurmctld is down on {', '.join(down)}"
    return FINE, f"slurmctld is up on {', '.join(hosts)}"


async def slurmdbd(slurm, user):
    """Whether SLURM's accounting answers, and gives the gateway's user the right to see the jobs of others."""
    try:
        rights = await slurm.rights(user)
    except SlurmError as exc:
        if "accounting_storage" in str(exc) and "not running a supported" in str(exc):
            return FINE, "SLURM keeps no accounting here"
        return CRITICAL, str(exc)
    if rights not in ("Operator", "Administrator") and await slurm.hides_jobs():
        return CRITICAL, (
            f"SLURM hides users' jobs from {user} (PrivateData=jobs), who is no operator: "
            f"`sacctmgr add user {user} account=root adminlevel=operator`"
        )
    return FINE, f"slurmdbd answers; the rights of {user}: {rights or 'those of any user'}"


async def accounts(check):
    """Whether the access check works."""
    try:
        return FINE, " ".join(await check.probe())
    except CheckError as exc:
        return (WARNING if exc.temporary else CRITICAL), str(exc)


async def maintenance(path):
    """Whether users get new clusters, or are told that there are none for a time."""
    ongoing = maintenances.current(path)
    if ongoing is None:
        return FINE, "there is none; users get new clusters"
    late = "its announced end is over, `gateway-admin maintenance off` ends it. " if ongoing.late else ""
    return WARNING, f"{late}By {ongoing.by}: {ongoing.sentence}"


async def database_at_rest(path):
    """Whether the database of a gateway that does not run can be read."""

    def read():
        connection = sqlite3.connect(f"{Path(path).absolute().as_uri()}?mode=ro", uri=True, timeout=2)
        try:
            return connection.execute("select count(*) from clusters").fetchone()[0]
        finally:
            connection.close()

    try:
        return FINE, f"{path} can be read; it knows {await asyncio.to_thread(read)} clusters"
    except sqlite3.Error as exc:
        return CRITICAL, f"{path} can't be read: {exc}"


# -- what only the running gateway can ask --------------------------------------------------------------------


async def database(db):
    """Whether the database of the gateway can be written: a change is begun and taken back."""
    path = db.db.url.database if db.db.url.get_backend_name() == "sqlite" else None
    if path and not Path(path).exists():
        return CRITICAL, f"{path} is gone; the gateway goes on with what it remembers, and a restart loses that"

    def write():
        with db.db.connect() as connection:
            if path:
                connection.exec_driver_sql("BEGIN IMMEDIATE")
                version = connection.exec_driver_sql("PRAGMA user_version").scalar()
                connection.exec_driver_sql(f"PRAGMA user_version = {int(version)}")
            connection.exec_driver_sql("SELECT 1")
            connection.rollback()

    try:
        await asyncio.to_thread(write)
    except Exception as exc:
        return CRITICAL, f"{path or 'the database'} can't be written: {getattr(exc, 'orig', exc)}"
    return FINE, f"{path or 'the database'} can be written"


async def hub(authenticator):
    """Whether the Hub knows this service, without which it says of nobody who is asking."""
    known, sentence = await authenticator.introduced()
    return (FINE if known else CRITICAL), sentence


async def launcher(ask, usernames, group):
    """Whether sudo lets the gateway run the launcher as a user; the launcher is asked for nothing and says so.

    `ask` is SlurmGatewayBackend.do_as_user, `usernames` are users who have clusters, `group` whose members may.
    """
    user = await asyncio.to_thread(_a_member, usernames, group)
    if user is None:
        return WARNING, f"no member of the group '{group}' is known on this host"
    try:
        await ask(user, "nothing")
    except Exception as exc:
        source = getattr(exc, "source", "")
        if source == "request":
            return FINE, f"sudo runs the launcher as {user}"
        if source == "sudo":
            return CRITICAL, f"sudo does not run the launcher as {user}: {exc}"
        return CRITICAL, f"the launcher does not work as {user}: {exc}"
    return CRITICAL, f"the launcher does as {user} what it was not asked to"


def _a_member(usernames, group):
    try:
        entry = grp.getgrnam(group)
    except KeyError:
        return None
    for name in [*entry.gr_mem, *usernames]:
        try:
            user = pwd.getpwnam(name)
            if entry.gr_gid in os.getgrouplist(name, user.pw_gid):
                return name
        except KeyError:
            continue
    return None
