"""A local conda channel made of what a host has: its Python repackaged, and the packages of an environment of it.

Runs on a host of the scenario, where no channel can be reached, with nothing but the standard library:
``python3 conda_channel.py CHANNEL LOCK SITE_PACKAGES NAME…`` writes the packages, an explicit lock that names
them, and the index of the channel that a solver reads.
"""

import hashlib
import io
import json
import re
import sys
import sysconfig
import tarfile
from importlib import metadata
from pathlib import Path
from typing import ClassVar

MINOR = "{}.{}".format(*sys.version_info)
SITE_PACKAGES = f"lib/python{MINOR}/site-packages"


class Package:
    """One package under construction: an archive as conda has them."""

    known: ClassVar[dict[str, dict]] = {"linux-64": {}, "noarch": {}}

    def __init__(self, channel: Path, name: str, version: str, depends: tuple[str, ...] = (), noarch: str = ""):
        self.subdir = "noarch" if noarch else "linux-64"
        self.path = channel / self.subdir / f"{name}-{version}-0.tar.bz2"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.index = {
            "name": name,
            "version": version,
            "build": "0",
            "build_number": 0,
            "depends": list(depends),
            "subdir": self.subdir,
            **({"noarch": noarch} if noarch else {"arch": "x86_64", "platform": "linux"}),
        }
        self.paths = []
        self.entry_points: list[str] = []
        self.tar = tarfile.open(self.path, "w:bz2", compresslevel=1)  # noqa: SIM115

    def add(self, source: Path, name: str, text: bytes | None = None) -> None:
        """Add a file under its name in the prefix."""
        kind = "softlink" if text is None and source.is_symlink() else "hardlink"
        if text is None:
            text = b"" if kind == "softlink" else source.read_bytes()
            self.tar.add(source, name, recursive=False)
        else:
            self._text(name, text)
        digest = hashlib.sha256(text).hexdigest()
        self.paths.append({"_path": name, "path_type": kind, "sha256": digest, "size_in_bytes": len(text)})

    def _text(self, name: str, text: bytes) -> None:
        info = tarfile.TarInfo(name)
        info.size, info.mode = len(text), 0o644
        self.tar.addfile(info, io.BytesIO(text))

    def close(self) -> str:
        """Write the package's description, and answer its line in a lock."""
        self._text("info/index.json", json.dumps(self.index).encode())
        self._text("info/files", "".join(f"{entry['_path']}\n" for entry in self.paths).encode())
        self._text("info/paths.json", json.dumps({"paths": self.paths, "paths_version": 1}).encode())
        if self.index.get("noarch") == "python":
            link = {"noarch": {"type": "python", "entry_points": self.entry_points}, "package_metadata_version": 1}
            self._text("info/link.json", json.dumps(link).encode())
        self.tar.close()
        digest = hashlib.sha256(self.path.read_bytes()).hexdigest()
        self.known[self.subdir][self.path.name] = self.index | {"sha256": digest, "size": self.path.stat().st_size}
        return f"{self.path.as_uri()}#{digest}"


def python_package(channel: Path) -> str:
    """Repackage this Python: its program and its library, without the packages of the distribution."""
    package = Package(channel, "python", ".".join(map(str, sys.version_info[:3])))
    package.add(Path(f"/usr/bin/python{MINOR}").resolve(), f"bin/python{MINOR}")
    library = Path(sysconfig.get_path("stdlib"))
    for path in sorted(library.rglob("*")):
        inside = path.relative_to(library)
        if path.is_dir() or {"__pycache__", "dist-packages", "test"} & set(inside.parts):
            continue
        if inside.parts[0].startswith("config-") or inside.name in ("EXTERNALLY-MANAGED", "sitecustomize.py"):
            continue
        package.add(path.resolve() if path.is_symlink() else path, f"lib/python{MINOR}/{inside}")
    for name in ("python", "python3"):
        link = channel / name
        link.unlink(missing_ok=True)
        link.symlink_to(f"python{MINOR}")
        package.add(link, f"bin/{name}")
        link.unlink()
    # Debian's Python looks for packages in folders of other names; conda's packages go where others look
    customized = (
        "import site, sys, sysconfig\n"
        f"site.addsitedir(sys.prefix + '/{SITE_PACKAGES}')\n"
        "sysconfig.get_default_scheme = lambda: 'posix_prefix'\n"
        "sysconfig._get_preferred_schemes = lambda: {k: f'posix_{k}' for k in ('prefix', 'home', 'user')}\n"
    )
    package.add(Path(), f"lib/python{MINOR}/sitecustomize.py", customized.encode())
    return package.close()


def requirements(distribution: metadata.Distribution) -> set[str]:
    """Names of what a distribution needs, or can use."""
    names = [re.match(r"[\w.-]+", requirement)[0] for requirement in distribution.requires or []]
    return {re.sub(r"[-_.]+", "-", name).lower() for name in names}


def distribution_package(channel: Path, distribution: metadata.Distribution, others: set[str]) -> str:
    """Repackage an installed distribution."""
    name = re.sub(r"[-_.]+", "-", distribution.metadata["Name"]).lower()
    files = [file for file in distribution.files if ".." not in file.parts and "__pycache__" not in file.parts]
    # Compiled ones are of this Python; the others are linked by the installer to where its Python looks
    compiled = any(file.suffix == ".so" for file in files)
    depends = ("python", *sorted(requirements(distribution) & others))
    package = Package(channel, name, distribution.version, depends, noarch="" if compiled else "python")
    scripts = [entry for entry in distribution.entry_points if entry.group == "console_scripts"]
    package.entry_points = [f"{script.name} = {script.value}" for script in scripts]
    for file in files:
        prefix = SITE_PACKAGES if compiled else "site-packages"
        package.add(Path(distribution.locate_file(file)), f"{prefix}/{file}")
    return package.close()


def needed(path: list[str], names: list[str]) -> dict[str, metadata.Distribution]:
    """Find the distributions, and what they need, by name."""
    installed = {re.sub(r"[-_.]+", "-", d.metadata["Name"]).lower(): d for d in metadata.distributions(path=path)}
    found: dict[str, metadata.Distribution] = {}
    queue = list(names)
    while queue:
        name = re.sub(r"[-_.]+", "-", queue.pop()).lower()
        if name in installed and name not in found:
            found[name] = installed[name]
            queue += requirements(installed[name])
    return found


def write_index(channel: Path) -> None:
    """Write what a solver knows of each package."""
    for subdir in ("linux-64", "noarch"):
        (channel / subdir).mkdir(parents=True, exist_ok=True)
        index = {"info": {"subdir": subdir}, "packages": Package.known[subdir], "repodata_version": 1}
        (channel / subdir / "repodata.json").write_text(json.dumps(index))


def main(channel: str, lock: str, site_packages: str, *names: str) -> None:
    """Write the channel and the lock."""
    folder = Path(channel)
    lines = [python_package(folder)]
    found = needed([site_packages], list(names))
    lines += [distribution_package(folder, distribution, set(found)) for _, distribution in sorted(found.items())]
    Path(lock).write_text("\n".join(["@EXPLICIT", *lines]) + "\n")
    write_index(folder)


if __name__ == "__main__":
    main(*sys.argv[1:])
