"""Files, and what their owner reads when there is no space for them."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from jupyter_server.services.contents.largefilemanager import AsyncLargeFileManager
from tornado.web import HTTPError

NO_SPACE = {errno.ENOSPC, errno.EDQUOT}


class HomeContentsManager(AsyncLargeFileManager):
    """Jupyter Server's own, but for what it says of a full home folder: 507 and a sentence, instead of 500."""

    @contextmanager
    def perm_to_403(self, os_path: str = "") -> Iterator[None]:
        """Turn errors of the file system into what the page shows; upstream does so for permissions."""
        try:
            with super().perm_to_403(os_path):
                yield
        except OSError as error:
            if error.errno not in NO_SPACE:
                raise
            raise HTTPError(
                507,
                f"Your home folder is full ({error.strerror}), and nothing was saved. "
                "Delete what you no longer need, then save again.",
            ) from error
