"""Runs under py-rattler's own Python: download, check and install the conda packages that standard input names.

No solver: what is installed is what the lock names. The checksums are checked before a package is looked into.
"""

import asyncio
import hashlib
import json
import shutil
import sys
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path


class PackageError(Exception):
    """A package that can't be installed."""


def checksum(path: Path, kind: str) -> str:
    """Return the digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, kind).hexdigest()


def fetch(package: dict, cache: Path) -> Path:
    """Return the file of a package, downloaded unless it is there, with the checksum that the lock has."""
    kind = "sha256" if package["sha256"] else "md5"
    wanted, url = package[kind], package["url"]
    path = cache / "packages" / wanted / url.rpartition("/")[2]
    if path.exists() and checksum(path, kind) == wanted:
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    try:
        with urllib.request.urlopen(url, timeout=60) as answer, partial.open("wb") as file:  # noqa: S310
            shutil.copyfileobj(answer, file, 2**20)
        found = checksum(partial, kind)
        if found != wanted:
            raise PackageError(f"hash mismatch: {url} has {kind} {found}, and the lock says {wanted}")
        partial.replace(path)
    except urllib.error.URLError as error:
        missing = isinstance(error.reason, FileNotFoundError) or getattr(error, "code", 0) == 404
        raise PackageError(f"{url}: {'no such file there' if missing else error}") from error
    finally:
        partial.unlink(missing_ok=True)
    return path


def record_of(package: dict, path: Path):
    """Describe a downloaded package to rattler."""
    from rattler import IndexJson, PackageRecord, RepoDataRecord

    index = IndexJson.from_package_archive(path)
    record = PackageRecord(
        name=index.name.normalized,
        version=str(index.version),
        build=index.build,
        build_number=index.build_number,
        subdir=index.subdir or package["url"].split("/")[-2],
        noarch=index.noarch,
        depends=index.depends,
        constrains=index.constrains,
        sha256=bytes.fromhex(checksum(path, "sha256")),
        md5=bytes.fromhex(checksum(path, "md5")),
        size=path.stat().st_size,
        python_site_packages_path=index.python_site_packages_path,
    )
    channel = package["url"].rpartition("/")[0].rpartition("/")[0]
    return RepoDataRecord(record, path.name, path.as_uri(), channel)


def unfit(records) -> list[str]:
    """Say what a package needs and the lock does not have."""
    from rattler import MatchSpec

    return [
        f"{record.name.normalized} needs {depends}, and the lock has no such package"
        for record in records
        for depends in record.depends
        if not depends.startswith("__") and not any(MatchSpec(depends).matches(other) for other in records)
    ]


def name_origins(prefix: Path, records, packages) -> None:
    """Record where the packages came from, and not where they lay on this host."""
    urls = {path_uri: package["url"] for path_uri, package in zip((r.url for r in records), packages, strict=True)}
    for path in (prefix / "conda-meta").glob("*.json"):
        meta = json.loads(path.read_text())
        meta["url"] = urls.get(meta.get("url"), meta.get("url"))
        path.write_text(json.dumps(meta, indent=1))


def install(request: dict) -> None:
    """Install the packages into a new prefix."""
    from rattler import install as rattler_install

    cache, packages = Path(request["cache"]), request["packages"]
    with ThreadPoolExecutor(8) as pool:
        paths = list(pool.map(lambda package: fetch(package, cache), packages))
    records = [record_of(package, path) for package, path in zip(packages, paths, strict=True)]
    problems = unfit(records)
    if problems:
        raise PackageError("; ".join(problems[:5]))
    # Rattler's own cache would keep every package twice
    scratch = cache / "extracted"
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        asyncio.run(rattler_install(records, request["prefix"], cache_dir=scratch, show_progress=False))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    name_origins(Path(request["prefix"]), records, packages)


def main() -> int:
    """Do what standard input asks for."""
    try:
        install(json.load(sys.stdin))
    except (PackageError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    except Exception as error:  # rattler's own are of many classes; their text is for people
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
