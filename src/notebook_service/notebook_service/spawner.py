"""The Hub's spawner: systemdspawner, with what a site's users and other users of the same host need."""

from __future__ import annotations

import asyncio
import re
from hashlib import sha256
from pathlib import Path

from jupyterhub.spawner import SpawnException
from systemdspawner import systemd
from systemdspawner.systemdspawner import SystemdSpawner
from tornado.web import HTTPError
from traitlets import Dict, Integer, List, Unicode, default

from notebook_service import profiles
from notebook_service.account import AccountError, usable_account

PAUSE = 0.1  # seconds
NO_SPACE = re.compile("No space left on device|Disk quota exceeded")


class NotebookSpawner(SystemdSpawner):
    """A user's notebook server as a transient unit that runs as that user.

    Beyond systemdspawner:

    - Who cannot have a server is told why before anything is started, and a server that ends while it
      starts is reported at once with its last message, instead of after a timeout without a reason.
    - The connection files and sockets of kernels are in the unit's own folder under /run, which is the
      user's alone and, unlike a home on a network file system, this host's alone.
    - Terminals run the user's own login shell.
    - A site can offer servers of several sizes; what users ask for, in the form or by the API, is one of them.
    - Named servers have units of their own; upstream names all of a user's alike, and one would end the other.
    """

    support_address = Unicode(
        help="Where a user may write whose server cannot be started.",
    ).tag(config=True)

    minimum_uid = Integer(
        1000,
        help="Accounts with a smaller number are the system's and get no server.",
    ).tag(config=True)

    profiles = List(
        Dict(),
        help="""
        The sizes of server that users choose from, the first one if they don't say: each a name, memory
        (2G) and cores (1.5). Without any, a server has the limits of the other options.
        """,
    ).tag(config=True)

    _starting = False

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        if self.name:
            # A name may hold any characters; the units of users' only servers end in -singleuser
            self.unit_name = f"jupyter-{self.user.name}-named-{sha256(self.name.encode()).hexdigest()[:16]}"

    async def get_options_form(self) -> str:
        """Let the user choose, where there is a choice."""
        if not self.profiles:
            return await super().get_options_form()
        try:
            selected = profiles.chosen(self.profiles, self.user_options or {})["name"]
        except profiles.ProfileError:  # the last server's is offered no more
            selected = self.profiles[0]["name"]
        return profiles.form(self.profiles, selected)

    @default("options_from_form")
    def _default_options_from_form(self):
        return profiles.options_from_form

    @default("apply_user_options")
    def _default_apply_user_options(self):
        return NotebookSpawner.apply_profile

    def apply_profile(self, user_options: dict) -> None:
        """Take the limits of the profile that is asked for; what comes by the API may ask for anything."""
        if not self.profiles:
            return
        try:
            profile = profiles.chosen(self.profiles, user_options)
        except profiles.ProfileError as error:
            raise HTTPError(400, str(error)) from error
        self.mem_limit, self.cpu_limit = profile["memory"], profile["cores"]

    @property
    def runtime_directory(self) -> Path:
        """The unit's folder; upstream names it after the unit."""
        return Path(systemd.RUN_ROOT, self.unit_name)

    def get_env(self) -> dict[str, str]:
        """Lead Jupyter to the unit's own folder."""
        return {"JUPYTER_RUNTIME_DIR": str(self.runtime_directory)} | super().get_env()

    async def start(self) -> tuple[str, int]:
        """Start the server and wait until it listens."""
        try:
            # Directory and home may be on the network and slow to answer
            account = await asyncio.to_thread(usable_account, self.user.name, self.minimum_uid)
        except AccountError as error:
            raise self._refusal(str(error), "account") from error
        sentence = await self.authenticator.refusal(self.user.name, "start a server")
        if sentence:
            raise _shown(SpawnException(sentence, reason="service"))
        self.default_shell = account.pw_shell
        await self._end_what_runs()
        self._starting = True
        try:
            address = await super().start()
            while not await _listens(*address):
                await self.poll()
                await asyncio.sleep(PAUSE)
        finally:
            self._starting = False
        return address

    async def poll(self) -> int | None:
        """Tell whether the server runs; while it is starting, its end is an error."""
        status = await super().poll()
        if status is not None and self._starting:
            words = await _last_words(self.unit_name)
            if NO_SPACE.search(words):
                raise self._refusal(
                    f"Your notebook server found no space to write to: {words.rstrip('.')}. Delete what you no "
                    "longer need from your home folder, on a login host for example, and start your server again.",
                    "no space",
                )
            raise self._refusal(
                "Your notebook server ended while it was starting. "
                + (f"Its last message: {words.rstrip('.')}." if words else "It left no message."),
                "ended",
            )
        return status

    async def _end_what_runs(self) -> None:
        """Wait until nothing is left of a server from before.

        Upstream does so for a unit that is active. One that is deactivating, which its user can prolong,
        still has its folder, and the folder is the user's: root would write the next server's
        environment through any link that the user puts there.
        """
        folder = self.runtime_directory
        if _owner(folder) in (None, 0):
            return
        await systemd.stop_service(self.unit_name)
        if _owner(folder) not in (None, 0):
            raise self._refusal("Your last notebook server has not ended yet; try again in a minute.", "busy")

    def _refusal(self, sentence: str, reason: str) -> SpawnException:
        if self.support_address:
            sentence += f" If you need help, write to {self.support_address}."
        return _shown(SpawnException(sentence, reason=reason))


def _shown(refusal: SpawnException) -> SpawnException:
    """Have the page that follows a server's start show the sentence; else it names the class and more."""
    refusal.jupyterhub_message = refusal.message
    return refusal


def _owner(path: Path) -> int | None:
    try:
        return path.lstat().st_uid
    except FileNotFoundError:
        return None


async def _listens(host: str, port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection(host, port)
    except OSError:
        return False
    writer.close()
    return True


async def _last_words(unit_name: str) -> str:
    """Return the last line that a process of the unit has logged."""
    process = await asyncio.create_subprocess_exec(
        "journalctl",
        "--quiet",
        "--output=cat",
        "--lines=1",
        f"_SYSTEMD_UNIT={unit_name}.service",
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate()
    return output.decode(errors="replace").strip()
