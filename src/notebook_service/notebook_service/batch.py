"""The Hub's spawner for notebook servers that are jobs of the batch cluster: batchspawner's for SLURM, made safe."""

from __future__ import annotations

import asyncio
import hmac
import json
import math
import re
import sys
from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path
from urllib.parse import urlsplit

from batchspawner.api import BatchSpawnerAPIHandler
from batchspawner.batchspawner import JobStatus, SlurmSpawner
from jupyterhub.apihandlers import APIHandler, default_handlers
from tornado.web import HTTPError, authenticated
from traitlets import List, Unicode

from notebook_service import job_launcher
from notebook_service.account import AccountError, known_account
from notebook_service.certificates import RequestError, ServerAuthority
from notebook_service.server import NO_SPACE, NotebookServer

# batchspawner's own handler sets whatever attribute of the spawner the holder of a server's token names, the commands
# that the Hub runs among them: no Hub here has it.
default_handlers[:] = [handler for handler in default_handlers if handler[1] is not BatchSpawnerAPIHandler]

ANSWER_TIME = 200  # seconds for the launcher, which has 60 for each of two commands
QUERY_TIME = 30
MEBIBYTE = 1024**2
# Before they run, and when nothing of them runs any more; a job in any other state, known or not, is one that runs
WAITING = {"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT"}
OVER = {
    "BOOT_FAIL", "CANCELLED", "COMPLETED", "COMPLETING", "DEADLINE", "FAILED", "LAUNCH_FAILED", "NODE_FAIL",
    "OUT_OF_MEMORY", "PREEMPTED", "RECONFIG_FAIL", "REVOKED", "TIMEOUT",
}  # fmt: skip
# What sbatch and scancel write when slurmctld does not answer: worth another try later
AWAY = re.compile(
    r"unable to contact slurm controller|connection refused|socket timed out|zero bytes were transmitted"
    r"|communication connection failure|slurm backup controller in standby|munge|gave no answer"
    r"|temporarily unable to accept job",
    re.IGNORECASE,
)
REASONS = {"Resources": "for free nodes", "Priority": "for the jobs before it"}


class BatchNotebookSpawner(NotebookServer, SlurmSpawner):
    """A user's notebook server as a job that SLURM runs as that user.

    Beyond batchspawner:

    - Nobody needs sudo: systemd runs the launcher as the user, which submits and cancels.
    - The server's token, and all that it is told, reaches the job through a file that is its user's alone and that it
      removes; it is in no environment that SLURM keeps, no script, no list of processes and no log.
    - A server speaks TLS, with a key that it makes itself; a start's own server, and no other, is asked for its port.
    - SLURM's own words reach the user: why a job waits, was refused, or ended before its server was there.
    - A batch cluster that gives no answer, or whose answer is not understood, ends nobody's server.
    """

    squeue = Unicode("/usr/bin/squeue", help="The path of squeue.").tag(config=True)
    sbatch = Unicode("/usr/bin/sbatch", help="The path of sbatch.").tag(config=True)
    scancel = Unicode("/usr/bin/scancel", help="The path of scancel.").tag(config=True)
    sbatch_options = List(Unicode(), help="Further options of sbatch for every server.").tag(config=True)
    python = Unicode(help="The Python on the nodes, of an environment with notebook_server.").tag(config=True)
    folder = Unicode(".notebook-server", help="The folder in users' homes for a server's settings and log.").tag(
        config=True
    )
    public_hosts = List(Unicode(), help="The names by which browsers know the Hub.").tag(config=True)
    node_domain = Unicode(
        help="What makes a node's name in SLURM one under which this host finds it; an empty string if it is one.",
    ).tag(config=True)
    authority = Unicode(help="The folder of the authority for servers' certificates.").tag(config=True)

    _report: asyncio.Future | None = None
    _listens = False  # whether the server of this job has been heard to listen
    _profile: dict = {}  # replaced, and never changed

    @property
    def job_name(self) -> str:
        """The same for each job of one server, and another for the servers of another Hub on the same batch cluster."""
        return f"notebook-server-{sha256(f'{self.public_hosts[:1]}/{self.name}'.encode()).hexdigest()[:8]}"

    def apply_profile(self, profile: dict) -> None:
        """Take the limits of a profile, its time and its partition; the next start may be of another."""
        super().apply_profile(profile)
        self._profile = profile

    def resources(self) -> list[str]:
        """Write what the job asks for as options of sbatch."""
        asked = {
            "partition": self._profile.get("partition") or self.req_partition,
            "time": self._profile.get("time") or self.req_runtime,
            "mem": f"{math.ceil(self.mem_limit / MEBIBYTE)}M" if self.mem_limit else "",
            "cpus-per-task": str(math.ceil(self.cpu_limit)) if self.cpu_limit else "",
        }
        return [f"--{name}={value}" for name, value in asked.items() if value] + self.sbatch_options

    # -- what batchspawner calls for a job ----------------------------------------------------------------------

    async def submit_batch_script(self) -> str:
        """Submit the job as the user."""
        answer = await self._launch(
            action="submit",
            options=self.resources(),
            python=self.python,
            settings={"environment": self.get_env(), "arguments": self.get_args()},
        )
        self.job_id = answer["job"]
        return self.job_id

    async def query_job_status(self) -> JobStatus:
        """Ask SLURM; what is no clear answer does not mean that the job has ended."""
        if not self.job_id:
            self.job_status = ""
            return JobStatus.NOTFOUND
        command = [self.squeue, "--noheader", "--states=all", f"--jobs={self.job_id}", "--format=%T %B %r"]
        try:
            async with asyncio.timeout(QUERY_TIME):
                code, output, errors = await _run(command)
        except (OSError, TimeoutError) as error:
            code, output, errors = 1, "", str(error) or "no answer"
        if code == 0 and output.strip():
            self.job_status = output.strip()
            return self._status()
        if "invalid job id" in errors.lower():
            self.job_status = ""
            return JobStatus.NOTFOUND
        self.log.warning("squeue says nothing of job %s: %s", self.job_id, errors.strip()[:500])
        return JobStatus.UNKNOWN

    async def cancel_batch_job(self) -> None:
        """Cancel the job as the user."""
        await self._launch(action="cancel", job=self.job_id)

    # -- what lives through a restart of the Hub ------------------------------------------------------------------

    def get_state(self) -> dict:
        """Remember whether the job's server was heard of."""
        return super().get_state() | {"listens": self._listens}

    def load_state(self, state: dict) -> None:
        """Recall it."""
        super().load_state(state)
        self._listens = state.get("listens", True)

    async def poll(self) -> int | None:
        """Tell whether the server lives; None if it does.

        A job for which a Hub waited that was restarted meanwhile does not: nobody waits for what its server reports,
        so JupyterHub would look for it at an address that it never had. It is cancelled.
        """
        if not self.job_id or self._listens or self._report is not None:
            return await super().poll()
        try:
            await self.cancel_batch_job()
        except Exception as error:
            # If it starts after all, it ends when it reports
            self.log.error("Job %s, for which no start waits, can't be cancelled: %s", self.job_id, error)
        self.clear_state()
        return 1

    # -- the start ----------------------------------------------------------------------------------------------

    async def start(self) -> str:
        """Submit the job, and wait until its server listens."""
        await self.admitted()
        self.ip, self.port = self.traits()["ip"].default_value, 0
        self._report, self._listens = asyncio.get_running_loop().create_future(), False
        try:
            # Before JupyterHub's own limit, which knows no reason
            async with asyncio.timeout(max(self.start_timeout - 5, 1)):
                await self.submit_batch_script()
                self.log.info("%s's notebook server is job %s", self.user.name, self.job_id)
                # A Hub that is restarted meanwhile finds the job
                self.orm_spawner.state = self.get_state()
                self.db.commit()
                while not self._report.done():
                    await self._see_that_it_lives()
                    await asyncio.wait([self._report], timeout=self.startup_poll_interval)
                self.ip, self.port = self.node(), self._report.result()
                while not await listens(self.ip, self.port):
                    await self._see_that_it_lives()
                    await asyncio.sleep(self.startup_poll_interval)
                self._listens = True
        except TimeoutError:
            raise self.refusal(
                f"Your notebook server, job {self.job_id}, was not there after {self.start_timeout // 60} minutes, and "
                f"was given up: {self.how_far()[1].rstrip('.')}. Try again later, or with a smaller server.",
                "timeout",
            ) from None
        finally:
            self._report = None
        return f"https://{self.ip}:{self.port}"

    async def _see_that_it_lives(self) -> None:
        if await self.query_job_status() != JobStatus.NOTFOUND:
            return
        state = self.state()
        try:
            words = (await self._launch(action="log"))["line"]
        except Exception as error:
            self.log.warning("The log of job %s can't be read: %s", self.job_id, error)
            words = ""
        if NO_SPACE.search(words):
            raise self.no_space(words)
        raise self.refusal(
            f"Your notebook server, job {self.job_id}, ended while it was starting"
            + (f" ({state})." if state else ".")
            + (f" Its last message: {words.rstrip('.')}." if words else " It left no message."),
            "ended",
        )

    async def progress(self) -> AsyncIterator[dict]:
        """Tell the page that follows a start how far it is."""
        told = ""
        while self._spawn_pending:
            percent, sentence = self.how_far()
            if sentence != told:
                told = sentence
                yield {"progress": percent, "message": sentence}
            await asyncio.sleep(self.startup_poll_interval)

    def how_far(self) -> tuple[int, str]:
        """Say how far a start is."""
        if not self.job_id:
            return 10, "Your server is being submitted to the batch cluster."
        if not self.job_status or self.state() in WAITING:
            reason = self.job_status.split(" ", 2)[2:]
            why = REASONS.get(reason[0], f"({reason[0]})") if reason and reason[0] != "None" else ""
            return 30, f"Your server is job {self.job_id} and waits in the batch cluster's queue {why}".strip() + "."
        return 60, f"Job {self.job_id} runs on {self.node()}; your server is starting there."

    # -- what its job says ----------------------------------------------------------------------------------------

    def awaits(self, token: str | None) -> bool:
        """Tell whether a start waits for the server that has this token."""
        return bool(
            token and self.api_token and self._report and not self._report.done()
            and hmac.compare_digest(token.encode(), self.api_token.encode())
        )  # fmt: skip

    async def reported(self, port: int, request: str) -> str:
        """Take the port of the server that has started, and sign its certificate.

        The node is the one that SLURM names, and not one that the server could name.
        """
        await self.query_job_status()
        node = self.node()
        if not node:
            raise RequestError("SLURM does not say on which node the job runs")
        # Empty unless each user's server has a host name of its own
        own = urlsplit(self.user.host).hostname
        hosts = [node, *self.public_hosts, *([own] if own else [])]
        certificate = ServerAuthority(self.authority).sign(request, list(dict.fromkeys(hosts)))
        if self._report is None or self._report.done():
            raise RequestError("this start is over")
        self._report.set_result(port)
        return certificate

    def state(self) -> str:
        """SLURM's word for the job's state; nothing if it is not known."""
        return self.job_status.split(" ")[0]

    def node(self) -> str:
        """The name under which the job's node is found; nothing before it has one."""
        words = self.job_status.split(" ")
        if len(words) < 2 or words[1] in ("", "n/a") or self.state() in WAITING:
            return ""
        return words[1] + (f".{self.node_domain.lstrip('.')}" if self.node_domain else "")

    def _status(self) -> JobStatus:
        if self.state() in OVER:
            return JobStatus.NOTFOUND
        return JobStatus.PENDING if self.state() in WAITING else JobStatus.RUNNING

    # -- the launcher ---------------------------------------------------------------------------------------------

    async def _launch(self, **request) -> dict:
        """Have the launcher do something as the user.

        Raises
        ------
        SpawnException
            When it can't be done; the text is for the user.
        """
        try:
            # By its number: systemd would take a name of digits for one
            account = await asyncio.to_thread(known_account, self.user.name, self.minimum_uid)
        except AccountError as error:
            raise self.refusal(str(error), "account") from error
        request |= {"sbatch": self.sbatch, "scancel": self.scancel, "name": self.job_name, "folder": self.folder}
        command = [
            "systemd-run", "--quiet", "--pipe", "--wait", "--collect", "--service-type=exec", f"--uid={account.pw_uid}",
            "--description=Job of a notebook server", "--property=NoNewPrivileges=yes",
            "--property=ProtectProc=invisible", "--property=PrivateTmp=yes", f"--property=RuntimeMaxSec={ANSWER_TIME}",
            "--", sys.executable, "-I", "-S", str(Path(job_launcher.__file__)),
        ]  # fmt: skip
        code, output, errors = await _run(command, json.dumps(request).encode())
        try:
            answer = json.loads(output)
        except ValueError:
            # The request, which holds the token, is in neither of the two
            self.log.error("The launcher ended with code %s: %s", code, errors.strip()[-1000:])
            sentence = "Your notebook server can't be submitted to the batch cluster now."
            raise self.refusal(sentence, "launcher") from None
        said = answer.get("error")
        if said is None:
            return answer
        self.log.error("%s of %s's notebook server: %s", request["action"], self.user.name, said)
        if NO_SPACE.search(said):
            raise self.no_space(said)
        words = said.rstrip(".")
        if AWAY.search(said):
            raise self.refusal(f"The batch cluster gives no answer at the moment ({words}). Try again soon.", "away")
        raise self.refusal(f"The batch cluster refuses the job of your notebook server: {words}.", "refused")


class ReportHandler(APIHandler):
    """Where a server that starts says its port and gets its certificate: the one that a start waits for, once."""

    @authenticated
    async def post(self) -> None:
        """Answer the server's wrapper, notebook_server.job."""
        token = self.get_auth_token()
        spawners = getattr(self.current_user, "spawners", {}).values()
        spawner = next((s for s in spawners if isinstance(s, BatchNotebookSpawner) and s.awaits(token)), None)
        if spawner is None:
            raise HTTPError(403, "No start of a notebook server waits for this one; it may have been stopped.")
        data = self.get_json_body()
        port, request = (data.get("port"), data.get("request")) if isinstance(data, dict) else (None, None)
        if type(port) is not int or not 1024 <= port <= 65535 or not isinstance(request, str):
            raise HTTPError(400, "A port from 1024 to 65535 and a request for a certificate are wanted.")
        try:
            certificate = await spawner.reported(port, request)
        except RequestError as error:
            raise HTTPError(400, f"No certificate: {error}.") from error
        self.set_status(201)
        self.finish(json.dumps({"certificate": certificate}))


# For JupyterHub.extra_handlers
HANDLERS = [(r"/api/notebook-server", ReportHandler)]


async def listens(host: str, port: int) -> bool:
    """Tell whether somebody takes connections there."""
    try:
        async with asyncio.timeout(5):
            _, writer = await asyncio.open_connection(host, port)
    except OSError:  # a TimeoutError is one
        return False
    writer.close()
    return True


async def _run(command: list[str], data: bytes | None = None) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        *command,
        env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"},
        stdin=asyncio.subprocess.DEVNULL if data is None else asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        output, errors = await process.communicate(data)
    except BaseException:
        if process.returncode is None:
            process.kill()
        raise
    return process.returncode, output.decode(errors="replace"), errors.decode(errors="replace")
