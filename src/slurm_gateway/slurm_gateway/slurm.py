"""What SLURM says about jobs and people: squeue, scontrol, sacct and sacctmgr, and how to read their answers."""

import asyncio
import re
import secrets
import time
from dataclasses import dataclass
from pathlib import PurePath

from traitlets import Dict, Float, Unicode
from traitlets.config import LoggingConfigurable

from . import metrics

# A job in one of these states is over. Every other state, known or not yet invented, is that of a living job.
FINAL_STATES = frozenset(
    {
        "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "LAUNCH_FAILED", "NODE_FAIL", "OUT_OF_MEMORY",
        "PREEMPTED", "RECONFIG_FAIL", "REVOKED", "TIMEOUT",
    }
)  # fmt: skip
COMMENT = "dask-gateway"


@dataclass(frozen=True)
class Job:
    """One job, or one task of a job array (`12_3`), as SLURM reports it."""

    id: str
    state: str
    reason: str = ""
    exit_code: str = ""
    user: str = ""
    comment: str = ""
    start: str = ""
    submitted: str = ""
    cpus: int = 0

    @property
    def over(self):
        return self.state in FINAL_STATES

    @property
    def pending(self):
        return self.state == "PENDING"

    @property
    def array(self):
        """The id of the submission: that of the whole array for one of its tasks."""
        return self.id.partition("_")[0]


class SlurmError(Exception):
    """SLURM gave no answer that could be used. It never means that a job is gone."""


class Slurm(LoggingConfigurable):
    """Questions to SLURM, asked with the gateway's own rights."""

    squeue = Unicode("/usr/bin/squeue", help="The path of squeue.", config=True)
    scontrol = Unicode("/usr/bin/scontrol", help="The path of scontrol.", config=True)
    sacct = Unicode("/usr/bin/sacct", help="The path of sacct.", config=True)
    sacctmgr = Unicode("/usr/bin/sacctmgr", help="The path of sacctmgr.", config=True)
    timeout = Float(30, help="Seconds to wait for an answer of SLURM.", config=True)
    environment = Dict(
        {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"},
        help="The environment of SLURM's commands, for a site whose slurm.conf is not at the usual place.",
        config=True,
    )

    async def _ask(self, *command):
        name, began = PurePath(command[0]).name, time.monotonic()
        try:
            return await self._answer(*command)
        except SlurmError:
            metrics.SLURM_ERRORS.labels(name).inc()
            raise
        finally:
            metrics.SLURM_SECONDS.labels(name).observe(time.monotonic() - began)

    async def _answer(self, *command):
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                env=self.environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
        except OSError as exc:
            raise SlurmError(f"{command[0]} can't be run: {exc}") from None
        try:
            async with asyncio.timeout(self.timeout):
                stdout, stderr = await process.communicate()
        except BaseException as exc:
            process._transport.close()  # kills it; waiting for it could take as long as its own children live
            if isinstance(exc, TimeoutError):
                raise SlurmError(f"{command[0]} gave no answer in {self.timeout:g} s") from None
            raise
        if process.returncode != 0:
            said = (stderr.strip() or stdout.strip()).decode("utf-8", "replace")
            raise SlurmError(f"{command[0]} ended with code {process.returncode}: {said}")
        return stdout.decode("utf-8", "replace")

    async def jobs(self, users=()):
        """Every job that SLURM still holds in memory, living or lately ended, by id; of some users or of all."""
        # A job's comment is whatever its user wrote, line breaks included: with a separator that could be foreseen, a
        # user could have lines about jobs of others in this answer.
        separator = secrets.token_hex(16)
        fields = separator.join(("", "%i", "%T", "%r", "%u", "%k", "%S", "%V", "%C", ""))
        command = [self.squeue, "--noheader", "--array", "--states=all", f"--format={fields}"]
        if users:
            command.append("--user=" + ",".join(sorted(users)))
        return parse_jobs(await self._ask(*command), separator)

    async def ending(self, job_id):
        """The job as SLURM remembers it, for its exit code and reason: from slurmctld, else from accounting.

        None if neither knows it, which says nothing about the job: it may be hidden from us.
        """
        try:
            job = parse_job(await self._ask(self.scontrol, "--oneliner", "show", "job", job_id), job_id)
            if job:
                return job
        except SlurmError as exc:
            if "invalid job id" not in str(exc).lower():
                self.log.info("scontrol: %s", exc)
        fields = "JobID,State,ExitCode,Reason,User"
        try:
            out = await self._ask(
                self.sacct, "--noheader", "--parsable2", "--allocations", "--duplicates", f"--format={fields}",
                f"--jobs={job_id}",
            )  # fmt: skip
        except SlurmError as exc:
            self.log.info("sacct: %s", exc)
            return None
        return parse_accounting(out, job_id)

    async def ping(self):
        """{host: whether its slurmctld is up}."""
        try:
            out = await self._ask(self.scontrol, "ping")
        except SlurmError as exc:
            out = str(exc)  # it says so by its code too when one of them is down
            if " is " not in out:
                raise
        return {host: state == "UP" for host, state in re.findall(r"at (\S+) is (UP|DOWN)", out)}

    async def rights(self, user):
        """What slurmdbd says of the rights of a user of SLURM's: None, Operator or Administrator; '' for unknown."""
        out = await self._ask(
            self.sacctmgr, "--noheader", "--parsable2", "--readonly", "show", "user", user, "format=AdminLevel"
        )
        return out.strip()

    async def hides_jobs(self):
        """Whether users' jobs are hidden from all but operators."""
        out = await self._ask(self.scontrol, "show", "config")
        return bool(re.search(r"^PrivateData\s*=.*\bjobs\b", out, re.MULTILINE))

    enforces_memory = False  # whether it holds jobs to their memory, see learn

    async def learn(self):
        """Find out how the batch cluster is set up."""
        config = parse_config(await self._ask(self.scontrol, "show", "config"))
        self.enforces_memory = (
            "cgroup" in config.get("TaskPlugin", "") and config.get("ConstrainRAMSpace", "").lower() == "yes"
        ) or "OverMemoryKill" in config.get("JobAcctGatherParams", "")

    async def associations(self, user):
        """What a user may submit to: [(account, partition or "", [QoS, …], default account)]."""
        out = await self._ask(
            self.sacctmgr, "--noheader", "--parsable2", "--readonly", "show", "user", user, "withassoc",
            "format=account,partition,qos,defaultaccount",
        )  # fmt: skip
        return parse_associations(out)


def parse_jobs(out, separator):
    """{id: job} of the answer of squeue in the format that `Slurm.jobs` asks for."""
    jobs = {}
    # What lies between two records is the end of a line, and what squeue may have said besides.
    for _, job_id, state, reason, user, comment, start, submitted, cpus in batched(out.split(separator), 9):
        if re.fullmatch(r"[0-9]+(_[0-9]+)?", job_id):
            jobs[job_id] = Job(
                id=job_id, state=state, reason=reason, user=user, comment=comment, start=start, submitted=submitted,
                cpus=int(cpus) if cpus.isdigit() else 0,
            )  # fmt: skip
    return jobs


def batched(items, size):
    """The whole groups of `size` items."""
    return zip(*[iter(items)] * size, strict=False)


def parse_config(out):
    """{name: value} of the answer of `scontrol show config`, with that of cgroup.conf, which it ends with."""
    return dict(re.findall(r"^(\w+) *= (.*?) *$", out, re.MULTILINE))


def parse_job(out, job_id):
    """The record of one job in the answer of `scontrol -o show job`."""
    for line in out.splitlines():
        values = dict(re.findall(r"(?:^| )([A-Za-z/:]+)=(\S*)", line))
        found = values.get("JobId", "")
        if "ArrayTaskId" in values and "_" in job_id:
            found = f"{values.get('ArrayJobId')}_{values['ArrayTaskId']}"
        if found == job_id and "JobState" in values:
            return Job(
                id=job_id,
                state=values["JobState"],
                reason=values.get("Reason", ""),
                exit_code=values.get("ExitCode", ""),
                user=values.get("UserId", "").partition("(")[0],
                start=values.get("StartTime", ""),
            )
    return None


def parse_accounting(out, job_id):
    """The last record of one job in the answer of sacct (a requeued job has several)."""
    job = None
    for line in out.splitlines():
        fields = line.split("|")
        if len(fields) == 5 and fields[0] == job_id:
            job = Job(id=job_id, state=fields[1].split(" ")[0], exit_code=fields[2], reason=fields[3], user=fields[4])
    return job


def parse_associations(out):
    """[(account, partition, [QoS, …], default account)] of the answer of sacctmgr."""
    associations = []
    for line in out.splitlines():
        fields = line.split("|")
        if len(fields) == 4 and fields[0]:
            associations.append((fields[0], fields[1], [q for q in fields[2].split(",") if q], fields[3]))
    return associations


def parse_comment(comment):
    """(instance, cluster, kind, batch) of a job that a gateway submitted, or None for anybody else's job."""
    match = re.fullmatch(rf"{COMMENT}:([^:]+):([0-9a-f]{{32}}):(scheduler|worker):([0-9a-f]{{16}}|-)", comment)
    return match.groups() if match else None
