"""A shared file system that is slow, for measurements: serves a folder read-only, each operation after a wait.

Runs on a node with Debian's python3-fusepy: ``python3 slow_tree.py FOLDER MOUNT_POINT SECONDS LOG``. Each operation is
a line of the log. The kernel keeps names and attributes for a second, and the contents of files in its page cache, as
it does of NFS; it asks for the target of a link each time, which NFS does not.
"""

import os
import sys
import time
from pathlib import Path


class SlowTree:
    """What reads, of a folder; nothing writes."""

    def __init__(self, folder: str, wait: float, log: Path):
        self.folder = folder
        self.wait = wait
        # Appending: whoever reads it may empty it
        self.log = log.open("a", buffering=1)

    def __call__(self, operation: str, path: str, *arguments):
        """Do one operation, as FUSE asks for it by name."""
        self.log.write(f"{operation} {path}\n")
        time.sleep(self.wait)
        return getattr(self, operation)(self.folder + path, *arguments)

    def getattr(self, path, handle=None):
        """Tell what a file is."""
        status = os.lstat(path)
        return {name: getattr(status, name) for name in dir(status) if name.startswith("st_") and "_ns" not in name}

    def readdir(self, path, handle):
        """List a folder."""
        return [".", "..", *(entry.name for entry in os.scandir(path))]

    def readlink(self, path):
        """Tell where a link leads."""
        return str(Path(path).readlink())

    def statfs(self, path):
        """Tell the size of the file system."""
        status = os.statvfs(path)
        return {name: getattr(status, name) for name in dir(status) if name.startswith("f_") and name != "f_fsid"}

    def open(self, path, flags):
        """Open a file."""
        return os.open(path, flags)

    def read(self, path, size, offset, handle):
        """Read of an open file."""
        return os.pread(handle, size, offset)

    def release(self, path, handle):
        """Close a file."""
        os.close(handle)
        return 0


def main(folder: str, place: str, seconds: str, log: str) -> None:
    """Serve until it is unmounted or told to end."""
    from fusepy import FUSE

    FUSE(
        SlowTree(folder, float(seconds), Path(log)), place, foreground=True, ro=True, nonempty=True, allow_other=True,
        default_permissions=True, auto_cache=True, attr_timeout=1, entry_timeout=1, fsname="slow-tree", suid=True,
        dev=True,
    )  # fmt: skip


if __name__ == "__main__":
    main(*sys.argv[1:])
