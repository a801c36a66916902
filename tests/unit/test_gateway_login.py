"""dask-gateway-login: a token reaches its file unseen, and what is wrong is named."""

from __future__ import annotations

import http.server
import json
import os
import pty
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import yaml

from dask_user_tools import login
from dask_user_tools.yaml_edit import EditError, with_values

SOURCES = Path(login.__file__).parents[1]
GOOD = "0123456789abcdef0123456789abcdef"
PLACE = ("gateway", "auth", "kwargs", "api_token")
REFUSED = "Your token is wrong, has expired or was revoked. Make a new one at https://notebooks.test/hub/token"


@pytest.fixture
def asked() -> list[str]:
    """What the gateway was asked with, by each request."""
    return []


@pytest.fixture
def gateway(asked):
    """The address of a gateway that takes one token."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.headers["Authorization"])
            if self.path.startswith("/moved"):
                self.send_response(301)
                self.send_header("Location", self.path.removeprefix("/moved"))
                self.end_headers()
                return
            taken = self.headers["Authorization"] == f"token {GOOD}" and self.path == "/api/v1/clusters/"
            body = json.dumps({} if taken else {"error": REFUSED}).encode()
            self.send_response(200 if taken else 422)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def run(tmp_path, gateway):
    """``run(given, "--option")``: the command, in a home of its own, with this on its standard input."""
    site = tmp_path / "etc"
    site.mkdir()
    (site / "site.yaml").write_text(yaml.dump({"gateway": {"address": gateway}}))

    def command(given: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
        variables = {k: v for k, v in os.environ.items() if not k.startswith(("DASK_", "PYTHON"))}
        variables |= {"HOME": str(tmp_path), "DASK_ROOT_CONFIG": str(site), "PYTHONPATH": str(SOURCES)} | environment
        return subprocess.run(
            [sys.executable, "-m", "dask_user_tools.login", *arguments],
            env=variables, input=given, capture_output=True, text=True, timeout=60,
        )  # fmt: skip

    command.file = tmp_path / ".config/dask/gateway.yaml"
    return command


def test_a_token_that_works_is_written_for_its_user_alone(run, asked):
    done = run(f"{GOOD}\n")
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load(run.file.read_text())["gateway"]["auth"] == {
        "type": "jupyterhub",
        "kwargs": {"api_token": GOOD},
    }
    assert stat.S_IMODE(run.file.stat().st_mode) == 0o600
    assert GOOD not in done.stdout + done.stderr
    assert [path.name for path in run.file.parent.iterdir()] == ["gateway.yaml"]
    assert asked == [f"token {GOOD}"]
    assert run("", "--check").returncode == 0


def test_the_file_is_its_users_alone_from_its_first_moment(tmp_path, monkeypatch):
    """Whatever the user's umask; looked at as soon as it is there, and before each thing that is done to it."""
    seen = []

    def looking(function):
        def call(*arguments, **options):
            answer = function(*arguments, **options)
            seen.extend(stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*") if path.is_file())
            return answer

        return call

    for name in ("open", "fdopen", "fchmod", "fsync"):
        monkeypatch.setattr(login.os, name, looking(getattr(os, name)))
    before = os.umask(0)
    try:
        login.write(tmp_path / "new/gateway.yaml", GOOD)
    finally:
        os.umask(before)
    seen.append(stat.S_IMODE((tmp_path / "new/gateway.yaml").stat().st_mode))
    assert len(seen) >= 5
    assert set(seen) == {0o600}
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700


def test_the_prompt_shows_nothing_of_the_token(run, tmp_path):
    """At a terminal: everything that comes back from it is read."""
    child, terminal = pty.fork()
    if child == 0:
        os.environ |= {"HOME": str(tmp_path), "DASK_ROOT_CONFIG": str(tmp_path / "etc"), "PYTHONPATH": str(SOURCES)}
        os.execv(sys.executable, [sys.executable, "-m", "dask_user_tools.login"])  # noqa: S606
    shown = b""
    try:
        while b"not shown" not in shown:
            shown += os.read(terminal, 1000)
        os.write(terminal, f"{GOOD}\n".encode())
        while chunk := os.read(terminal, 1000):
            shown += chunk
    except OSError:
        pass  # the other side has closed it
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, shown
    assert GOOD.encode() not in shown
    assert GOOD in run.file.read_text()


def test_a_token_that_the_gateway_refuses_changes_nothing_and_the_reason_is_told(run):
    run(f"{GOOD}\n")
    before = run.file.read_text()
    done = run("f" * 32)
    assert done.returncode == 1
    assert REFUSED in done.stderr
    assert "Nothing is changed" in done.stderr
    assert "f" * 32 not in done.stderr + done.stdout
    assert run.file.read_text() == before


@pytest.mark.parametrize("given", ["", "\n", "two words 0123456789", '"quoted0123456789"', "short"])
def test_what_is_no_token_is_not_sent_anywhere(run, given, asked):
    done = run(given)
    assert done.returncode == 1
    assert asked == []
    assert "Nothing is changed" in done.stderr or "nothing is changed" in done.stderr
    assert not run.file.exists()


def test_a_token_on_the_command_line_is_refused_and_not_repeated(run):
    done = run("", GOOD)
    assert done.returncode == 1
    assert "never an argument" in done.stderr
    assert GOOD not in done.stderr + done.stdout
    assert not run.file.exists()


@pytest.mark.parametrize(
    ("address", "sentence"),
    [("http://127.0.0.1:9", "can't be reached"), ("https://gateway.invalid", "is the name right")],
)
def test_a_gateway_that_does_not_answer_is_named(run, address, sentence):
    done = run(f"{GOOD}\n", "--address", address)
    assert done.returncode == 1
    assert sentence in done.stderr
    assert address in done.stderr


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("dask-gateway.site", "write https://dask-gateway.site."),
        ("dask-gateway.site:443", "write https://dask-gateway.site:443."),
        ("ftp://dask-gateway.site", "write https:// and its host's name."),
        ("https://", "write https:// and its host's name."),
        ("https://dask-gateway.site:port", "write https:// and its host's name."),
        ("https://dask-gateway.site /", "write https:// and its host's name."),
        ("http://dask-gateway.site", "unencrypted, and others could read it: write https://."),
        ("http://localhost.dask-gateway.site", "unencrypted"),
        ("http://127.0.0.1@dask-gateway.site", "unencrypted"),
    ],
)
@pytest.mark.parametrize("option", [[], ["--check"]])
def test_no_token_goes_to_what_is_no_address_or_without_encryption(run, address, sentence, option):
    run(f"{GOOD}\n")
    done = run("f" * 32, "--address", address, *option)
    assert done.returncode == 1
    assert address in done.stderr
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    assert GOOD in run.file.read_text()


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]"])
def test_a_gateway_on_this_host_needs_no_encryption(host):
    login.check_address(f"http://{host}:8000")
    login.check_address(f"https://{host}")


def test_a_token_in_the_environment_is_tried(run):
    run.file.parent.mkdir(parents=True)
    run.file.write_text("gateway: {auth: {kwargs: {api_token: '{A_TOKEN_OF_MINE}'}}}\n")
    assert run("", "--check", A_TOKEN_OF_MINE=GOOD).returncode == 0


@pytest.mark.parametrize(
    ("text", "named"), [("{A_TOKEN_OF_MINE}", True), (f"{{{GOOD}}}", False), ("{", False), ("{}", False)]
)
def test_a_token_that_is_not_in_the_environment_is_missed_and_none_is_shown(run, text, named):
    run.file.parent.mkdir(parents=True)
    run.file.write_text(f"gateway: {{auth: {{kwargs: {{api_token: '{text}'}}}}}}\n")
    done = run("", "--check")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "takes the token from the environment" in done.stderr
    assert ("as {A_TOKEN_OF_MINE}, and it is not there" in done.stderr) is named
    assert GOOD not in done.stderr


def test_what_stands_before_the_file_is_named(run):
    done = run(f"{GOOD}\n", DASK_GATEWAY__AUTH__KWARGS__API_TOKEN="another")
    assert done.returncode == 0
    assert "DASK_GATEWAY__AUTH__KWARGS__API_TOKEN stands before the file" in done.stdout


def test_an_open_file_is_closed_and_a_link_kept(run, tmp_path):
    real = tmp_path / "dotfiles.yaml"
    real.write_text("# mine\ngateway:\n  auth:\n    kwargs:\n      api_token: old12345678\n")
    real.chmod(0o644)
    run.file.parent.mkdir(parents=True)
    run.file.symlink_to(real)
    assert run(f"{GOOD}\n").returncode == 0
    assert run.file.is_symlink()
    assert real.read_text().startswith("# mine\n")
    assert stat.S_IMODE(real.stat().st_mode) == 0o600


def test_a_file_that_is_no_configuration_is_left_alone(run):
    run.file.parent.mkdir(parents=True)
    run.file.write_text("gateway: [broken\n")
    done = run(f"{GOOD}\n")
    assert done.returncode == 1
    assert "not YAML (line 2)" in done.stderr
    assert run.file.read_text() == "gateway: [broken\n"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# nothing yet",
        "distributed:\n  worker:\n    daemon: false  # why\n",
        "gateway:\n  address: https://x  # where\n# end\n",
        "gateway:\n    auth:\n        # why\n        kwargs:\n            api_token: 'old'\n        type: basic\n",
        "gateway: {auth: {type: jupyterhub, kwargs: {api_token: old}}, address: x}\n",
        "gateway: {}\n",
        "gateway:\n",
        "gateway:\n  auth:\n  address: x\nlast: 1",
        "gateway:\n  auth:\n    kwargs: null\n",
        "gateway:\n  auth:\n    kwargs:\n      api_token:\n",
        "{}",
    ],
)
def test_everything_else_in_the_file_stays(text):
    changed = with_values(text, {("gateway", "auth", "type"): "jupyterhub", PLACE: GOOD})
    auth = yaml.safe_load(changed)["gateway"]["auth"]
    assert (auth["type"], auth["kwargs"]) == ("jupyterhub", {"api_token": GOOD})
    comments = [line.partition("#")[2] for line in text.splitlines() if "#" in line]
    assert [line.partition("#")[2] for line in changed.splitlines() if "#" in line] == comments
    assert "old" not in changed


@pytest.mark.parametrize(
    "text", ["- a\n- b\n", "gateway: here\n", "gateway:\n  auth: [1]\n", "word", "a: 1\n---\nb: 2\n"]
)
def test_a_text_without_place_for_it_is_refused(text):
    with pytest.raises(EditError):
        with_values(text, {PLACE: GOOD})


def test_a_token_is_not_taken_along_to_another_address(run, gateway, asked):
    done = run(GOOD, "--address", f"{gateway}/moved")
    assert done.returncode == 1
    assert "answers with 301" in done.stderr
    assert len(asked) == 1
