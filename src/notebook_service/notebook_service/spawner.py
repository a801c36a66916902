"""The Hub's spawner: systemdspawner, with what a site's users and other users of the same host need."""

from __future__ import annotations

import asyncio
from pathlib import Path

from jupyterhub.spawner import SpawnException
from systemdspawner import systemd
from systemdspawner.systemdspawner import SystemdSpawner
from traitlets import Integer, Unicode

from notebook_service.account import AccountError, usable_account

PAUSE = 0.1  # seconds


class NotebookSpawner(SystemdSpawner):
    """A user's notebook server as a transient unit that runs as that user.

    Beyond systemdspawner:

    - Who cannot have a server is told why before anything is started, and a server that ends while it
      starts is reported at once with its last message, instead of after a timeout without a reason.
    - The connection files and sockets of kernels are in the unit's own folder under /run, which is the
      user's alone and, unlike a home on a network file system, this host's alone.
    - Terminals run the user's own login shell.
    """

    support_address = Unicode(
        help="Where a user may write whose server cannot be started.",
    ).tag(config=True)

    minimum_uid = Integer(
        1000,
        help="Accounts with a smaller number are the system's and get no server.",
    ).tag(config=True)

    _starting = False

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
