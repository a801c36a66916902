"""Fixtures of the tests across the hosts. What they stand on is in scenario.py and hub_client.py."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator

import guide
import pytest
import scenario
from hub_client import HubUser, trusting

UNITS = {
    "hub": "jupyterhub.service jupyterhub-proxy.service nginx.service",
    "gateway": "dask-gateway.service dask-gateway-proxy.service nginx.service",
    "controller": "slurmctld.service slurmdbd.service",
    "node1": "slurmd.service",
    "node2": "slurmd.service",
}


def pytest_collection_modifyitems(items):
    """What is marked as long runs with ``script/test --all``, which sets DASK_SERVICE_ALL."""
    if os.environ.get("DASK_SERVICE_ALL"):
        return
    for item in items:
        if item.get_closest_marker("long"):
            item.add_marker(pytest.mark.skip(reason="takes long: set DASK_SERVICE_ALL, or run script/test --all"))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """A test that fails prints what the service's units said while it ran."""
    report = (yield).get_result()
    if call.when == "call":
        item.called = report
    if report.failed and call.when in ("setup", "call"):
        since = f"@{int(call.start)}"
        for host, units in UNITS.items():
            journal = subprocess.run(
                ["docker", "exec", f"{scenario.PREFIX}-{host}", "journalctl", "--no-pager", "-q", "-n", "60",
                 "--since", since, *(f"--unit={unit}" for unit in units.split())],
                capture_output=True, text=True, timeout=30,
            )  # fmt: skip
            if journal.stdout.strip():
                report.sections.append((f"journal of {host}", journal.stdout))


@pytest.fixture(scope="session")
def hub_url() -> str:
    return scenario.published_url("hub")


@pytest.fixture(scope="session")
def hub_user():
    """``hub_user("alice")``: that user, signed in to the Hub; anew where its host is another one since."""
    users: dict[str, HubUser] = {}

    def sign_in(name: str) -> HubUser:
        url = scenario.published_url("hub")
        if name not in users or users[name].url != url:
            user = HubUser(url, scenario.ca(), name, scenario.passwords()[name])
            user.sign_in()
            users[name] = user
        return users[name]

    return sign_in


@pytest.fixture(scope="session")
def alice(hub_user) -> HubUser:
    return hub_user("alice")


@pytest.fixture(scope="session")
def alice_and_her_server(alice) -> Iterator[HubUser]:
    """Alice; the server that tests have started for her ends with them."""
    yield alice
    alice.stop_server()


@pytest.fixture
def alices_server(alice_and_her_server) -> HubUser:
    """Alice with a running notebook server, the same for all tests unless one has stopped it."""
    alice_and_her_server.start_server()
    return alice_and_her_server


@pytest.fixture(scope="session")
def token_file(hub_user):
    """``token_file("alice")``: a token of that user, in the token file on the login host."""

    def write(name: str) -> str:
        token = hub_user(name).new_token(note="login host")
        scenario.put_file("login", name, f"/home/users/{name}/.config/dask/gateway.yaml", guide.gateway_yaml(token))
        return token

    return write


@pytest.fixture
def login_python(token_file):
    """``login_python("alice", code)``: run Python with jaspy as that user on the login host, token file in place."""
    written: set[str] = set()

    def run(user: str, code: str, timeout: float = 180, module: str = "jaspy") -> subprocess.CompletedProcess:
        if user not in written:
            token_file(user)
            written.add(user)
        scenario.put_file("login", user, f"/home/users/{user}/program.py", code)
        return scenario.as_user("login", user, f"module load {module} && python program.py", timeout)

    return run


@pytest.fixture
def new_cluster(login_python, no_clusters_left):
    """``new_cluster("alice")``: the name of a running cluster of that user, stopped after the test."""

    def run(user: str) -> str:
        code = "import dask_gateway; gw = dask_gateway.Gateway(auth='jupyterhub'); "
        done = login_python(user, code + "print(gw.new_cluster(shutdown_on_close=False).name)")
        assert done.returncode == 0, done.stderr
        return done.stdout.split()[-1]

    return run


@pytest.fixture
def no_clusters_left(hub_user):
    """After the test whatever clusters it left are stopped, so that the next one starts clean."""
    yield
    for name in ("alice", "carol"):
        gateway = trusting(scenario.ca())
        gateway.headers["Authorization"] = f"jupyterhub {hub_user(name).new_token(note='cleaning up')}"
        clusters = scenario.published_url("gateway") + "/api/v1/clusters/"
        for cluster in gateway.get(clusters, timeout=30).json():
            gateway.delete(clusters + cluster, timeout=30).raise_for_status()
        scenario.wait_until(f"no job of {name} is left", lambda user=name: not scenario.jobs_of(user))


@pytest.fixture
def key(tmp_path):
    """A file of variables with the public key for backups."""
    public = scenario.backup_keys(tmp_path)["backup_recipients"]
    (tmp_path / "backup.json").write_text(json.dumps({"backup_recipients": public}))
    return f"@{tmp_path / 'backup.json'}"


@pytest.fixture
def release(tmp_path):
    """A copy of the working tree that a test may change, with the copy of the service it runs against."""
    folder = tmp_path / "release"
    files = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=scenario.REPOSITORY, capture_output=True, text=True, check=True,
    ).stdout.split("\0")  # fmt: skip
    for name in filter(None, files):
        source = scenario.REPOSITORY / name
        if source.is_file() or source.is_symlink():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, folder / name, follow_symlinks=False)
    (folder / ".state").symlink_to(scenario.REPOSITORY / ".state")
    return folder
