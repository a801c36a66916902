"""What a host had before the service came: remembered once, asked when the service goes."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import subprocess
import tarfile
import time
from dataclasses import dataclass, field
from pathlib import Path

RECORD = "record.json"
COPY = "etc.tar.gz"
# Passwords and keys that the service never touches are not copied
SECRET = ("etc/shadow", "etc/gshadow", "etc/ssh/", "etc/security/opasswd")


class HostBeforeError(Exception):
    """What can't be done; the text says what to do."""


def run(*command: str, environment: dict[str, str] | None = None, check: bool = True) -> str:
    """What a command prints."""
    environment = os.environ | {"LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive", **(environment or {})}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if check and done.returncode:
        raise HostBeforeError(f"{' '.join(command)}: {(done.stderr or done.stdout).strip()[-2000:]}")
    return done.stdout


def installed_packages() -> list[str]:
    """The names of the packages that are installed."""
    lines = run("dpkg-query", "--show", "--showformat=${db:Status-Abbrev} ${Package}\n").splitlines()
    return sorted({line.split()[1] for line in lines if line[1:2] == "i"})


def names_in(file: str) -> list[str]:
    """The first field of each line of /etc/passwd or /etc/group."""
    return [line.partition(":")[0] for line in Path(file).read_text().splitlines() if ":" in line]


def units(*question: str) -> list[str]:
    """The first word of each line of an answer of systemctl."""
    return [line.split()[0] for line in run("systemctl", *question, "--no-legend", "--plain").splitlines() if line]


# -- remembering ------------------------------------------------------------------------------------------------


def remember(folder: Path, etc: Path = Path("/etc")) -> None:
    """Write down what the host has; there only when all of it is."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    record = {
        "time": int(time.time()),
        "packages": installed_packages(),
        "users": names_in("/etc/passwd"),
        "groups": names_in("/etc/group"),
        "enabled": units("list-unit-files", "--state=enabled"),
        "active": units("list-units", "--state=active"),
    }
    draft = folder / f".{COPY}"
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as stream, tarfile.open(fileobj=stream, mode="w:gz") as tar:
        tar.add(etc, "etc", filter=_without_secrets)
    draft.replace(folder / COPY)
    draft = folder / f".{RECORD}"
    draft.write_text(json.dumps(record, indent=1))
    draft.chmod(0o600)
    draft.replace(folder / RECORD)


def _without_secrets(info: tarfile.TarInfo) -> tarfile.TarInfo | None:
    if f"{info.name}/".startswith(SECRET) or info.name.startswith(SECRET[:2]):
        return None
    return info if info.isreg() or info.isdir() or info.issym() else None


@dataclass
class Before:
    """What is remembered of a host; `known` is false where nothing is."""

    known: bool = False
    packages: set[str] = field(default_factory=set)
    users: set[str] = field(default_factory=set)
    groups: set[str] = field(default_factory=set)
    enabled: set[str] = field(default_factory=set)
    active: set[str] = field(default_factory=set)
    copy: Path | None = None
    etc: Path = Path("/etc")

    @classmethod
    def read(cls, folder: Path, etc: Path = Path("/etc")) -> Before:
        """Read what was remembered in this folder."""
        try:
            record = json.loads((folder / RECORD).read_text())
        except FileNotFoundError:
            return cls()
        except ValueError as error:
            raise HostBeforeError(f"{folder / RECORD} can't be read: {error}") from None
        names = ("packages", "users", "groups", "enabled", "active")
        return cls(True, *(set(record[name]) for name in names), copy=folder / COPY, etc=etc)

    def members(self, path: Path) -> dict[str, tarfile.TarInfo]:
        """What the copy of /etc has at a path and below it."""
        if self.copy is None or not path.is_relative_to(self.etc):
            return {}
        name = str("etc" / path.relative_to(self.etc))
        with tarfile.open(self.copy) as tar:
            return {info.name: info for info in tar if info.name == name or info.name.startswith(f"{name}/")}


# -- giving back ------------------------------------------------------------------------------------------------


class GivingBack:
    """One look at what a role has put on the host; `dry` only says what would be done."""

    def __init__(self, before: Before, dry: bool = False, units_folder: Path = Path("/etc/systemd/system")):
        self.before = before
        self.dry = dry
        self.units_folder = units_folder
        self.done: list[str] = []
        self.left: list[str] = []

    def units(self, names: list[str]) -> None:
        """Stop and remove units that are the service's."""
        for name in names:
            path = self.units_folder / name
            if not path.exists():
                continue
            self.done.append(f"removed {path}")
            if not self.dry:
                run("systemctl", "disable", "--now", name)
                path.unlink()
                run("systemctl", "daemon-reload")
                run("systemctl", "reset-failed", name, check=False)

    def files(self, patterns: list[str], originals: list[str]) -> None:
        """Remove what is the service's, or give back what was at its place."""
        for pattern in patterns:
            for path in sorted({pattern, *found_by(pattern)}):
                self._file(safe(path))
        for path in originals:
            if self.before.known:
                self._file(safe(path))
            elif os.path.lexists(path):
                self.left.append(path)

    def _file(self, path: Path) -> None:
        members = self.before.members(path)
        if not members:
            if os.path.lexists(path):
                self.done.append(f"removed {path}")
                if not self.dry:
                    remove(path)
            return
        with tarfile.open(self.before.copy) as tar:
            if on_disk(path) == in_copy(tar, members, self.before.etc.parent):
                return
            self.done.append(f"gave back {path}")
            if not self.dry:
                remove(path)
                for info in members.values():
                    tar.extract(info, self.before.etc.parent, numeric_owner=True)

    def environments(self, links: list[str]) -> None:
        """Remove environments: what links lead to, and what they have led to."""
        self.files([pattern for link in links for pattern in (link, f"{link}-{'[0-9a-f]' * 12}")], [])

    def environments_of(self, folders: list[str]) -> None:
        """Remove every environment of these folders that was built there, and the links to it."""
        for folder in map(Path, folders):
            inside = sorted(folder.iterdir()) if folder.is_dir() else []
            built = [
                path for path in inside if (path / f".complete-{path.name[-12:]}").exists() and not path.is_symlink()
            ]
            places = {path.resolve() for path in built}
            links = [path for path in inside if path.is_symlink() and path.resolve() in places]
            self.files([str(path) for path in [*links, *built]], [])

    def folders(self, paths: list[str]) -> None:
        """Remove folders in which nothing is left, unless they were there before."""
        for path in map(safe, paths):
            if path.is_dir() and not path.is_symlink() and not self.before.members(path) and not any(path.iterdir()):
                self.done.append(f"removed {path}")
                if not self.dry:
                    path.rmdir()

    def users(self, names: list[str]) -> None:
        """Remove system users, and the groups of the same name."""
        for name in names:
            if name in names_in("/etc/passwd") and name not in self.before.users:
                self.done.append(f"removed the user {name}")
                if not self.dry:
                    run("userdel", name)
            if name in names_in("/etc/group") and name not in self.before.groups and not self.dry:
                run("groupdel", name)

    def commands(self, commands: list[dict[str, str]]) -> None:
        """Undo by commands what needs them."""
        for one in commands:
            if one["unless_before"] in self.before.packages:
                continue
            if subprocess.run(["/bin/sh", "-c", one["needed"]], capture_output=True).returncode == 0:
                self.done.append(one["run"])
                if not self.dry:
                    run("/bin/sh", "-ec", one["run"])

    def host_units(self, names: list[str]) -> None:
        """Let units of the distribution run as they did before, or not at all."""
        if not self.dry and self.done:
            run("systemctl", "daemon-reload")
        for name in names:
            active, enabled = state_of("is-active", name) == "active", state_of("is-enabled", name) == "enabled"
            if name in self.before.active:
                if self.done and not self.dry:
                    run("systemctl", "restart", name)
            elif active:
                self.done.append(f"stopped {name}")
                if not self.dry:
                    run("systemctl", "stop", name)
            if enabled and name not in self.before.enabled:
                self.done.append(f"disabled {name}")
                if not self.dry:
                    run("systemctl", "disable", name)


def state_of(question: str, name: str) -> str:
    """What systemd says of a unit; it says so too of one that it does not know."""
    return run("systemctl", question, name, check=False).strip()


def found_by(pattern: str) -> list[str]:
    """The paths that a pattern, which begins with /, stands for."""
    return [str(path) for path in Path("/").glob(pattern.lstrip("/"))] if set(pattern) & set("*?[") else []


def safe(path: str) -> Path:
    """A path that may be removed: whole, and not the root of something large."""
    found = Path(path)
    if not found.is_absolute() or ".." in found.parts or len(found.parts) < 3:
        raise HostBeforeError(f"{path} is nothing that a role may remove")
    return found


def remove(path: Path) -> None:
    """Remove a file, a link, or a folder with what is in it, and nothing of another file system."""
    if path.is_dir() and not path.is_symlink():
        device = path.lstat().st_dev
        mounted = [str(Path(at) / name) for at, names, _ in os.walk(path) for name in names
                   if (Path(at) / name).lstat().st_dev != device or os.path.ismount(Path(at) / name)]  # fmt: skip
        if mounted or os.path.ismount(path):
            raise HostBeforeError(f"{path} is not removed: {', '.join(mounted) or path} is mounted; unmount it first")
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def remove_remains(path: str) -> None:
    """Remove what a package has left; of a path that ends with / a folder, if nothing is left in it."""
    found = safe(path)
    if not path.endswith("/"):
        remove(found)
    elif found.is_dir() and not any(found.iterdir()):
        found.rmdir()


def on_disk(path: Path) -> dict[str, tuple]:
    """What is at a path and below it: kind and mode, owner, content."""
    found = {}
    paths = [path, *path.rglob("*")] if path.is_dir() and not path.is_symlink() else [path]
    for one in paths:
        if not os.path.lexists(one):
            continue
        about = one.lstat()
        if stat.S_ISLNK(about.st_mode):
            found[str(one)] = ("link", str(one.readlink()))
        else:
            content = hashlib.sha256(one.read_bytes()).hexdigest() if stat.S_ISREG(about.st_mode) else ""
            found[str(one)] = (about.st_mode & 0o7777, about.st_uid, about.st_gid, content)
    return found


def in_copy(tar: tarfile.TarFile, members: dict[str, tarfile.TarInfo], root: Path) -> dict[str, tuple]:
    """The same of the copy."""
    found = {}
    for name, info in members.items():
        if info.issym():
            found[str(root / name)] = ("link", info.linkname)
        else:
            content = hashlib.sha256(tar.extractfile(info).read()).hexdigest() if info.isreg() else ""
            found[str(root / name)] = (info.mode & 0o7777, info.uid, info.gid, content)
    return found


# -- packages ---------------------------------------------------------------------------------------------------

WITHOUT_RECOMMENDS = (
    "--option=APT::AutoRemove::RecommendsImportant=false",
    "--option=APT::AutoRemove::SuggestsImportant=false",
)


def removable(before: Before, wanted: list[str]) -> tuple[list[str], list[str]]:
    """Those packages that can go with what came with them, and those of the wanted that something else needs.

    Packages count as automatically installed afterwards, unless they stay.
    """
    ours = sorted((set(wanted) & set(installed_packages())) - before.packages)
    if not ours:
        return [], []
    manual = sorted(set(run("apt-mark", "showmanual", *ours).split()))
    if manual:
        run("apt-mark", "auto", *manual)
    plan = planned("autoremove", *WITHOUT_RECOMMENDS)
    came = {
        line.partition(":")[0]
        for line in run(
            "apt-cache", "depends", "--recurse", "--installed", "--no-recommends", "--no-suggests", "--no-conflicts",
            "--no-breaks", "--no-replaces", "--no-enhances", *ours,
        ).splitlines()
        if line[:1] not in (" ", "<", "|", "")
    }  # fmt: skip
    gone = (plan & (came | set(ours))) - before.packages
    gone = sorted(gone | spared(gone, came - before.packages - gone))
    needed = sorted(set(ours) - set(gone))
    if set(needed) & set(manual):
        run("apt-mark", "manual", *sorted(set(needed) & set(manual)))
    return gone, needed


def spared(gone: set[str], came: set[str]) -> set[str]:
    """Those that came too, which autoremove spares for what they provide, though another package provides it as well.

    As gawk beside mawk, each of them the awk of base-files. None is among them with which one that stays would go.
    """
    if not came:
        return set()
    can_go = set(run("apt-mark", "showauto", *sorted(came)).split())
    with_it = {package: planned("remove", package) for package in can_go}
    while kept := {package for package in can_go if with_it[package] - can_go - gone}:
        can_go -= kept
    return can_go


def planned(*arguments: str) -> set[str]:
    """What apt-get would remove."""
    lines = run("apt-get", "--simulate", "--purge", *arguments).splitlines()
    return {line.split()[1].partition(":")[0] for line in lines if line.startswith(("Purg ", "Remv "))}


def purge(packages: list[str]) -> None:
    """Remove these packages and no others."""
    others = planned("remove", *packages) - set(packages)
    if others:
        raise HostBeforeError(
            f"With {', '.join(packages)} apt would remove {', '.join(sorted(others))} too, which the host had before, "
            "or got since. Remove the packages by hand."
        )
    # sudo refuses to go where root has no password; it was not there before
    run("apt-get", "--yes", "--purge", "remove", *packages, environment={"SUDO_FORCE_REMOVE": "yes"})
