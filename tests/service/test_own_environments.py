"""Users' own environments, made by the steps that their guide tells them, word by word."""

import subprocess

import guide
import pytest
import scenario

# Several minutes of pip
at_full_length = pytest.mark.long

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


def type_in(block: str, host: str = "login", home: str = "/home/users/alice", setup: str = "") -> None:
    """Type a block of the guide on a host; elsewhere than at home for what the batch cluster is not to see."""
    scenario.put_file(host, "alice", f"{home}/step.sh", f"set -e\n{block}")
    done = scenario.as_user(host, "alice", f"cd {home} && export HOME={home} {setup} && bash -l step.sh", 600)
    assert done.returncode == 0, f"{host}:\n{block}{done.stdout}{done.stderr}"


def follow(heading: str, **values: str) -> None:
    """Type what the guide says on the login host."""
    for block in guide.steps(heading, "sh", "alice", **values):
        type_in(block)


def kernel_step(environment: str) -> str:
    """What the guide says for the kernel of another environment than the one over jaspy."""
    *_, block = guide.steps("Over jaspy", "sh", "alice")
    assert "ipykernel install" in block
    return block.replace("my-env", environment)


def compute_in_notebook(server, environment: str, setup: str, module: str) -> str:
    """Compute from the kernel of an environment."""
    with server.kernel(environment) as kernel:
        said = []
        prefix = kernel.run("import sys; print(sys.prefix)")
        printed = kernel.run(PROGRAM.format(setup=setup, module=module), 240, said.append)
    assert "Mismatched" not in "".join(said)
    return f"kernel {prefix}\n{printed}"


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
    names = "my-env own-env batch-env conda-tool conda-env"
    kernels = " ".join(f"~/.local/share/jupyter/kernels/{name}" for name in names.split())
    remove = f"cd && rm -rf {names} versions.txt {kernels}"
    scenario.as_user("login", "alice", remove)
    yield
    scenario.as_user("login", "alice", remove)


@pytest.mark.usefixtures("no_clusters_left")
def test_an_environment_over_jaspy_serves_login_host_workers_and_notebooks(token_file, alices_server):
    token_file("alice")
    follow("Over jaspy")

    setup = setup_line("Over jaspy")
    assert "source /home/users/alice/my-env/bin/activate" in setup
    printed = compute("my-env", setup, "humanize")
    assert "worker /home/users/alice/my-env" in printed
    assert "answer humanize" in printed
    printed = compute_in_notebook(alices_server, "my-env", setup, "humanize")
    assert "kernel /home/users/alice/my-env" in printed
    assert "worker /home/users/alice/my-env" in printed
    assert "answer humanize" in printed


@pytest.mark.long
@pytest.mark.usefixtures("no_clusters_left")
def test_an_environment_of_ones_own(token_file):
    token_file("alice")
    follow("Self-contained")
    own = setup_line("Over jaspy").replace("my-env", "own-env")
    assert "worker /home/users/alice/own-env" in compute("own-env", own, "lz4")

    check = "module load jaspy; dask-env-check --python ~/own-env/bin/python"
    assert "Fit for the gateway" in scenario.as_user("login", "alice", check).stdout


@pytest.fixture
def home_that_only_notebooks_see():
    """A home folder on the Hub's own disk, as of a notebook service that shares nothing with the batch cluster."""
    folder, hub = "/srv/home-of-notebooks", scenario.host("hub")
    hub.check_output(f"rm -rf {folder} && install -d -o alice -m 700 {folder}")
    yield folder
    hub.check_output(f"rm -rf {folder}")


@pytest.mark.long
@pytest.mark.usefixtures("no_clusters_left")
def test_two_environments_with_the_same_versions_serve_a_notebook_that_the_nodes_do_not_see(
    alices_server, home_that_only_notebooks_see
):
    there, heading = home_that_only_notebooks_see, "Two environments with the same versions"
    for block in guide.steps("Self-contained", "sh", "alice"):
        type_in(block, "hub", there)
    # Where her server looks for kernels
    type_in(kernel_step("own-env"), "hub", there, "JUPYTER_DATA_DIR=/home/users/alice/.local/share/jupyter")
    first, second = guide.steps(heading, "sh", "alice")
    type_in(first, "hub", there)
    versions = scenario.as_user("hub", "alice", f"cat {there}/versions.txt").stdout
    assert "dask-gateway==" in versions
    scenario.put_file("login", "alice", "/home/users/alice/versions.txt", versions)
    type_in(second)

    printed = compute_in_notebook(alices_server, "own-env", setup_line(heading), "lz4")
    assert f"kernel {there}/own-env" in printed
    assert "worker /home/users/alice/batch-env" in printed
    assert not scenario.host("node1").file(there).exists


@pytest.mark.long
@pytest.mark.usefixtures("no_clusters_left")
def test_an_environment_of_conda_packages_serves_login_host_workers_and_notebooks(token_file, alices_server):
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
        type_in(kernel_step("conda-env"))
        printed = compute_in_notebook(alices_server, "conda-env", setup_line("Of conda packages"), "lz4")
        assert "kernel /home/users/alice/conda-env" in printed
        assert "worker /home/users/alice/conda-env" in printed
    finally:
        node.run(f"rm -rf {folder} {folder}.txt /var/tmp/conda_channel.py")
