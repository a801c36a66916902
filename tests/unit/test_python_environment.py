"""The role python_environment: what counts as a change of an environment, and what a build leaves behind."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROLE = Path(__file__).parents[2] / "roles" / "python_environment"


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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
    assert locked_environment.build_once(folder, ".complete", good_build)
    assert not locked_environment.build_once(folder, ".complete", pytest.fail)


def test_what_an_interrupted_build_left_does_not_get_into_the_next(folder):
    folder.mkdir(parents=True)
    (folder / "half").write_text("")
    assert locked_environment.build_once(folder, ".complete", good_build)
    assert not (folder / "half").exists()
    assert (folder / ".complete").exists()


@pytest.mark.parametrize("error", [locked_environment.BuildError("no"), KeyboardInterrupt()], ids=repr)
def test_a_build_that_fails_leaves_nothing(folder, error):
    def build(folder: Path, lock: int) -> None:
        good_build(folder, lock)
        raise error

    with pytest.raises(type(error)):
        locked_environment.build_once(folder, ".complete", build)
    assert not folder.exists()


def test_everybody_can_read_an_environment_and_only_its_owner_can_write(folder):
    locked_environment.build_once(folder, ".complete", good_build)
    modes = {p.name: p.stat().st_mode & 0o777 for p in [folder, *folder.rglob("*")] if not p.is_symlink()}
    assert modes == {"environment": 0o755, "bin": 0o755, "dask": 0o755, "data": 0o644, ".complete": 0o644}


def test_a_link_moves_and_stays_when_it_is_right(tmp_path):
    link = tmp_path / "uv"
    for target in (tmp_path / "uv-1", tmp_path / "uv-2", tmp_path / "uv-2"):
        locked_environment.move_link(link, target)
        assert link.readlink() == target
    assert [path.name for path in tmp_path.iterdir()] == ["uv"]


@pytest.fixture
def builder(tmp_path, monkeypatch):
    monkeypatch.setattr(locked_environment.time, "sleep", lambda seconds: None)
    return locked_environment.Builder(
        {
            "uv": str(tmp_path / "uv"),
            "index_url": "",
            "find_links": "",
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
    builder.run(*fails_until(tmp_path, 2, "connection reset"), failure="No packages", lock=descriptor, attempts=3)
    assert attempts(tmp_path) == 2


def test_a_registry_that_keeps_failing_is_told_with_its_last_words(builder, descriptor, tmp_path):
    with pytest.raises(locked_environment.BuildError, match="No packages: connection reset"):
        builder.run(*fails_until(tmp_path, 9, "connection reset"), failure="No packages", lock=descriptor, attempts=3)
    assert attempts(tmp_path) == 3


def test_a_wrong_hash_is_told_at_once_and_as_what_it_is(builder, descriptor, tmp_path):
    with pytest.raises(locked_environment.BuildError, match=r"No packages \(the registry has another file.*`numpy`"):
        builder.run(
            *fails_until(tmp_path, 9, "Hash mismatch for \\`numpy\\`"),
            failure="No packages",
            lock=descriptor,
            attempts=3,
        )
    assert attempts(tmp_path) == 1


def test_the_address_of_a_registry_is_not_an_argument_that_others_could_see(builder):
    arguments = builder.arguments | {"index_url": "https://user:secret@registry/simple"}
    environment = locked_environment.Builder(arguments).environment
    assert environment["UV_DEFAULT_INDEX"] == environment["PIP_INDEX_URL"] == arguments["index_url"]
    assert "UV_DEFAULT_INDEX" not in builder.environment


def test_a_python_that_is_not_there_is_named(builder):
    builder.arguments |= {"python": "/usr/bin/python9.9"}
    with pytest.raises(locked_environment.BuildError, match=r"/usr/bin/python9\.9 is not on this host"):
        builder.build()


def test_the_modules_that_do_not_import_are_named(builder, descriptor):
    command = ["python3", "-I", "-c", locked_environment.IMPORT_ALL, "json", "no_such_module"]
    with pytest.raises(locked_environment.BuildError, match="no_such_module: ModuleNotFoundError"):
        builder.run(*command, failure="Not importable", lock=descriptor)
