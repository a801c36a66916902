"""The role python_environment: what counts as a change of an environment, and what a build leaves behind."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import time
from pathlib import Path
from types import ModuleType

import ansible.module_utils
import pytest

ROLE = Path(__file__).parents[2] / "roles" / "python_environment"


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# As Ansible lays them out on a host
ansible.module_utils.__path__.append(str(ROLE / "module_utils"))
environment_build = importlib.import_module("ansible.module_utils.environment_build")
environment_conda = importlib.import_module("ansible.module_utils.environment_conda")
environment_rattler = importlib.import_module("ansible.module_utils.environment_rattler")
environment_local = importlib.import_module("ansible.module_utils.environment_local")
packed_environments = load(ROLE / "library" / "packed_environments.py")
local_environments = load(ROLE / "library" / "local_environments.py")
environments_in_use = load(ROLE / "library" / "environments_in_use.py")
pruned_environments = load(ROLE / "library" / "pruned_environments.py")
source_digest = load(ROLE / "lookup_plugins" / "source_digest.py")
locked_environment = load(ROLE / "library" / "locked_environment.py")


@pytest.fixture
def sources(tmp_path):
    folder = tmp_path / "sources"
    (folder / "package").mkdir(parents=True)
    (folder / "pyproject.toml").write_text("[project]\n")
    (folder / "package" / "__init__.py").write_text("")
    (folder / "package" / "data.bin").write_bytes(b"\xff\x00")
    return folder


def digest(*paths: Path, salt: str = "") -> str:
    return source_digest.digest(list(paths), salt)


def test_the_digest_is_the_same_for_the_same_sources_elsewhere(sources, tmp_path):
    before = digest(sources)
    assert digest(sources.rename(tmp_path / "elsewhere")) == before


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "package" / "__init__.py").write_text("x = 1\n"),
        lambda folder: (folder / "package" / "new.py").write_text(""),
        lambda folder: (folder / "package" / "data.bin").rename(folder / "package" / "data2.bin"),
        lambda folder: (folder / "package" / "data.bin").unlink(),
    ],
    ids=["content", "new file", "new name", "removed file"],
)
def test_the_digest_changes_with_the_sources(sources, change):
    before = digest(sources)
    change(sources)
    assert digest(sources) != before


def test_the_digest_changes_with_the_interpreter(sources):
    assert digest(sources, salt="/usr/bin/python3.11") != digest(sources, salt="/usr/bin/python3.12")


def test_what_moves_from_one_file_to_the_next_changes_the_digest(tmp_path):
    one, two = tmp_path / "1", tmp_path / "2"
    one.write_text("ab")
    two.write_text("c")
    before = digest(one, two)
    one.write_text("a")
    two.write_text("bc")
    assert digest(one, two) != before


@pytest.mark.parametrize(
    "leftover", ["package/__pycache__/x.pyc", "dist/x.whl", ".ruff_cache/x", "x.egg-info/PKG-INFO"]
)
def test_what_tools_leave_in_the_sources_does_not_count(sources, leftover):
    before = digest(sources)
    (sources / leftover).parent.mkdir(parents=True)
    (sources / leftover).write_text("x")
    assert digest(sources) == before


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "parent" / "environment"


def good_build(folder: Path, lock: int) -> None:
    (folder / "bin").mkdir(parents=True)
    script = folder / "bin" / "dask"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o777)
    (folder / "data").write_text("x")
    (folder / "data").chmod(0o600)
    (folder / "bin" / "python").symlink_to("/nowhere")


def test_a_complete_environment_is_not_built_again(folder):
    assert environment_build.build_once(folder, ".complete", good_build)
    assert not environment_build.build_once(folder, ".complete", pytest.fail)


def test_what_an_interrupted_build_left_does_not_get_into_the_next(folder):
    folder.mkdir(parents=True)
    (folder / "half").write_text("")
    assert environment_build.build_once(folder, ".complete", good_build)
    assert not (folder / "half").exists()
    assert (folder / ".complete").exists()


@pytest.mark.parametrize("error", [environment_build.BuildError("no"), KeyboardInterrupt()], ids=repr)
def test_a_build_that_fails_leaves_nothing(folder, error):
    def build(folder: Path, lock: int) -> None:
        good_build(folder, lock)
        raise error

    with pytest.raises(type(error)):
        environment_build.build_once(folder, ".complete", build)
    assert not folder.exists()


def test_everybody_can_read_an_environment_and_only_its_owner_can_write(folder):
    environment_build.build_once(folder, ".complete", good_build)
    modes = {p.name: p.stat().st_mode & 0o777 for p in [folder, *folder.rglob("*")] if not p.is_symlink()}
    assert modes == {"environment": 0o755, "bin": 0o755, "dask": 0o755, "data": 0o644, ".complete": 0o644}


def test_a_link_moves_and_stays_when_it_is_right(tmp_path):
    link = tmp_path / "uv"
    for target in (tmp_path / "uv-1", tmp_path / "uv-2", tmp_path / "uv-2"):
        environment_build.move_link(link, target)
        assert link.readlink() == target
    assert [path.name for path in tmp_path.iterdir()] == ["uv"]


@pytest.fixture
def builder(tmp_path, monkeypatch):
    monkeypatch.setattr(environment_build.time, "sleep", lambda seconds: None)
    return locked_environment.Builder(
        {
            "provider": "pip",
            "uv": {"path": str(tmp_path / "uv"), "lock": ""},
            "index_url": "",
            "find_links": "",
            "no_index": False,
            "ca_bundle": "/ca.crt",
            "cache": str(tmp_path / "cache"),
        }
    )


@pytest.fixture
def descriptor(tmp_path):
    with (tmp_path / "lock").open("w") as file:
        yield file.fileno()


def fails_until(tmp_path: Path, attempt: int, message: str) -> list[str]:
    count = tmp_path / "attempts"
    return ["sh", "-c", f'echo x >> {count}; echo "{message}" >&2; test "$(wc -l < {count})" -ge {attempt}']


def attempts(tmp_path: Path) -> int:
    return len((tmp_path / "attempts").read_text().split())


def test_a_registry_that_fails_once_is_asked_again(builder, descriptor, tmp_path):
    builder.commands.run(
        *fails_until(tmp_path, 2, "connection reset"), failure="No packages", lock=descriptor, attempts=3
    )
    assert attempts(tmp_path) == 2


def test_a_registry_that_keeps_failing_is_told_with_its_last_words(builder, descriptor, tmp_path):
    with pytest.raises(environment_build.BuildError, match="No packages: connection reset"):
        builder.commands.run(
            *fails_until(tmp_path, 9, "connection reset"), failure="No packages", lock=descriptor, attempts=3
        )
    assert attempts(tmp_path) == 3


def test_a_wrong_hash_is_told_at_once_and_as_what_it_is(builder, descriptor, tmp_path):
    with pytest.raises(environment_build.BuildError, match=r"No packages \(the registry has another file.*`numpy`"):
        builder.commands.run(
            *fails_until(tmp_path, 9, "Hash mismatch for \\`numpy\\`"),
            failure="No packages",
            lock=descriptor,
            attempts=3,
        )
    assert attempts(tmp_path) == 1


def test_the_address_of_a_registry_is_not_an_argument_that_others_could_see(builder):
    arguments = builder.arguments | {"index_url": "https://user:secret@registry/simple"}
    environment = locked_environment.Builder(arguments).commands.environment
    assert environment["UV_DEFAULT_INDEX"] == environment["PIP_INDEX_URL"] == arguments["index_url"]
    assert "UV_DEFAULT_INDEX" not in builder.commands.environment


def test_a_python_that_is_not_there_is_named(builder):
    builder.arguments |= {"python": "/usr/bin/python9.9"}
    with pytest.raises(environment_build.BuildError, match=r"/usr/bin/python9\.9 is not on this host"):
        builder.build()


def test_the_modules_that_do_not_import_are_named(builder, descriptor):
    command = ["python3", "-I", "-c", locked_environment.IMPORT_ALL, "json", "no_such_module"]
    with pytest.raises(environment_build.BuildError, match="no_such_module: ModuleNotFoundError"):
        builder.commands.verify(*command, failure="Not importable", lock=descriptor)


def test_what_a_module_writes_into_the_home_at_its_import_goes(builder, descriptor, tmp_path, monkeypatch):
    monkeypatch.setitem(builder.commands.environment, "HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    program = "import pathlib; (pathlib.Path.home() / 'gateway.yaml').write_text('x'); print(pathlib.Path.home())"
    builder.commands.verify("python3", "-c", program, failure="Not written", lock=descriptor)
    assert list((tmp_path / "home").iterdir()) == []


# -- conda packages


SHA256, MD5 = "0" * 64, "0" * 32


def test_an_explicit_lock_names_addresses_and_checksums_of_either_kind():
    lines = f"https://c/linux-64/python-3.11.2-0.conda#{SHA256}\nfile:///c/noarch/x-1-0.tar.bz2#{MD5}\n"
    assert environment_conda.packages(f"# made by …\n@EXPLICIT\n{lines}") == [
        {"url": "https://c/linux-64/python-3.11.2-0.conda", "sha256": SHA256, "md5": ""},
        {"url": "file:///c/noarch/x-1-0.tar.bz2", "sha256": "", "md5": MD5},
    ]


@pytest.mark.parametrize(
    ("lock", "sentence"),
    [
        ("", "begins with the line @EXPLICIT"),
        ("dask==2026.8.0", "begins with the line @EXPLICIT"),
        ("@EXPLICIT\n\nhttps://c/linux-64/python-3.11.2-0.conda", "Line 3 of the lock"),
        (f"@EXPLICIT\nhttps://c/linux-64/python-3.11.2-0.zip#{SHA256}", "Line 2 of the lock"),
        (f"@EXPLICIT\nhttps://c/noarch/python-dateutil-2-0.conda#{SHA256}", "names no package python-"),
    ],
    ids=["empty", "requirements", "no checksum", "no package", "no python"],
)
def test_a_lock_that_cannot_be_installed_is_told_before_anything_is_made(lock, sentence):
    with pytest.raises(environment_build.BuildError, match=sentence):
        environment_conda.packages(lock)


@pytest.fixture
def conda_package(tmp_path):
    path = tmp_path / "channel" / "x-1-0.conda"
    path.parent.mkdir()
    path.write_bytes(b"x")
    return {"url": path.as_uri(), "sha256": hashlib.sha256(b"x").hexdigest(), "md5": ""}


def test_a_package_is_fetched_once_and_again_when_its_copy_was_damaged(conda_package, tmp_path):
    copy = environment_rattler.fetch(conda_package, tmp_path / "cache")
    copy.write_bytes(b"damaged")
    assert environment_rattler.fetch(conda_package, tmp_path / "cache").read_bytes() == b"x"
    (tmp_path / "channel" / "x-1-0.conda").unlink()
    assert environment_rattler.fetch(conda_package, tmp_path / "cache").read_bytes() == b"x"


def test_a_package_with_another_checksum_or_none_at_all_is_named(conda_package, tmp_path):
    with pytest.raises(environment_rattler.PackageError, match=rf"hash mismatch: {conda_package['url']} .*{SHA256}"):
        environment_rattler.fetch(conda_package | {"sha256": SHA256}, tmp_path / "cache")
    missing = conda_package | {"url": conda_package["url"].replace("x-1", "x-2")}
    with pytest.raises(environment_rattler.PackageError, match=r"x-2-0\.conda: no such file there"):
        environment_rattler.fetch(missing, tmp_path / "cache")
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == []


# -- what is removed, and when


DAY = 86400
BUILD_1, BUILD_2 = "jaspy-111111111111", "jaspy-222222222222"


@pytest.fixture
def environments(tmp_path):
    folder = tmp_path / "envs"
    for name in (BUILD_1, BUILD_2):
        (folder / name / "bin").mkdir(parents=True)
        (folder / name / f".complete-{name[-12:]}").touch()
    (folder / "jaspy").symlink_to(folder / BUILD_2)
    return folder


def prune(folder: Path, days_later: float = 0, **arguments):
    settings = {"folder": str(folder), "keep": ["jaspy"], "remove": [], "keep_days": 30, "in_use": [], "unasked": []}
    settings |= arguments
    pruning = pruned_environments.Pruning(settings, now=time.time() + days_later * DAY)
    pruning.run()
    return pruning


def test_what_no_link_leads_to_is_kept_for_its_days_and_then_removed(environments):
    assert prune(environments).marked == [BUILD_1]
    assert prune(environments, 29).removed == []
    assert prune(environments, 31).removed == [BUILD_1]
    assert sorted(path.name for path in environments.iterdir()) == ["jaspy", BUILD_2]
    again = prune(environments, 62)
    assert again.removed == again.marked == []


def test_a_link_that_leads_back_takes_the_mark_away(environments):
    prune(environments)
    environment_build.move_link(environments / "jaspy", environments / BUILD_1)
    assert prune(environments, 31).marked == [BUILD_2]
    environment_build.move_link(environments / "jaspy", environments / BUILD_2)
    assert prune(environments, 31).removed == []


def test_what_something_runs_from_stays_in_any_case(environments):
    prune(environments)
    assert prune(environments, 31, in_use=[BUILD_1]).in_use == [BUILD_1]
    assert prune(environments, keep=[], remove=["jaspy"], in_use=["jaspy", BUILD_1]).in_use == [BUILD_1, BUILD_2]
    assert (environments / "jaspy" / "bin").exists()


def test_nothing_is_removed_while_a_host_was_not_asked_but_what_never_was_complete(environments):
    half = environments / "jaspy-000000000000"
    (half / "bin").mkdir(parents=True)
    told = prune(environments, keep=[], remove=["jaspy"], unasked=["node2"])
    assert (told.removed, told.uncertain) == ([half.name], [BUILD_1, BUILD_2])
    assert (environments / "jaspy" / "bin").exists()


def test_a_release_that_is_to_go_goes_with_its_link_and_all_its_builds(environments):
    assert prune(environments, keep=[], remove=["jaspy"]).removed == [BUILD_1, BUILD_2]
    assert list(environments.iterdir()) == []


def test_a_release_that_is_no_longer_listed_keeps_its_link_for_its_days(environments):
    prune(environments, keep=[])
    assert (environments / "jaspy").exists()
    assert prune(environments, 31, keep=[]).removed == [BUILD_1, BUILD_2]
    assert list(environments.iterdir()) == []


def test_what_an_interrupted_build_or_removal_left_goes_at_once(environments):
    (environments / BUILD_1 / ".complete-111111111111").unlink()
    assert prune(environments).removed == [BUILD_1]


def test_the_newest_of_each_name_stay_however_old_and_nothing_is_touched_that_is_not_named(environments):
    strangers = ("other-123456789012", "jaspy-proxy-123456789012")
    for number in range(3, 7):
        build = environments / f"jaspy-{str(number) * 12}"
        build.mkdir()
        marker = build / f".complete-{str(number) * 12}"
        marker.touch()
        os.utime(marker, (number, number))
    for name in strangers:
        (environments / name).mkdir()
    (environments / "dangling").symlink_to(environments / "nothing")
    os.utime(environments / BUILD_1 / f".complete-{BUILD_1[-12:]}", (1, 1))
    removed = prune(environments, names=["jaspy"], keep_newest=2, keep_days=0).removed
    assert removed == [BUILD_1, "jaspy-333333333333", "jaspy-444444444444"]
    assert sorted(path.name for path in environments.iterdir() if path.name != ".lock") == sorted(
        ["dangling", "jaspy", BUILD_2, "jaspy-555555555555", "jaspy-666666666666", *strangers]
    )


def test_what_one_may_go_back_to_stays_however_many_were_built_since(environments):
    before = environments / BUILD_1
    for number in range(3, 7):
        build = environments / f"jaspy-{str(number) * 12}"
        build.mkdir()
        (build / f".complete-{str(number) * 12}").touch()
    removed = prune(environments, names=["jaspy"], keep_newest=1, keep_days=0, keep_builds=[str(before)]).removed
    assert before.name not in removed
    assert len(removed) == 3


def test_looking_only_changes_nothing(environments):
    pruning = pruned_environments.Pruning(
        {"folder": str(environments), "keep": [], "remove": ["jaspy"], "keep_days": 0, "in_use": [], "unasked": []},
        dry=True,
    )
    pruning.run()
    assert pruning.removed == [BUILD_1, BUILD_2]
    assert len(list(environments.iterdir())) == 3


def test_an_environment_is_in_use_by_what_a_process_has_mapped_or_was_given(tmp_path):
    for pid, file, text in [
        ("1", "maps", b"7f00-7f01 r-xp 00000000 08:01 7 /sw/envs/a-1/lib/x.so\n"),
        ("2", "environ", b"A=b\0PATH=/bin:/sw/envs/b-2/bin:/usr/bin\0"),
        ("3", "cmdline", b"/sw/envs/c-3/bin/python\0-m\0x\0"),
        ("self", "cmdline", b"/sw/envs/d-4/bin/python\0"),
    ]:
        (tmp_path / pid).mkdir()
        (tmp_path / pid / file).write_bytes(text)
    assert environments_in_use.in_use("/sw/envs", tmp_path) == ["a-1", "b-2", "c-3"]


@pytest.fixture
def archives(environments, tmp_path):
    """What is packed of the environment that the link leads to."""
    (environments / BUILD_2 / "bin" / "python").symlink_to("/usr/bin/python3")
    changed, found = packed_environments.packed([str(environments / "jaspy")], tmp_path / "archives")
    assert changed
    return found


def test_an_environment_is_packed_once_and_what_is_left_over_goes(environments, tmp_path, archives):
    (one,) = archives
    assert (one["name"], one["folder"]) == (BUILD_2, str(environments / BUILD_2))
    folder = tmp_path / "archives"
    for name in (f"{BUILD_1}.tar", f"{BUILD_1}.tar.sha256", "notes.txt"):
        (folder / name).touch()
    assert packed_environments.packed([str(environments / "jaspy")], folder) == (True, archives)
    assert sorted(path.name for path in folder.iterdir()) == [f"{BUILD_2}.tar", f"{BUILD_2}.tar.sha256", "notes.txt"]
    assert packed_environments.packed([str(environments / "jaspy")], folder) == (False, archives)


def test_a_copy_is_what_was_packed_and_is_made_once(environments, tmp_path, archives):
    (environments / BUILD_2 / ".superseded").touch()
    local, fstab = tmp_path / "local", tmp_path / "fstab"
    copies = local_environments.Copies(archives, local, fstab=fstab)
    copies.make()
    assert copies.changed
    assert (local / BUILD_2 / "bin/python").readlink() == Path("/usr/bin/python3")
    names = {path.name for path in (environments / BUILD_2).iterdir()} - {".superseded"}
    assert {path.name for path in (local / BUILD_2).iterdir()} - names == {f".copy-{archives[0]['sha256'][:12]}"}
    assert [path.name for path in local.iterdir()] == [BUILD_2]
    again = local_environments.Copies(archives, local, fstab=fstab)
    again.make()
    assert (again.remove(), again.changed) == ([], False)


def test_an_archive_that_has_changed_is_refused_before_anything_of_it_is_unpacked(tmp_path, archives):
    with Path(archives[0]["archive"]).open("ab") as file:
        file.write(b"x")
    with pytest.raises(environment_build.BuildError, match="Remove it and run the play again"):
        local_environments.Copies(archives, tmp_path / "local", fstab=tmp_path / "fstab").make()
    assert list((tmp_path / "local").iterdir()) == []


def test_copies_that_nobody_wants_go_and_nothing_else_of_the_folder(tmp_path):
    local, fstab = tmp_path / "local", tmp_path / "fstab"
    for name in (BUILD_1, "photos"):
        (local / name).mkdir(parents=True)
    fstab.write_text(
        f"# {local}/x-000000000000 /nowhere none bind 0 0\n"
        f"/dev/sda / ext4 defaults 0 1\n{local}/{BUILD_1} {tmp_path}/envs/{BUILD_1} none bind,ro 0 0\n"
    )
    copies = local_environments.Copies([], local, fstab=fstab)
    assert copies.remove() == [f"{tmp_path}/envs/{BUILD_1}"]
    assert [path.name for path in local.iterdir()] == ["photos"]


def test_places_of_mounts_are_read_as_the_kernel_writes_them(tmp_path):
    table = tmp_path / "mountinfo"
    table.write_text("36 35 98:0 /a /sw/with\\040space rw - ext4 /dev/sda rw\n")
    assert environment_local.mount_points(table) == {"/sw/with space"}
