"""The Hub's spawner: systemdspawner, with what a site's users and other users of the same host need."""

from __future__ import annotations

import asyncio
from hashlib import sha256
from pathlib import Path

from systemdspawner import systemd
from systemdspawner.systemdspawner import SystemdSpawner

from notebook_service.server import NO_SPACE, NotebookServer

PAUSE = 0.1  # seconds


class NotebookSpawner(NotebookServer, SystemdSpawner):
    """A user's notebook server as a transient unit that runs as that user.

    Beyond systemdspawner:

    - A server that ends while it starts is reported at once with its last message, instead of after a timeout
      without a reason.
    - The connection files and sockets of kernels are in the unit's own folder under /run, which is the
      user's alone and, unlike a home on a network file system, this host's alone.
    - Terminals run the user's own login shell.
    - Named servers have units of their own; upstream names all of a user's alike, and one would end the other.
    """

    _starting = False

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        if self.name:
            # A name may hold any characters; the units of users' only servers end in -singleuser
            self.unit_name = f"jupyter-{self.user.name}-named-{sha256(self.name.encode()).hexdigest()[:16]}"

    @property
    def runtime_directory(self) -> Path:
        """The unit's folder; upstream names it after the unit."""
        return Path(systemd.RUN_ROOT, self.unit_name)

    def get_env(self) -> dict[str, str]:
        """Lead Jupyter to the unit's own folder."""
        return {"JUPYTER_RUNTIME_DIR": str(self.runtime_directory)} | super().get_env()

    async def start(self) -> tuple[str, int]:
        """Start the server and wait until it listens."""
        self.default_shell = (await self.admitted()).pw_shell
        await self._end_what_runs()
        self._starting = True
        try:
            # Before JupyterHub's own limit, which knows no reason
            async with asyncio.timeout(max(self.start_timeout - 5, 1)):
                address = await super().start()
                while not await _listens(*address):
                    await self.poll()
                    await asyncio.sleep(PAUSE)
        except TimeoutError:
            words = await _last_words(self.unit_name)
            raise self.refusal(
                f"Your notebook server was not there after {self.start_timeout} seconds, so it was given up. "
                + _told(words),
                "timeout",
            ) from None
        finally:
            self._starting = False
        return address

    async def poll(self) -> int | None:
        """Tell whether the server runs; while it is starting, its end is an error."""
        status = await super().poll()
        if status is not None and self._starting:
            words = await _last_words(self.unit_name)
            if NO_SPACE.search(words):
                raise self.no_space(words)
            raise self.refusal(f"Your notebook server ended while it was starting. {_told(words)}", "ended")
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
            raise self.refusal("Your last notebook server has not ended yet; try again in a minute.", "busy")


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


def _told(words: str) -> str:
    return f"Its last message: {words.rstrip('.')}." if words else "It left no message."


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
