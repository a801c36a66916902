"""Copies of environments on a host's own disk: one file each on the shared tree, and what is mounted where they are."""

from __future__ import annotations

import hashlib
import re
import subprocess
import tarfile
from pathlib import Path

from ansible.module_utils.environment_build import BuildError

# What the role writes into a build that is no longer wanted; a copy that is made later is of one that is
NOT_PACKED = {".superseded"}


def mount_points(table: Path = Path("/proc/self/mountinfo")) -> set[str]:
    """Where something is mounted on this host; bind mounts of the same file system among them."""

    def plain(name: str) -> str:
        return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), name)

    return {plain(line.split()[4]) for line in table.read_text().splitlines()}


def unmount(folder: Path) -> bool:
    """Take away the copy that lies over a folder. What has files of it open keeps them; the folder holds the same."""
    if str(folder) not in mount_points():
        return False
    done = subprocess.run(["/usr/bin/umount", "--lazy", folder], capture_output=True, text=True, check=False)
    if done.returncode:
        raise BuildError(f"The local copy over {folder} could not be unmounted: {done.stderr.strip()}")
    return True


def pack(folder: Path, archive: Path) -> str:
    """Write the folder into one file, and its SHA-256 beside it; the file has its name only when it is whole."""
    digest_file = archive.with_name(f"{archive.name}.sha256")
    partial = archive.with_name(f".{archive.name}.partial")
    archive.parent.mkdir(parents=True, exist_ok=True)
    try:
        with tarfile.open(partial, "w") as tar:
            for path in sorted(folder.iterdir()):
                if path.name not in NOT_PACKED:
                    tar.add(path, path.name)
        partial.chmod(0o644)
        found = sha256_of(partial)
        digest_file.write_text(f"{found}\n")
        partial.replace(archive)
    finally:
        partial.unlink(missing_ok=True)
    return found


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def packed_digest(archive: Path) -> str:
    """The SHA-256 that was written when it was packed; empty if it was not."""
    try:
        return archive.with_name(f"{archive.name}.sha256").read_text().strip() if archive.exists() else ""
    except FileNotFoundError:
        return ""


def copy_and_unpack(archive: Path, sha256: str, folder: Path) -> None:
    """Read the shared tree once, from one end of the file to the other; look into it only when it is the right one."""
    local = folder.with_name(f".{folder.name}.tar")
    digest = hashlib.sha256()
    try:
        with archive.open("rb") as source, local.open("wb") as target:
            while piece := source.read(2**20):
                digest.update(piece)
                target.write(piece)
        if digest.hexdigest() != sha256:
            raise BuildError(
                f"{archive} has the SHA-256 {digest.hexdigest()}, and {sha256} was packed: the file has changed since, "
                "or the shared file system reads wrongly. Remove it and run the play again; nothing of it was used"
            )
        with tarfile.open(local) as tar:
            # Links to the host's Python lead out of the folder. It is root's own archive, by its hash
            trusted = {"filter": "fully_trusted"} if hasattr(tarfile, "fully_trusted_filter") else {}
            tar.extractall(folder, **trusted)  # noqa: S202
    finally:
        local.unlink(missing_ok=True)


def lines_of_copies(fstab: str, directory: str) -> list[str]:
    """Where /etc/fstab mounts copies from the directory."""
    rows = [line.split() for line in fstab.splitlines() if not line.lstrip().startswith("#")]
    return [
        row[1] for row in rows if len(row) > 3 and str(Path(row[0]).parent) == directory and "bind" in row[3].split(",")
    ]
