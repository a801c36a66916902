"""The site's examples in the file browser: a link in the user's folder to a folder that is read-only.

A copy in each user's folder would be old after an update, or would have to overwrite what its user has changed. What a
user wants to change is saved under another name, as JupyterLab offers for files that can't be written.
"""

from __future__ import annotations

from pathlib import Path

from traitlets import Unicode
from traitlets.config import Configurable


class Examples(Configurable):
    """Where the examples are."""

    folder = Unicode(help="The folder of the examples on this host; none are offered if it is empty.").tag(config=True)

    link = Unicode("dask-examples", help="The name under which users find it.").tag(config=True)


def offer(settings, user_folder, log) -> bool:
    """Put the link there unless the user has something else of that name; whether it is there."""
    if not settings.folder:
        return False
    link, folder = Path(user_folder) / settings.link, Path(settings.folder)
    try:
        if link.is_symlink():
            if link.readlink() == folder:
                return True
            if link.exists():
                return False  # the user's own, which leads somewhere
            link.unlink()  # it led to where the examples were once
        elif link.exists():
            return False
        link.symlink_to(folder)
    except OSError as error:
        # A full or read-only home keeps nobody from having a server
        log.warning("The examples can't be offered: %s", error)
        return False
    return True
