"""Archives of what a part of the service remembers: made while it runs, encrypted, examined before they are put back.

An archive is a tar file, by gzip, by age, with MANIFEST.json as its first member. Files lie in it with their whole
paths and owners; databases as copies that were taken at one moment; links as what they lead to.
"""

from __future__ import annotations

import contextlib
import grp
import hashlib
import json
import os
import pwd
import re
import shutil
import sqlite3
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

FORMAT = 1
MANIFEST = "MANIFEST.json"
# How mariadb-dump ends when it has come to its end
DUMPED = b"-- Dump completed"
# A line of a file of environment variables
ASSIGNED = re.compile(r"\w+=")


class ArchiveError(Exception):
    """What is wrong with an archive, or keeps one from being made; the text says what to do."""


# -- making one -------------------------------------------------------------------------------------------------


def create(path: Path, part: dict[str, Any], recipients: list[str], about: dict[str, Any]) -> dict[str, Any]:
    """Make an archive of a part at this path, seen there only when it is complete; return its manifest.

    Parameters
    ----------
    path : Path
        Where it will lie.
    part : dict
        `name`, and lists of paths: `databases` (SQLite), `files`, `links`; `mysql` is the name of a database or "".
    recipients : list of str
        age's public keys; without one it is not encrypted, which is for a folder that only root sees.
    about : dict
        What else goes into the manifest.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    work = path.with_name(f".{path.name}.work")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(mode=0o700)
    try:
        manifest = {"format": FORMAT, "part": part["name"], "taken": int(time.time()), **about}
        manifest["databases"] = {
            name: copy_database(Path(name), work) for name in part["databases"] if Path(name).exists()
        }
        manifest["links"] = {name: str(Path(name).readlink()) for name in part["links"] if Path(name).is_symlink()}
        if part["mysql"]:
            manifest["mysql"] = {"name": part["mysql"], "sha256": dump(part["mysql"], work / "mysql.sql")}
        files = [name for name in part["files"] if os.path.lexists(name)]
        manifest["files"] = files
        draft = work / "archive"
        with encrypted(draft, recipients) as stream, tarfile.open(fileobj=stream, mode="w|gz") as tar:
            (work / MANIFEST).write_text(json.dumps(manifest, indent=1))
            tar.add(work / MANIFEST, MANIFEST)
            for copy in manifest["databases"].values():
                tar.add(work / copy["member"], f"databases/{copy['member']}")
            if part["mysql"]:
                tar.add(work / "mysql.sql", "mysql.sql")
            for name in files:
                tar.add(name, f"files{name}", filter=kept)
        draft.chmod(0o600)
        draft.replace(path)
    finally:
        shutil.rmtree(work, ignore_errors=True)
        # No set of archives is where none was made
        if not path.exists():
            with contextlib.suppress(OSError):
                path.parent.rmdir()
    return manifest


def kept(info: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Leave out sockets and devices, of which a copy is of no use."""
    return info if info.isreg() or info.isdir() or info.issym() or info.islnk() else None


def copy_database(path: Path, work: Path) -> dict[str, Any]:
    """Copy a SQLite database as it is at one moment, whoever writes to it, and see that the copy is sound."""
    member = f"{hashlib.sha256(str(path).encode()).hexdigest()[:8]}-{path.name}"
    source = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=30)
    copy = sqlite3.connect(work / member)
    try:
        source.backup(copy)
        copy.execute("PRAGMA journal_mode=DELETE")
    finally:
        source.close()
        copy.close()
    owner = path.stat()
    return {
        "member": member,
        "sha256": digest(work / member),
        "rows": rows(work / member),
        "mode": owner.st_mode & 0o7777,
        "owner": pwd.getpwuid(owner.st_uid).pw_name,
        "group": grp.getgrgid(owner.st_gid).gr_name,
    }


def rows(path: Path) -> dict[str, int]:
    """How many rows each table has, in a database that is sound."""
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
    try:
        (said,) = connection.execute("PRAGMA integrity_check").fetchone()
        if said != "ok":
            raise ArchiveError(f"the copy of the database {path.name} is damaged: {said}")
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type='table'")]
        return {name: connection.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0] for name in sorted(tables)}  # noqa: S608
    except sqlite3.DatabaseError as error:
        raise ArchiveError(f"the database {path.name} can't be read: {error}") from None
    finally:
        connection.close()


def schema(path: Path) -> list[str]:
    """What a database is made of, but for the tables that releases add for themselves and others pass over."""
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=30)
    try:
        tables = connection.execute("SELECT sql FROM sqlite_master WHERE type = 'table' AND name != 'service_facts'")
        return sorted(" ".join(sql.split()) for (sql,) in tables if sql)
    finally:
        connection.close()


def dump(database: str, path: Path) -> str:
    """Write down a database of MariaDB as it is at one moment; return the digest."""
    with path.open("wb") as file:
        run("mariadb-dump", "--single-transaction", "--quick", "--skip-lock-tables", database, stdout=file)
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 200))
        if DUMPED not in file.read():
            raise ArchiveError(f"mariadb-dump did not come to the end of {database}")
    return digest(path)


@contextlib.contextmanager
def encrypted(path: Path, recipients: list[str]) -> Iterator[Any]:
    """A file to write to, through age where there are recipients."""
    with path.open("wb") as file:
        if not recipients:
            yield file
            return
        command = ["age", "--encrypt"]
        for recipient in recipients:
            command += ["--recipient", recipient]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=file, stderr=subprocess.PIPE)
        try:
            yield process.stdin
        except BrokenPipeError:
            pass  # it says why, below
        finally:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
            said = process.stderr.read().decode(errors="replace").strip()
            code = process.wait()
        if code:
            raise ArchiveError(f"age did not encrypt: {said}")


# -- looking into one, and putting it back ----------------------------------------------------------------------------


@contextlib.contextmanager
def opened(path: Path, identity: str) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The contents of an archive in a folder of root's, and its manifest, when all of it is as it was written."""
    if not path.exists():
        raise ArchiveError(f"{path} is not there")
    work = path.with_name(f".{path.name}.opened")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(mode=0o700)
    try:
        with decrypted(path, identity) as stream:
            try:
                with tarfile.open(fileobj=stream, mode="r|gz") as tar:
                    # With owners and modes; Pythons before 3.11.4 know no filters and do so anyway
                    tar.extraction_filter = getattr(tarfile, "fully_trusted_filter", None)
                    tar.extractall(work)  # noqa: S202
            except (tarfile.TarError, EOFError, OSError) as error:
                raise ArchiveError(f"{path} is damaged or no archive of this service: {error}") from None
        manifest = json.loads((work / MANIFEST).read_text())
        if manifest["format"] != FORMAT:
            raise ArchiveError(f"{path} has the format {manifest['format']}; this release of the bundle reads {FORMAT}")
        for name, copy in manifest["databases"].items():
            member = work / "databases" / copy["member"]
            if digest(member) != copy["sha256"] or rows(member) != copy["rows"]:
                raise ArchiveError(f"{name} in {path} is not what the manifest says")
        if "mysql" in manifest and digest(work / "mysql.sql") != manifest["mysql"]["sha256"]:
            raise ArchiveError(f"the dump of {manifest['mysql']['name']} in {path} is not what the manifest says")
        yield work, manifest
    except FileNotFoundError as error:
        raise ArchiveError(f"{path} lacks {Path(error.filename).name}") from None
    finally:
        shutil.rmtree(work, ignore_errors=True)


@contextlib.contextmanager
def decrypted(path: Path, identity: str) -> Iterator[Any]:
    """A stream to read from; `identity` is the text of age's private key, or "" for what is not encrypted."""
    with path.open("rb") as file:
        if not file.read(64).startswith(b"age-encryption.org/"):
            file.seek(0)
            yield file
            return
    if not identity.strip():
        raise ArchiveError(f"{path} is encrypted, and there is no key to open it: set backup_identity")
    # age reads its key from a file; a pipe's is in no folder
    read, write = os.pipe()
    os.write(write, identity.encode())
    os.close(write)
    command = ["age", "--decrypt", "--identity", f"/dev/fd/{read}", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, pass_fds=[read]) as process:
        os.close(read)
        failure = None
        try:
            yield process.stdout
        except ArchiveError as error:
            failure = error  # unless age knows better
        while process.stdout.read(2**20):
            pass
        said = process.stderr.read().decode(errors="replace").strip()
        if process.wait():
            raise ArchiveError(f"{path} can't be opened: {said}")
        if failure:
            raise failure


def manifest_in_the_clear(path: Path) -> dict[str, Any]:
    """The manifest of an archive that is not encrypted, without a look at the rest."""
    try:
        with tarfile.open(path, mode="r|gz") as tar:
            first = tar.next()
            if first is None or first.name != MANIFEST:
                raise ArchiveError(f"{path} is no archive of this service")
            return json.load(tar.extractfile(first))
    except (tarfile.TarError, EOFError, OSError, ValueError) as error:
        raise ArchiveError(f"{path} is damaged or no archive of this service: {error}") from None


def builds_to_go_back_to(folder: Path) -> list[str]:
    """What the links led to, in the archives of all sets below a folder."""
    archives = sorted(folder.glob("[0-9]*T[0-9]*Z/*.tar.gz"))
    return sorted({target for path in archives for target in manifest_in_the_clear(path)["links"].values()})


def missing_builds(manifest: dict[str, Any]) -> list[str]:
    """Say of each link that what it led to is not there any more."""
    return [
        f"{name} led to {target}, which is not there any more"
        for name, target in manifest["links"].items()
        if not Path(target).exists()
    ]


def same_builds(manifest: dict[str, Any]) -> bool:
    """Whether each link leads to what it led to then."""
    return all(os.path.realpath(name) == os.path.realpath(target) for name, target in manifest["links"].items())


def of_another_schema(work: Path, manifest: dict[str, Any]) -> list[str]:
    """The databases that are there and made of something else than those in the archive."""
    return [
        name
        for name, copy in manifest["databases"].items()
        if Path(name).exists() and schema(Path(name)) != schema(work / "databases" / copy["member"])
    ]


def newest_in_mysql(database: str, like: str, when: str) -> float:
    """When something was last written into a database's tables of such names, in seconds; 0 for never."""
    times = [
        ask(f"SELECT COALESCE(MAX({when}), 0) FROM {database}.{table}")[0]  # noqa: S608
        for table in tables_of(database, like)
    ]
    return max(map(float, times), default=0.0)


def newest(database: Path, questions: list[str]) -> float:
    """When something was last written that matters, as the questions tell it in seconds; 0 for never."""
    if not database.exists():
        return 0
    connection = sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True, timeout=30)
    try:
        times = [0.0]
        for question in questions:
            # A table that another release does not have knows nothing newer
            with contextlib.suppress(sqlite3.OperationalError):
                times.append(float(connection.execute(question).fetchone()[0] or 0))
        return max(times)
    finally:
        connection.close()


def put_back(
    work: Path, manifest: dict[str, Any], what: list[str], after: dict[str, list[str]], secrets: Iterable[str] = ()
) -> list[str]:
    """Put back `databases`, `mysql`, `files` or `links`; say what was. Databases that were there stay beside it.

    With `databases_of_another_schema` a database stays that the release before can go on with. `after` are statements
    for each database whose path it names. `secrets` are patterns of files that keep the values that they have. A path
    among `what` is a folder of the files that is put back by itself, if it is another one.
    """
    done = []
    stamp = time.strftime("%Y%m%dT%H%M%S")
    # Before anything is another one
    if "links" in what and missing_builds(manifest):
        raise ArchiveError("; ".join(missing_builds(manifest)))
    if {"databases", "databases_of_another_schema"} & set(what):
        for name, copy in manifest["databases"].items():
            member = work / "databases" / copy["member"]
            if "databases" not in what and Path(name).exists() and name not in of_another_schema(work, manifest):
                continue
            if name in after:
                connection = sqlite3.connect(member)
                for statement in after[name]:
                    # A table that another release does not have needs nothing done
                    with contextlib.suppress(sqlite3.OperationalError), connection:
                        connection.execute(statement)
                connection.close()
            put_database(member, Path(name), copy, stamp)
            done.append(name)
    if "mysql" in what and "mysql" in manifest:
        put_mysql(work / "mysql.sql", manifest["mysql"]["name"], stamp)
        done.append(manifest["mysql"]["name"])
    if "files" in what:
        present = {path: (path.read_bytes(), path.stat().st_mtime) for path in secret_files(secrets)}
        for name in manifest["files"]:
            put_file(work / f"files{name}", Path(name), {path: value for path, (value, _) in present.items()})
            done.append(name)
        for path, (value, changed) in present.items():
            # What is as it was has not changed, for who compares that with the start of what reads it
            if path.exists() and path.read_bytes() == value:
                os.utime(path, (changed, changed))
    for name in (name for name in what if name.startswith("/")):
        source = work / f"files{name}"
        if source.is_dir() and contents(source) != contents(Path(name)):
            put_file(source, Path(name), {})
            done.append(name)
    if "links" in what:
        for name, target in manifest["links"].items():
            draft = Path(f"{name}.{os.getpid()}")
            draft.symlink_to(target)
            draft.replace(name)
            done.append(name)
    return done


def put_database(copy: Path, path: Path, about: dict[str, Any], stamp: str) -> None:
    """Put a database in its place, with its owner; the one before keeps a name of its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.new")
    try:
        shutil.copyfile(copy, draft)
        draft.chmod(about["mode"])
        shutil.chown(draft, about["owner"], about["group"])
    except BaseException:
        # A full disk, mostly: the one that is there stays
        draft.unlink(missing_ok=True)
        raise
    for suffix in ("", "-wal", "-shm", "-journal"):
        before = path.with_name(path.name + suffix)
        if before.exists():
            before.replace(path.with_name(f"{path.name}.before-restore-{stamp}{suffix}"))
    draft.replace(path)


def put_mysql(dumped: Path, database: str, stamp: str) -> None:
    """Load a dump beside a database of MariaDB, and let their tables change places; the one before keeps a name.

    Procedures are in neither: slurmdbd makes its own at each start.
    """
    loaded, before = f"{database}_loaded", f"{database}_before_restore_{stamp}"
    run("mariadb", "--execute", f"DROP DATABASE IF EXISTS {loaded}; CREATE DATABASE {loaded}")
    with dumped.open("rb") as file:
        run("mariadb", loaded, stdin=file)
    run("mariadb", "--execute", f"CREATE DATABASE IF NOT EXISTS {database}; CREATE DATABASE {before}")
    moves = [f"{database}.{table} TO {before}.{table}" for table in tables_of(database)]
    moves += [f"{loaded}.{table} TO {database}.{table}" for table in tables_of(loaded)]
    if moves:
        run("mariadb", "--execute", f"RENAME TABLE {', '.join(moves)}")
    run("mariadb", "--execute", f"DROP DATABASE {loaded}")


def tables_of(database: str, like: str = "%") -> list[str]:
    """The tables of a database of MariaDB, quoted; none where there is no such database."""
    if not ask(f"SHOW DATABASES LIKE '{database}'"):
        return []
    return [f"`{name}`" for name in ask(f"SHOW TABLES IN {database} LIKE '{like}'")]


def ask(question: str) -> list[str]:
    """The lines that MariaDB answers."""
    return run("mariadb", "--batch", "--skip-column-names", "--execute", question, stdout=subprocess.PIPE).splitlines()


def secret_files(patterns: Iterable[str]) -> list[Path]:
    """The files that there are of these patterns."""
    return sorted(path for pattern in patterns for path in Path("/").glob(pattern.lstrip("/")) if path.is_file())


def keep_values(path: Path, value: bytes) -> None:
    """Give a secret that was put back the value that it had before: whole, or in each line NAME=… of an environment."""
    if not path.exists():
        return
    if path.suffix == ".env":
        values = dict(line.split("=", 1) for line in value.decode().splitlines() if ASSIGNED.match(line))
        text = "".join(
            f"{line.split('=', 1)[0]}={values.get(line.split('=', 1)[0], line.partition('=')[2])}\n"
            if ASSIGNED.match(line)
            else f"{line}\n"
            for line in path.read_text().splitlines()
        )
        value = text.encode()
    # In its place, with the owner and the mode that were put back
    path.write_bytes(value)


def contents(folder: Path) -> dict[str, bytes]:
    """What each file in a folder holds, by its path there; nothing where there is no such folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def is_folder(path: Path) -> bool:
    """Whether it is a folder, and no link to one."""
    return path.is_dir() and not path.is_symlink()


def put_file(source: Path, path: Path, kept: dict[Path, bytes]) -> None:
    """Put a file or a folder in its place, with its owners; what a folder has more than the archive goes.

    What is there stays until all of it is beside it, with the values that files among `kept` keep.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(dir=path.parent, prefix=".restore-"))
    try:
        draft = beside / path.name
        run("cp", "--archive", "--no-target-directory", str(source), str(draft))
        for file, value in kept.items():
            if file.is_relative_to(path):
                keep_values(draft / file.relative_to(path), value)
        before = beside / f"{path.name}.before"
        if is_folder(path) or (is_folder(draft) and os.path.lexists(path)):
            path.rename(before)
        try:
            draft.replace(path)
        except OSError:
            if os.path.lexists(before):
                before.rename(path)
            raise
    finally:
        shutil.rmtree(beside)


# -- small things -----------------------------------------------------------------------------------------------------


def prune(folder: Path, keep: int, dry: bool = False) -> list[str]:
    """Remove all but the newest sets of archives; their names are times. Return the names of those that go."""
    folders = sorted(path for path in folder.glob("[0-9]*T[0-9]*Z") if path.is_dir())
    # What failed left no archive, and takes nobody's place
    sets = [path for path in folders if any(not file.name.startswith(".") for file in path.iterdir())]
    surplus = [path for path in folders if path not in sets[-keep:] and path < sets[-1]] if keep > 0 and sets else []
    for path in surplus if not dry else []:
        shutil.rmtree(path)
    return [path.name for path in surplus]


def digest(path: Path) -> str:
    """The SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def run(*command: str, **kwargs: Any) -> str:
    """Run a command, or say what it printed; return what it wrote to a pipe."""
    done = subprocess.run(["/usr/bin/env", *command], stderr=subprocess.PIPE, check=False, **kwargs)
    if done.returncode:
        raise ArchiveError(f"{command[0]} ended with {done.returncode}: {done.stderr.decode(errors='replace').strip()}")
    return (done.stdout or b"").decode()
