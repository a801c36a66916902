"""What every jaspy environment says about tokens that others can read, and about Pythons that Dask can't use."""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
import subprocess
import sys
import warnings
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import dask_gateway
import pytest
from distributed import Client

from dask_user_tools import env_check, refusals, tls, token_file, versions

SOURCES = Path(token_file.__file__).parents[1]
TOKEN = "gateway:\n  auth:\n    type: jupyterhub\n    kwargs:\n      api_token: 0123456789abcdef\n"


@pytest.fixture
def configuration(tmp_path, monkeypatch):
    """The user's folder of Dask's configuration."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("DASK_CONFIG", "DASK_GATEWAY_CLUSTER_NAME"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / ".config" / "dask"
    folder.mkdir(parents=True)
    return folder


def write(path: Path, text: str = TOKEN, mode: int = 0o644) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620, 0o666])
def test_a_token_that_others_can_read_or_change_is_found(configuration, mode):
    path = write(configuration / "gateway.yaml", mode=mode)
    assert token_file.readable() == [(path, mode)]


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o700])
def test_a_token_that_only_its_user_can_read_is_fine(configuration, mode):
    write(configuration / "gateway.yaml", mode=mode)
    assert token_file.readable() == []


@pytest.mark.parametrize(
    "text",
    [
        TOKEN,
        "gateway: {auth: {kwargs: {api_token: 0123}}}",
        '{"gateway": {"auth": {"kwargs": {"api-token": "0123"}}}}',
        "    api_token: '0123'",
        "    # api_token: 0123",
        "    password: hunter2",
        "gateway: [broken\n  api_token: 0123",
    ],
)
def test_a_token_is_found_however_it_is_written(configuration, text):
    write(configuration / "gateway.yaml", text)
    assert len(token_file.readable()) == 1


@pytest.mark.parametrize(
    "text",
    [
        "",
        "gateway:\n  address: https://dask-gateway.example\n",
        "      api_token: null\n",
        "      api_token: ~\n",
        "      api_token:\n",
        '      api_token: "{JUPYTERHUB_API_TOKEN}"\n',
    ],
)
def test_configuration_without_a_token_may_be_read_by_all(configuration, text):
    write(configuration / "gateway.yaml", text)
    assert token_file.readable() == []


def test_other_files_of_the_folder_and_those_of_dask_config_are_looked_at_too(configuration, tmp_path, monkeypatch):
    backup = write(configuration / "gateway.yaml~")
    elsewhere = write(tmp_path / "mine.yaml")
    monkeypatch.setenv("DASK_CONFIG", str(elsewhere))
    assert {path for path, _ in token_file.readable()} == {backup, elsewhere}


def test_a_home_without_configuration_is_fine(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "nowhere"))
    monkeypatch.delenv("DASK_CONFIG", raising=False)
    assert token_file.readable() == []


def test_the_files_of_another_user_are_left_to_that_user(configuration, monkeypatch):
    write(configuration / "gateway.yaml")
    owner = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: owner + 1)
    assert token_file.readable() == []


def test_the_sentence_says_what_to_do():
    sentence = token_file.sentence(Path("/home/users/alice/gateway.yaml"), 0o644, "https://notebooks.example/hub/token")
    assert "mode 0644" in sentence
    assert "chmod 600 /home/users/alice/gateway.yaml" in sentence
    assert "revoke it at https://notebooks.example/hub/token" in sentence


def test_jobs_of_a_cluster_do_not_repeat_the_warning(configuration, monkeypatch):
    write(configuration / "gateway.yaml")
    monkeypatch.setenv("DASK_GATEWAY_CLUSTER_NAME", "0123")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        token_file.warn_of_readable()


def python(configuration: Path, code: str) -> subprocess.CompletedProcess:
    """Run code in a new Python that starts as those of jaspy do, with a dask_gateway that does nothing."""
    packages = configuration.parent / "packages"
    packages.mkdir(exist_ok=True)
    (packages / "dask_gateway.py").write_text("imported = True\n")
    (packages / "sitecustomize.py").write_text((SOURCES / "dask_user_tools.pth").read_text())
    return subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": f"{packages}:{SOURCES}", "DASK_ROOT_CONFIG": str(packages)},
        capture_output=True,
        text=True,
        check=True,
    )


def test_importing_dask_gateway_warns_once_of_a_token_that_others_can_read(configuration):
    path = write(configuration / "gateway.yaml")
    (configuration.parent / "packages").mkdir()
    write(
        configuration.parent / "packages" / "site.yaml",
        "dask-user-tools: {token-page: https://hub.example/hub/token}\n",
    )
    done = python(configuration, "import dask_gateway, sys; del sys.modules['dask_gateway']; import dask_gateway")
    assert done.stderr.count("ReadableTokenWarning") == 1
    assert f"chmod 600 {path}" in done.stderr
    assert "https://hub.example/hub/token" in done.stderr
    assert done.stderr.startswith("<string>:1:"), "the warning names the line that imports"


def test_importing_dask_gateway_is_silent_when_the_token_is_closed(configuration):
    write(configuration / "gateway.yaml", mode=0o600)
    done = python(configuration, "import dask_gateway; print(dask_gateway.imported)")
    assert (done.stdout, done.stderr) == ("True\n", "")


def test_a_python_that_imports_no_gateway_loads_nothing_for_it(configuration):
    write(configuration / "gateway.yaml")
    done = python(configuration, "import sys; print(*sorted(m for m in sys.modules if m.startswith('dask')))")
    assert (done.stdout, done.stderr) == ("dask_user_tools dask_user_tools.startup\n", "")


def test_dask_gateway_is_imported_whatever_goes_wrong_with_the_look_at_the_token(configuration):
    broken = "import sys; sys.modules['dask_user_tools.token_file'] = None; "
    done = python(configuration, broken + "import dask_gateway; print(dask_gateway.imported)")
    assert done.stdout == "True\n"
    assert "could not be looked at" in done.stderr


@pytest.mark.parametrize("error", [ValueError, dask_gateway.GatewayClusterError, dask_gateway.GatewayServerError])
def test_what_the_gateway_refuses_is_shown_in_notebooks_as_a_sentence(error):
    class Gateway:
        async def _request(self, text):
            raise error(text)

    client = SimpleNamespace(
        Gateway=Gateway,
        GatewayClusterError=dask_gateway.GatewayClusterError,
        GatewayServerError=dask_gateway.GatewayServerError,
    )
    refusals.show_as_sentences(client)
    with pytest.raises(error, match="Apply there") as raised:
        asyncio.run(Gateway()._request("Apply there."))
    assert raised.value._render_traceback_() == [f"{error.__name__}: Apply there."]


def test_other_errors_of_a_request_keep_their_traceback():
    class Gateway:
        async def _request(self):
            raise OSError("no network")

    refusals.show_as_sentences(
        SimpleNamespace(Gateway=Gateway, GatewayClusterError=KeyError, GatewayServerError=KeyError)
    )
    with pytest.raises(OSError, match="no network") as raised:
        asyncio.run(Gateway()._request())
    assert not hasattr(raised.value, "_render_traceback_")


def test_the_real_client_is_adapted_when_it_is_imported_whoever_imports_it(tmp_path):
    (tmp_path / "sitecustomize.py").write_text((SOURCES / "dask_user_tools.pth").read_text())
    for imports in ("import dask_gateway", "from dask_gateway.client import Gateway"):
        done = subprocess.run(
            [sys.executable, "-c", f"{imports}; import dask_gateway; print(dask_gateway.Gateway._request.__module__)"],
            env=os.environ | {"PYTHONPATH": f"{tmp_path}:{SOURCES}"},
            capture_output=True,
            text=True,
        )
        assert (done.stdout, done.stderr) == ("dask_user_tools.refusals\n", "")


def test_this_python_keeps_its_tls_connections_apart():
    assert tls.fault() is None


def test_a_python_that_hands_errors_from_one_connection_to_another_is_named(monkeypatch, capsys):
    def recv(self, *args):
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr(ssl.SSLSocket, "recv", recv)
    assert tls.main() == 1
    printed = capsys.readouterr().out
    assert ssl.OPENSSL_VERSION in printed
    assert "Dask clients would lose their schedulers" in printed


# -- versions that differ


HERE = {"python": "3.11.2.final.0", "dask": "2026.8.0", "distributed": "2026.8.0", "numpy": "2.1.0", "lz4": "4.0.0"}


def test_what_breaks_comes_first_and_what_is_alike_is_not_named():
    there = HERE | {"numpy": "2.2.0", "distributed": "2026.3.0", "lz4": None, "dask": "2026.8.1"}
    found = versions.differences(HERE | {"zict": "1", "six": "1"}, there | {"zict": "2"}, {"w1": there, "w2": there})
    assert [(one.package, one.rank) for one in found] == [
        ("distributed", 0),
        ("dask", 1),
        ("lz4", 1),
        ("numpy", 2),
        ("zict", 3),
    ]
    assert found[2].shown() == ("lz4", "4.0.0", "missing", "missing")


def test_another_python_breaks_and_another_patch_release_of_it_may_not():
    for python, rank in (("3.12.1.final.0", 0), ("3.11.7.final.0", 1)):
        (found,) = versions.differences(HERE, HERE | {"python": python})
        assert found.rank == rank
        assert found.shown()[1:3] == ("3.11.2", python.removesuffix(".final.0"))


def test_workers_that_differ_from_each_other_are_counted():
    workers = {"w1": HERE, "w2": HERE, "w3": HERE | {"numpy": "1.26"}}
    (found,) = versions.differences(HERE, HERE, workers)
    assert found.shown()[3] == "2.1.0 (2 workers), 1.26 (1 workers)"


def test_the_command_to_mend_fits_the_environment(monkeypatch):
    found = versions.differences(HERE, HERE | {"distributed": "2026.3.0", "numpy": None})
    monkeypatch.setattr(sys, "prefix", "/home/users/alice/my env")
    monkeypatch.setattr(sys, "executable", "/home/users/alice/my env/bin/python")
    assert versions.mend(found) == "'/home/users/alice/my env/bin/python' -m pip install distributed==2026.3.0"
    monkeypatch.setattr(sys, "prefix", "/apps/jasmin/jaspy/envs/jaspy3.11-v20261101-0123456789ab")
    assert 'new_cluster(jaspy="jaspy3.11-v20261101")' in versions.mend(found)


def test_a_cluster_whose_own_jobs_differ_is_to_be_made_anew():
    other = HERE | {"distributed": "2026.3.0"}
    assert "cluster.shutdown()" in versions.mend(versions.differences(HERE, HERE, {"w": other}))


def test_what_is_missing_here_as_well_is_no_reason_to_install_it():
    (found,) = versions.differences({"zict": None}, {"zict": "1"}, {"w": {"zict": "2"}})
    assert "cluster.shutdown()" in versions.mend([found])


@pytest.fixture
def live_cluster(tmp_path):
    """`live_cluster(scheduler, *workers)` starts them with these packages besides, and gives their gateway."""
    processes = []

    def start(number, packages, *arguments):
        folder = tmp_path / f"{number}"
        for package, version in packages.items():
            info = folder / f"{package.replace('-', '_')}-{version}.dist-info"
            info.mkdir(parents=True)
            (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
        command = [sys.executable, "-m", "dask", *arguments, "--no-dashboard", "--dashboard-address", "127.0.0.1:0"]
        environment = os.environ | {"PYTHONPATH": str(folder)}
        with (tmp_path / f"{number}.log").open("wb") as log:
            processes.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=tmp_path))

    def run(scheduler, *workers):
        file = tmp_path / "scheduler.json"
        start(0, scheduler, "scheduler", "--host=127.0.0.1", "--port=0", f"--scheduler-file={file}")
        for number, packages in enumerate(workers, 1):
            start(number, packages, "worker", f"--scheduler-file={file}", "--no-nanny", "--nthreads=1")
        with Client(scheduler_file=str(file), timeout=30) as client:
            client.wait_for_workers(len(workers), timeout=30)

        @contextlib.contextmanager
        def connect(name, shutdown_on_close):
            assert not shutdown_on_close
            yield SimpleNamespace(get_client=lambda: Client(scheduler_file=str(file), set_as_default=False))

        return SimpleNamespace(connect=connect)

    yield run
    for process in processes:
        process.kill()
        process.wait()


def test_packages_that_differ_within_a_cluster_are_named_also_if_they_are_missing_here(live_cluster, capsys):
    there = {"only-there": "1.0", "Alike_There": "5.0", "ZICT": "1.1", "gone-there": "1.0"}
    other = {"only-there": "2.0", "Alike_There": "5.0", "ZICT": "1.1", "msgpack": "0.1"}
    gateway = live_cluster(there, there, other)
    found = env_check.of_cluster("1234", gateway)
    zict, msgpack = metadata.version("zict"), metadata.version("msgpack")
    assert [one.shown() for one in found] == [
        ("msgpack", msgpack, msgpack, f"0.1 (1 workers), {msgpack} (1 workers)"),
        ("gone-there", "missing", "1.0", "1.0 (1 workers), missing (1 workers)"),
        ("only-there", "missing", "1.0", "1.0 (1 workers), 2.0 (1 workers)"),
        ("zict", zict, "1.1", "1.1"),
    ]
    assert env_check.check_clusters(["1234"], gateway) == 1
    assert "The cluster's own jobs differ from each other" in capsys.readouterr().out


def environment_check(python: Path | str) -> subprocess.CompletedProcess:
    file = SOURCES / "dask_user_tools" / "environment.py"
    return subprocess.run([python, file], capture_output=True, text=True, check=False)


def test_an_environment_without_dask_is_told_what_to_install(tmp_path):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "env"], check=True)
    done = environment_check(tmp_path / "env/bin/python")
    assert done.returncode == 1
    assert f"Missing: dask, distributed, dask-gateway, lz4. {tmp_path}/env/bin/python -m pip install" in done.stdout


def test_an_environment_with_everything_is_fit_and_one_with_two_releases_of_dask_is_not(tmp_path):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "env"], check=True)
    minor = "{}.{}".format(*sys.version_info)
    packages = tmp_path / f"env/lib/python{minor}/site-packages"
    for name, version in {"dask": "2026.8.0", "distributed": "2026.8.0", "dask-gateway": "1", "lz4": "4"}.items():
        module = packages / name.replace("-", "_")
        module.mkdir()
        (module / "__init__.py").write_text("")
        (module / "block.py").write_text("")
        info = packages / f"{module.name}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Name: {name}\nVersion: {version}\n")
    done = environment_check(tmp_path / "env/bin/python")
    assert (done.returncode, done.stdout[:20]) == (0, "Fit for the gateway:"), done.stdout
    (packages / "dask" / "__init__.py").write_text("raise ImportError('libfoo')")
    assert "can't be imported: ImportError: libfoo" in environment_check(tmp_path / "env/bin/python").stdout
    (packages / "distributed-2026.8.0.dist-info/METADATA").write_text("Name: distributed\nVersion: 2026.3.0\n")
    done = environment_check(tmp_path / "env/bin/python")
    assert "dask 2026.8.0 and distributed 2026.3.0 do not belong together" in done.stdout


def test_an_environment_over_a_release_has_its_packages(tmp_path, monkeypatch):
    """The release is a virtual environment itself here, as those of the provider pip are."""
    release, build = tmp_path / "envs/jaspy3.11-v20261101", tmp_path / "envs/jaspy3.11-v20261101-0123456789ab"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", build], check=True)
    release.symlink_to(build)
    packages = next(build.glob("lib/*/site-packages"))
    (packages / "only_there.py").write_text("")
    command = f"import sys; sys.path.append({str(SOURCES)!r}); from dask_user_tools import venv; sys.exit(venv.main())"
    made = subprocess.run(
        [build / "bin/python", "-c", command, tmp_path / "mine"], capture_output=True, text=True, check=False
    )
    assert f'"source {tmp_path}/mine/bin/activate"' in made.stdout, made.stderr
    shown = "import only_there; print(only_there.__file__)"

    def found() -> str:
        return subprocess.check_output([tmp_path / "mine/bin/python", "-c", shown], text=True).strip()

    assert found() == str(packages / "only_there.py")
    mended = build.with_name(f"{release.name}-ba9876543210")
    build.rename(mended)
    release.unlink()
    release.symlink_to(mended)
    assert found() == str(mended / packages.relative_to(build) / "only_there.py"), "it follows the release's name"
