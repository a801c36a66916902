"""Users' own environments, made by the steps that their guide tells them, word by word."""

import os
import subprocess

import guide
import pytest
import scenario

# Several minutes of pip
at_full_length = pytest.mark.skipif(not os.environ.get("DASK_SERVICE_ALL"), reason="set DASK_SERVICE_ALL, or run --all")

PROGRAM = """
import importlib, sys
import dask_gateway
gw = dask_gateway.Gateway()
options = gw.cluster_options()
{setup}
with gw.new_cluster(options) as cluster, cluster.get_client() as client:
    cluster.scale(1)
    print("worker", client.submit(lambda: __import__("sys").prefix).result(timeout=150))
    print("answer", client.submit(lambda: __import__({module!r}).__name__).result(timeout=60))
    versions = client.get_versions(check=True)
"""


def follow(heading: str, **values: str) -> None:
    """Type what the guide says on the login host."""
    for number, block in enumerate(guide.steps(heading, "sh", "alice", **values)):
        scenario.put_file("login", "alice", "/home/users/alice/step.sh", f"set -e\n{block}")
        done = scenario.as_user("login", "alice", "bash -l step.sh", 600)
        assert done.returncode == 0, f"step {number} of {heading!r}:\n{block}{done.stdout}{done.stderr}"


def setup_line(heading: str) -> str:
    (line,) = guide.steps(heading, "python", "alice")
    return line


def compute(environment: str, setup: str, module: str) -> str:
    """Compute from an environment on the login host with the workers' setup that the guide tells."""
    scenario.put_file("login", "alice", "/home/users/alice/mine.py", PROGRAM.format(setup=setup, module=module))
    done = scenario.as_user("login", "alice", f"source ~/{environment}/bin/activate; python mine.py", 240)
    assert done.returncode == 0, done.stderr
    assert "Mismatched" not in done.stderr
    return done.stdout


@pytest.fixture(autouse=True)
def homes_without_environments():
    folders = (
        "~/my-env ~/own-env ~/batch-env ~/conda-tool ~/conda-env ~/versions.txt ~/.local/share/jupyter/kernels/my-env"
    )
    scenario.as_user("login", "alice", f"rm -rf {folders}")
    yield
    scenario.as_user("login", "alice", f"rm -rf {folders}")


@pytest.mark.usefixtures("no_clusters_left")
def test_an_environment_over_jaspy_serves_login_host_workers_and_notebooks(token_file, alices_server):
    token_file("alice")
    follow("Over jaspy")

    setup = setup_line("Over jaspy")
    assert "source /home/users/alice/my-env/bin/activate" in setup
    printed = compute("my-env", setup, "humanize")
    assert "worker /home/users/alice/my-env" in printed
    assert "answer humanize" in printed
    with alices_server.kernel("my-env") as kernel:
        assert kernel.run("import sys, humanize, dask_gateway; print(sys.prefix)") == "/home/users/alice/my-env"


@at_full_length
@pytest.mark.usefixtures("no_clusters_left")
def test_an_environment_of_ones_own_and_a_second_one_with_its_versions(token_file):
    token_file("alice")
    follow("Self-contained")
    own = setup_line("Over jaspy").replace("my-env", "own-env")
    assert "worker /home/users/alice/own-env" in compute("own-env", own, "lz4")

    check = "module load jaspy; dask-env-check --python ~/own-env/bin/python"
    assert "Fit for the gateway" in scenario.as_user("login", "alice", check).stdout

    follow("Two environments with the same versions")
    batch = setup_line("Two environments with the same versions")
    assert "worker /home/users/alice/batch-env" in compute("own-env", batch, "lz4")


@at_full_length
@pytest.mark.usefixtures("no_clusters_left")
def test_an_environment_of_conda_packages_serves_login_host_and_workers(token_file):
    """From a channel on the login host, with what the current release has, because no other can be reached here."""
    token_file("alice")
    node, folder = scenario.host("login"), "/var/tmp/channel"
    make = scenario.REPOSITORY / "tests/service/conda_channel.py"
    subprocess.run(["docker", "cp", "-q", make, f"{scenario.PREFIX}-login:/var/tmp/"], check=True)
    packages = "/apps/jasmin/jaspy/default/lib/python3.11/site-packages"
    names = "dask distributed dask-gateway lz4 ipykernel"
    node.check_output(
        f"cd /var/tmp; rm -rf {folder}; python3 conda_channel.py {folder} {folder}.txt {packages} {names}"
    )
    try:
        follow("Of conda packages", site_conda_channel=f"file://{folder}")
        printed = compute("conda-env", setup_line("Of conda packages"), "lz4")
        assert "worker /home/users/alice/conda-env" in printed
        check = "module load jaspy; dask-env-check --python ~/conda-env/bin/python"
        assert "Fit for the gateway" in scenario.as_user("login", "alice", check).stdout
    finally:
        node.run(f"rm -rf {folder} {folder}.txt /var/tmp/conda_channel.py")
