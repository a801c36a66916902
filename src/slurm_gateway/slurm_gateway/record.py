"""What is remembered of the access check's answers: across restarts, and for operators who ask."""

import asyncio
import contextlib
import json
import os
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

_TABLE = """
create table if not exists answers (
    service text not null,
    user text not null,
    answer text not null,
    primary key (service, user)
)
"""


@dataclass(frozen=True)
class Memory:
    """What is known of one user; times are seconds of the epoch."""

    allowed: bool = False  # the last answer that said yes or no,
    kind: str = ""
    rule: str = ""
    grants: tuple = ()
    asked_at: float = 0  # when it was had,
    until: float = 0  # and for how long it need not be asked again
    last_allowed: float = 0  # when the last yes was had,
    ends: float | None = None  # and when what it rested on expires


class Record:
    """Memories of users, in a file if there is one.

    A file that can't be used is no reason to let nobody in, or everybody: it is said in the log, and what was learnt
    since the start is still known.
    """

    def __init__(self, path, service, log, writable=True):
        self._path = path
        self._service = service
        self._log = log
        self._writable = writable
        self._memories = {}
        self._database = None
        # A disk that is slow must not hold up the event loop; one thread, so that writes keep their order.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="accounts-record")

    async def get(self, user):
        """What is known of the user."""
        memory = self._memories.get(user)
        if memory is None:
            memory = await asyncio.get_running_loop().run_in_executor(self._thread, self._read, user) or Memory()
            memory = self._memories.setdefault(user, memory)
        return memory

    async def put(self, user, **changes):
        """Remember something of the user."""
        self._memories[user] = memory = replace(await self.get(user), **changes)
        if self._path and self._writable:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._write, user, memory)

    def close(self):
        """Close the file when what is under way is written."""
        self._thread.submit(self._close)
        self._thread.shutdown()

    def _read(self, user):
        if not self._path:
            return None
        with self._problems("read"):
            rows = self._connection().execute(
                "select answer from answers where service = ? and user = ?", (self._service, user)
            )
            for (answer,) in rows:
                values = json.loads(answer)
                return Memory(**values | {"grants": tuple(values["grants"])})
        return None

    def _write(self, user, memory):
        with self._problems("written"):
            connection = self._connection()
            with connection:
                connection.execute(
                    "insert or replace into answers values (?, ?, ?)",
                    (self._service, user, json.dumps(memory.__dict__)),
                )

    @contextlib.contextmanager
    def _problems(self, what):
        try:
            yield
        except (sqlite3.Error, OSError, ValueError, TypeError, KeyError) as exc:
            self._close()
            self._log.warning("The record of the access check, %s, can't be %s: %s", self._path, what, exc)

    def _connection(self):
        if self._database is None:
            if self._writable:
                os.close(os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
            uri = f"{Path(self._path).absolute().as_uri()}?mode={'rw' if self._writable else 'ro'}"
            self._database = sqlite3.connect(uri, uri=True, timeout=2)
            if self._writable:
                self._database.execute(_TABLE)
        return self._database

    def _close(self):
        if self._database is not None:
            with contextlib.suppress(sqlite3.Error):
                self._database.close()
            self._database = None
