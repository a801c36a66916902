"""The service from end to end, as a user: sign-in by token, a small cluster, one task, shutdown; each hop by its name.

Whatever happens on the way, and when it is told to end, it stops the cluster that it has made, and touches no other.
What even that does not end (a machine that loses its power) ends by the time limit of the canary's options.
"""

import asyncio
import contextlib
import json
import signal
import time
from pathlib import Path

import aiohttp

from .health import CRITICAL, FINE, WARNING, Finding
from .messages import one_line

TASK = Path(__file__).with_name("canary_task.py")
HOPS = ("hub", "sign-in", "cluster", "connection", "task", "shutdown")
# Seconds for the shutdown, beside the time that everything before may take
SHUTDOWN = 60
# One who has no rights and no files
NOBODY = {"user": "nobody", "group": "nogroup", "extra_groups": []}


class HopError(Exception):
    """A hop that failed, and how bad that is."""

    def __init__(self, said, code=CRITICAL):
        super().__init__(said)
        self.code = code


class Canary:
    """One flight.

    Parameters
    ----------
    hub_api, address : str
        The Hub's API, and the gateway's address as users know it.
    token : str
        The canary user's token at the Hub.
    options : dict
        The options of its cluster.
    python : str
        A Python with distributed and dask-gateway.
    user : str
        Whose token it is to be; empty for anybody's.
    waiting, jobs : callable
        Coroutine functions that answer what a cluster's jobs wait for (a sentence or ""), and which are left of it.
    as_user : dict
        As whom the program runs that computes: arguments of `asyncio.create_subprocess_exec`.
    """

    def __init__(self, hub_api, address, token, options, python, user="", waiting=None, jobs=None, as_user=None):
        self.hub_api, self.address = hub_api.rstrip("/"), address.rstrip("/")
        self.token, self.options, self.python, self.user = token, options, python, user
        self.waiting, self.jobs = waiting, jobs
        self.as_user = as_user or {}
        self.cluster = None
        self.findings = []
        self._hop = None
        self._began = 0.0

    async def fly(self, seconds):
        """The findings of all hops that were reached; everything but the shutdown within so many seconds."""
        flight = asyncio.current_task()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
                loop.add_signal_handler(number, flight.cancel)
        timeout = aiohttp.ClientTimeout(total=seconds)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            self.session = session
            try:
                async with asyncio.timeout(seconds):
                    await self._until_the_result()
            except TimeoutError:
                await self._too_late(seconds)
            except HopError as exc:
                self._found(exc.code, str(exc))
            except (aiohttp.ClientError, OSError, ValueError) as exc:
                self._found(CRITICAL, f"{type(exc).__name__}: {exc}")
            except asyncio.CancelledError:
                flight.uncancel()
                self._found(WARNING, "it was told to end")
            finally:
                if self.cluster:
                    await self._shut_down()
        return self.findings

    def _begin(self, hop):
        self._hop, self._began = hop, time.monotonic()

    def _found(self, code, said):
        said = one_line(str(said).replace(self.token, "…"), 500)
        self.findings.append(Finding(f"canary: {self._hop}", code, said, time.monotonic() - self._began))

    async def _until_the_result(self):
        for hop, way in (("hub", self._ask_hub), ("sign-in", self._ask_gateway), ("cluster", self._make_cluster)):
            self._begin(hop)
            self._found(FINE, await way())
        await self._compute()

    async def _too_late(self, seconds):
        code, said = CRITICAL, f"not done {seconds:g} s after the canary's start"
        if self._hop == "cluster" and self.cluster and self.waiting:
            # A batch cluster that is full is no fault of the service
            reason = await self.waiting(self.cluster)
            if reason:
                code, said = WARNING, f"{said}: its job waits in the batch cluster's queue ({reason})"
        self._found(code, said)

    # -- the hops ---------------------------------------------------------------------------------------------

    async def _ask_hub(self):
        headers = {"Authorization": f"token {self.token}"}
        async with self.session.get(f"{self.hub_api}/user", headers=headers, allow_redirects=False) as response:
            if response.status in (401, 403):
                raise HopError("the Hub does not know the canary's token: it is wrong or has expired; make a new one")
            if response.status != 200:
                raise HopError(f"the Hub answers with status {response.status}")
            name = (await response.json()).get("name")
        if self.user not in ("", name):
            raise HopError(f"the canary's token is not {self.user}'s but {name}'s")
        return f"the token is {name}'s"

    async def _ask(self, method, path, **kwargs):
        headers = {"Authorization": f"jupyterhub {self.token}"}
        url = f"{self.address}/api/v1/{path}"
        async with self.session.request(method, url, headers=headers, allow_redirects=False, **kwargs) as response:
            if response.status == 204:
                return None
            if response.status >= 400:
                try:
                    said = (await response.json(content_type=None))["error"]
                except (ValueError, KeyError, TypeError):
                    said = response.reason
                raise HopError(f"{method} {url} is answered with {response.status}: {said}")
            return await response.json()

    async def _ask_gateway(self):
        await self._ask("GET", "options")
        return f"{self.address} takes the token"

    async def _make_cluster(self):
        self.cluster = (await self._ask("POST", "clusters/", json={"cluster_options": self.options}))["name"]
        while True:
            report = await self._ask("GET", f"clusters/{self.cluster}", params={"wait": ""})
            if report["status"] == "RUNNING":
                return f"the scheduler of {self.cluster[:8]} runs"
            if report["status"] in ("STOPPED", "FAILED"):
                raise HopError(f"{self.cluster[:8]} is {report['status'].lower()}")

    async def _compute(self):
        self._begin("connection")
        order = {"address": self.address, "token": self.token, "cluster": self.cluster}
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), asyncio.subprocess.PIPE)
        environment = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": "/nonexistent"}
        program = await asyncio.create_subprocess_exec(
            self.python, "-I", TASK, **pipes, env=environment, cwd="/", **self.as_user
        )
        errors = asyncio.create_task(program.stderr.read())
        try:
            program.stdin.write(json.dumps(order).encode())
            program.stdin.close()
            await self._expect(program, errors, "connected")
            self._found(FINE, "a client is connected to the scheduler, through the front end and the proxy")
            self._begin("task")
            result = await self._expect(program, errors, "result")
            if result != "42":
                raise HopError(f"6 times 7 was computed as {one_line(result, 40)}")
            self._found(FINE, "a worker computed 6 times 7")
            await program.wait()
        finally:
            if program.returncode is None:
                program.kill()
                await program.wait()
            errors.cancel()

    async def _expect(self, program, errors, word):
        line = (await program.stdout.readline()).decode(errors="replace")
        if not line.startswith(word):
            printed = (await errors).decode(errors="replace").strip().splitlines()
            raise HopError(f"the client ended: {one_line(printed[-1] if printed else 'it printed nothing', 300)}")
        return line.removeprefix(word).strip()

    async def _shut_down(self):
        self._begin("shutdown")
        try:
            async with asyncio.timeout(SHUTDOWN):
                await self._ask("DELETE", f"clusters/{self.cluster}")
                while await self._lives():
                    await asyncio.sleep(0.5)
            self._found(FINE, f"{self.cluster[:8]} is stopped, and no job of it is left")
        except TimeoutError:
            self._found(CRITICAL, f"{self.cluster} was still there {SHUTDOWN} s after it was to stop")
        except (HopError, aiohttp.ClientError, OSError, ValueError) as exc:
            self._found(CRITICAL, f"{self.cluster} can't be stopped, `gateway-admin stop` may: {exc}")

    async def _lives(self):
        report = await self._ask("GET", f"clusters/{self.cluster}")
        if report["status"] not in ("STOPPED", "FAILED"):
            return True
        return bool(self.jobs and await self.jobs(self.cluster))
