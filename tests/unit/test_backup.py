"""Archives of what the service remembers: consistent, encrypted, and put back only as they were made."""

from __future__ import annotations

import importlib
import shutil
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import ansible.module_utils
import pytest
import yaml

ROLE = Path(__file__).parents[2] / "roles/backup"

ansible.module_utils.__path__.append(str(ROLE / "module_utils"))
archive: ModuleType = importlib.import_module("ansible.module_utils.archive")

KEY = b"a wide secret of the configuration"

needs_age = pytest.mark.skipif(
    shutil.which("age") is None, reason="age is not installed here; the service's tests use it"
)


@pytest.fixture
def host(tmp_path):
    """A host's files: a database that somebody writes to, configuration, a link."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/secret").write_bytes(KEY)
    (tmp_path / "etc/secret").chmod(0o600)
    (tmp_path / "env-1").mkdir()
    (tmp_path / "env").symlink_to(tmp_path / "env-1")
    writer = sqlite3.connect(tmp_path / "gateway.sqlite", isolation_level=None)
    writer.execute("PRAGMA journal_mode=WAL")
    writer.execute("CREATE TABLE clusters (name TEXT, start_time INTEGER)")
    writer.execute("CREATE TABLE service_facts (name TEXT, value TEXT)")
    writer.execute("INSERT INTO service_facts VALUES ('born', '1')")
    writer.executemany("INSERT INTO clusters VALUES (?, ?)", [(f"c{i}", i * 1000) for i in range(1000)])
    yield tmp_path
    writer.close()


def part_of(host, **changes):
    return {
        "name": "gateway", "databases": [str(host / "gateway.sqlite")], "files": [str(host / "etc")],
        "links": [str(host / "env")], "mysql": "", **changes,
    }  # fmt: skip


def taken(host, recipients=(), **changes):
    path = host / "backups/20260101T000000Z/gateway.tar.gz.age"
    archive.create(path, part_of(host, **changes), list(recipients), {})
    return path


def clusters(path):
    connection = sqlite3.connect(path)
    try:
        return connection.execute("SELECT count(*) FROM clusters").fetchone()[0]
    finally:
        connection.close()


def test_what_was_archived_comes_back_with_its_modes_and_what_was_there_stays_beside_it(host):
    path = taken(host)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    database = host / "gateway.sqlite"
    for suffix in ("", "-wal", "-shm"):
        Path(f"{database}{suffix}").unlink()
    sqlite3.connect(database).execute("CREATE TABLE clusters (name TEXT)").connection.close()
    (host / "etc/secret").write_text("another")
    (host / "etc/new").touch()
    (host / "env").unlink()
    with archive.opened(path, "") as (work, manifest):
        archive.put_back(
            work, manifest, ["databases", "files", "links"], {str(database): ["DELETE FROM service_facts"]}
        )
    assert clusters(database) == 1000
    assert sqlite3.connect(database).execute("SELECT count(*) FROM service_facts").fetchone() == (0,)
    assert (host / "etc/secret").read_bytes() == KEY
    assert stat.S_IMODE((host / "etc/secret").stat().st_mode) == 0o600
    assert not (host / "etc/new").exists()
    assert (host / "env").readlink() == host / "env-1"
    (before,) = host.glob("gateway.sqlite.before-restore-*")
    assert clusters(before) == 0
    assert [p.name for p in path.parent.iterdir()] == [path.name], "nothing in the clear is left"


def test_a_database_is_copied_as_it_is_at_one_moment_while_it_is_written_to(host):
    program = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], timeout=30)\n"
        "print('writing', flush=True)\n"
        "while True:\n"
        "    with c: c.executemany('INSERT INTO clusters VALUES (?, 1)', [('a',), ('b',)])\n"
    )
    writer = subprocess.Popen([sys.executable, "-c", program, host / "gateway.sqlite"], stdout=subprocess.PIPE)
    try:
        writer.stdout.readline()
        for _ in range(5):
            with archive.opened(taken(host), "") as (_work, manifest):
                (copy,) = manifest["databases"].values()
                assert copy["rows"]["clusters"] % 2 == 0, "a transaction was cut in half"
    finally:
        writer.kill()
        writer.communicate()


@pytest.mark.parametrize("place", [0.1, 0.5, 0.9])
def test_a_damaged_archive_is_refused(host, place):
    path = taken(host)
    data = bytearray(path.read_bytes())
    data[int(len(data) * place)] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(archive.ArchiveError), archive.opened(path, ""):
        pytest.fail("it was opened")


def test_a_truncated_archive_is_refused(host):
    path = taken(host)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(archive.ArchiveError), archive.opened(path, ""):
        pytest.fail("it was opened")


def test_a_damaged_database_is_not_archived(host):
    bad = host / "bad.sqlite"
    bad.write_bytes(b"SQLite format 3\0" + b"\0" * 5000)
    with pytest.raises((archive.ArchiveError, sqlite3.DatabaseError)):
        taken(host, databases=[str(bad)])
    assert not list((host / "backups").rglob("*.age"))


@needs_age
def test_only_its_key_opens_an_archive_and_no_secret_is_in_the_clear(host):
    keys = [subprocess.run(["age-keygen"], capture_output=True, text=True, check=True).stdout for _ in range(2)]
    public = [key.partition("public key: ")[2].split()[0] for key in keys]
    path = taken(host, public[:1])
    assert KEY not in path.read_bytes()
    with archive.opened(path, keys[0]) as (work, _):
        assert next(work.rglob("secret")).read_bytes() == KEY
    for wrong, said in ((keys[1], "can't be opened"), ("", "no key to open it")):
        with pytest.raises(archive.ArchiveError, match=said), archive.opened(path, wrong):
            pytest.fail("it was opened")
    with pytest.raises(archive.ArchiveError, match="did not encrypt"):
        taken(host, ["age1nonsense"])


def test_the_newest_writing_is_found_and_a_table_that_is_missing_knows_nothing(host):
    questions = ["SELECT max(start_time) / 1000 FROM clusters", "SELECT max(x) FROM nonexistent"]
    assert archive.newest(host / "gateway.sqlite", questions) == 999
    assert archive.newest(host / "nonexistent.sqlite", questions) == 0


def test_only_the_newest_sets_are_kept(tmp_path):
    names = [f"2026010{i}T000000Z" for i in range(1, 6)]
    for name in [*names, "notes"]:
        (tmp_path / name).mkdir()
        (tmp_path / name / "gateway.tar.gz.age").touch()
    assert archive.prune(tmp_path, 2, dry=True) == names[:3]
    assert archive.prune(tmp_path, 2) == names[:3]
    assert sorted(p.name for p in tmp_path.iterdir()) == [*names[3:], "notes"]
    assert archive.prune(tmp_path, 0) == []


def test_what_has_failed_takes_the_place_of_no_archive(tmp_path, host):
    good = [f"2026010{i}T000000Z" for i in range(1, 4)]
    for name in good:
        (tmp_path / name).mkdir()
        (tmp_path / name / "gateway.tar.gz.age").touch()
    for name in ("20260102T120000Z", "20260104T000000Z", "20260105T000000Z"):
        (tmp_path / name / ".gateway.tar.gz.age.work").mkdir(parents=True)
    assert archive.prune(tmp_path, 3) == ["20260102T120000Z"]
    assert archive.prune(tmp_path, 2) == good[:1]
    # Nor does one that fails leave a set
    (host / "gateway.sqlite").rename(host / "gateway.sqlite.away")
    (host / "gateway.sqlite").write_text("no database")
    with pytest.raises(Exception, match="not a database"):
        taken(host)
    assert not (host / "backups/20260101T000000Z").exists()


def test_a_full_disk_leaves_what_is_there(host, monkeypatch):
    path = taken(host)
    (host / "etc/more").write_text("since")

    def full(*arguments, **options):
        Path(arguments[1] if len(arguments) == 2 else arguments[-1]).touch()
        raise archive.ArchiveError("No space left on device")

    with archive.opened(path, "") as (work, manifest):
        for what, program in (("databases", (archive.shutil, "copyfile")), ("files", (archive, "run"))):
            with monkeypatch.context() as patch:
                patch.setattr(*program, full)
                with pytest.raises(archive.ArchiveError, match="No space left"):
                    archive.put_back(work, manifest, [what], {})
    assert (host / "etc/secret").read_bytes() == KEY
    assert (host / "etc/more").exists()
    assert archive.newest(host / "gateway.sqlite", ["SELECT max(start_time) / 1000 FROM clusters"]) == 999
    assert not [left for left in host.iterdir() if left.name.startswith(".")]


def test_secrets_keep_their_values_on_the_way_back_and_the_rest_is_as_it_was(host):
    folder = host / "etc"
    (folder / "hub.env").write_text('# of the release before\nTOKEN="old"\nCOOKIE=same\nONLY_BEFORE=1\n')
    (folder / "tls.key").write_text("old key")
    (folder / "tls.key").chmod(0o640)
    path = taken(host)
    (folder / "hub.env").write_text('TOKEN="rotated=="\nCOOKIE=same\nNEW=1\n')
    (folder / "tls.key").write_text("new key")
    (folder / "new.env").write_text("A=1\n")
    patterns = [f"{folder}/*.env", f"{folder}/tls.*"]
    with archive.opened(path, "") as (work, manifest):
        archive.put_back(work, manifest, ["files"], {}, patterns)
    expected = '# of the release before\nTOKEN="rotated=="\nCOOKIE=same\nONLY_BEFORE=1\n'
    assert (folder / "hub.env").read_text() == expected
    assert (folder / "tls.key").read_text() == "new key"
    assert stat.S_IMODE((folder / "tls.key").stat().st_mode) == 0o640
    assert not (folder / "new.env").exists()
    assert (folder / "secret").read_bytes() == KEY


def test_the_canarys_token_stays_the_one_that_works(host):
    secrets = yaml.safe_load((ROLE / "vars/main.yml").read_text())["_backup_parts"]["gateway"]["secrets"]
    token = host / "etc/dask-gateway/canary-token"
    token.parent.mkdir()
    token.write_text("expired since")
    path = taken(host)
    token.write_text("renewed")
    with archive.opened(path, "") as (work, manifest):
        archive.put_back(work, manifest, ["files"], {}, [f"{host}{pattern}" for pattern in secrets])
    assert token.read_text() == "renewed"


def test_the_accounting_keeps_its_password_and_munges_key_in_a_restore_of_its_configuration(host):
    """As others have them: MariaDB, and the other hosts of the batch cluster. A key of munge is any bytes."""
    accounting = yaml.safe_load((ROLE / "vars/main.yml").read_text())["_backup_parts"]["accounting"]
    password, key, other = (
        host / f"etc/{name}" for name in ("slurm/slurmdbd.conf", "munge/munge.key", "slurm/slurm.conf")
    )
    for path, value in ((password, b"StoragePass=old\n"), (key, b"\xff\x00old\r\n"), (other, b"then")):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(value)
    key.chmod(0o400)
    path = taken(host, files=[f"{host}{name}" for name in accounting["files"]])
    new = [b"StoragePass=new\nDebugLevel=info\n", b"\xfe\r\n\x00new"]
    password.write_bytes(new[0])
    key.unlink()
    key.write_bytes(new[1])
    other.write_bytes(b"now")
    with archive.opened(path, "") as (work, manifest):
        archive.put_back(work, manifest, ["files"], {}, [f"{host}{pattern}" for pattern in accounting["secrets"]])
    assert [password.read_bytes(), key.read_bytes()] == new
    assert stat.S_IMODE(key.stat().st_mode) == 0o400
    assert other.read_bytes() == b"then"


def test_a_folder_of_the_files_goes_back_with_the_databases_alone_where_it_is_another(host):
    """As the authority does for the certificates of servers that go on as jobs."""
    authority, key = host / "etc/servers", host / "etc/servers/authority.key"

    def put_back():
        with archive.opened(path, "") as (work, manifest):
            done = archive.put_back(work, manifest, ["databases", str(authority), str(host / "etc/none")], {})
        return done[1:]

    authority.mkdir()
    key.write_text("old")
    key.chmod(0o600)
    path = taken(host)
    (host / "etc/secret").write_text("another")
    assert put_back() == []
    key.write_text("new")
    (authority / "more.crt").touch()
    assert put_back() == [str(authority)]
    assert [(p.name, p.read_text(), stat.S_IMODE(p.stat().st_mode)) for p in authority.iterdir()] == [
        ("authority.key", "old", 0o600)
    ]
    shutil.rmtree(authority)
    assert put_back() == [str(authority)]
    assert put_back() == []
    assert (host / "etc/secret").read_text() == "another"


def test_nothing_is_put_back_where_the_environments_are_gone(host):
    path = taken(host)
    (host / "etc/secret").write_text("another")
    (host / "env-1").rename(host / "env-2")
    with archive.opened(path, "") as (work, manifest), pytest.raises(archive.ArchiveError, match=r"env-1.* not there"):
        archive.put_back(work, manifest, ["databases", "files", "links"], {})
    assert (host / "etc/secret").read_text() == "another"
    assert not list(host.glob("*.before-restore-*"))


def test_what_the_ways_back_lead_to_is_known_and_whether_it_is_what_is_in_use(host):
    path = taken(host)
    path.rename(path.with_suffix(""))
    assert archive.builds_to_go_back_to(host / "backups") == [str(host / "env-1")]
    manifest = archive.manifest_in_the_clear(path.with_suffix(""))
    assert archive.same_builds(manifest)
    (host / "env-2").mkdir()
    (host / "env").unlink()
    (host / "env").symlink_to(host / "env-2")
    assert not archive.same_builds(manifest)
    path.with_suffix("").write_bytes(b"nonsense")
    with pytest.raises(archive.ArchiveError, match="damaged"):
        archive.builds_to_go_back_to(host / "backups")


def test_a_database_of_another_schema_is_told_and_what_a_release_adds_for_itself_is_none(host):
    path = taken(host)
    database = sqlite3.connect(host / "gateway.sqlite")
    database.execute("DROP TABLE service_facts")
    with archive.opened(path, "") as (work, manifest):
        assert archive.of_another_schema(work, manifest) == []
        database.execute("ALTER TABLE clusters ADD COLUMN more TEXT")
        assert archive.of_another_schema(work, manifest) == [str(host / "gateway.sqlite")]
    database.close()
