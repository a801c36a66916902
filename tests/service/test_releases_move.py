"""A release comes, the default moves, an old one is retired and removed, and whoever computes goes on.

The release that comes is of conda packages: those of a local channel, because none can be reached here.
"""

import json
import subprocess

import pytest
import scenario

pytestmark = pytest.mark.long

NEW, CURRENT, OLD = "jaspy3.11-v20270101", "jaspy3.11-v20261101", "jaspy3.11-v20260401"
OLD_LOCK = str(scenario.REPOSITORY / f"molecule/shared/releases/{OLD}.txt")
CORE = ["dask", "distributed", "dask-gateway", "numpy", "lz4", "ipykernel"]

# Computes on the oldest release until it is told to stop, with one worker more when it is told to grow
PROGRAM = f"""
import pathlib, time, dask_gateway
with dask_gateway.Gateway().new_cluster(jaspy="{OLD}") as cluster, cluster.get_client() as client:
    count = 1
    cluster.scale(count)
    while not pathlib.Path("stop").exists():
        assert client.submit(sum, [20, 22], pure=False).result(timeout=120) == 42
        if pathlib.Path("grow").exists() and count == 1:
            count = 2
            cluster.scale(count)
        if count == 2 and len(client.scheduler_info()["workers"]) == 2:
            pathlib.Path("grown").touch()
        pathlib.Path("computed").touch()
        time.sleep(0.2)
print("computed to the end")
"""


ON_THE_NEWEST = """
import dask_gateway
with dask_gateway.Gateway().new_cluster() as cluster, cluster.get_client() as client:
    cluster.scale(1)
    print(client.submit(lambda: __import__("sys").prefix).result(timeout=120))
"""


def play(*books: str, releases: list[dict] | None = None, limit: str = "all") -> str:
    """Run playbooks as an operator who has changed the list; without one, as the inventory has it."""
    extra = ["-e", json.dumps({"site_jaspy_releases": releases})] if releases else []
    said = ""
    for book in books:
        done = scenario.playbook(book, "--limit", limit, *extra)
        assert done.returncode == 0, done.stdout[-4000:]
        said += done.stdout
    return said


def alice(command: str) -> str:
    done = scenario.as_user("login", "alice", command)
    return done.stdout + done.stderr


def conda_lock() -> str:
    """Make a channel of the oldest release's packages on the host that builds; the lock's path on this machine."""
    folder, lock = "/var/tmp/channel-of-releases", scenario.STATE / f"{NEW}.txt"
    node = f"{scenario.PREFIX}-node1"
    source = scenario.REPOSITORY / "tests/service/conda_channel.py"
    subprocess.run(["docker", "cp", "-q", source, f"{node}:/var/tmp/conda_channel.py"], check=True)
    packages = f"/apps/jasmin/jaspy/envs/{OLD}/lib/python3.11/site-packages"
    make = f"cd /var/tmp && python3 conda_channel.py {folder} {folder}.txt {packages} {' '.join(CORE)} pip"
    lock.write_text(scenario.host("node1").check_output(f"{make} && cat {folder}.txt") + "\n")
    return str(lock)


def there(name: str) -> bool:
    return alice(f"test -e {name} && rm -f {name} && echo yes").strip() == "yes"


@pytest.fixture
def the_list_as_it_was():
    yield
    alice("touch stop")
    play("jaspy", "gateway")


@pytest.mark.usefixtures("no_clusters_left", "the_list_as_it_was")
def test_a_release_comes_and_goes_and_whoever_computes_goes_on(token_file):
    token_file("alice")
    alice("rm -f stop grow grown computed")
    scenario.put_file("login", "alice", "/home/users/alice/on_the_oldest.py", PROGRAM)
    program = subprocess.Popen(
        ["docker", "exec", f"{scenario.PREFIX}-login", "runuser", "-l", "alice", "-c",
         "module load jaspy/3.11/v20260401; python on_the_oldest.py"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    scenario.wait_until("alice computes on the oldest release", lambda: there("computed"), 120)

    new = {"name": NEW, "provider": "conda", "lock": conda_lock(), "core": CORE}
    current = {"name": CURRENT, "lock": f"{CURRENT}.txt", "state": "supported"}
    old = {"name": OLD, "lock": OLD_LOCK, "core": CORE, "state": "supported", "retires": "2027-04-02"}
    play("jaspy", "gateway", releases=[new, current, old])
    assert NEW in alice("module load jaspy; echo $JASPY_RELEASE")
    assert f"{OLD} will be retired on 2027-04-02. Change to {NEW}" in alice("module load jaspy/3.11/v20260401")
    options = "import dask_gateway; print(dask_gateway.Gateway().cluster_options().jaspy)"
    assert alice(f"module load jaspy/3.11/v20261101; python -c '{options}'").split()[-1] == NEW
    scenario.wait_until("alice still computes", lambda: there("computed"), 30)
    scenario.put_file("login", "alice", "/home/users/alice/on_the_newest.py", ON_THE_NEWEST)
    assert f"/apps/jasmin/jaspy/envs/{NEW}-" in alice("module load jaspy; python on_the_newest.py").split()[-1]

    # Retired: nobody new, while her cluster can still grow
    retired = {"name": OLD, "state": "retired", "remove_after": "2020-01-01", "replaced_by": NEW}
    said = play("jaspy", "gateway", releases=[new, current, retired])
    assert f"because something runs from it; a later run removes it: {OLD}-" in " ".join(said.split())
    assert OLD in scenario.host("login").check_output("ls /apps/jasmin/jaspy/envs").split()
    assert f"{OLD} is retired; {NEW} has replaced it" in alice("module load jaspy/3.11/v20260401")
    alice("touch grow")
    scenario.wait_until("alice's cluster has grown", lambda: there("grown"), 120)

    alice("touch stop")
    printed, _ = program.communicate(timeout=120)
    assert "computed to the end" in printed, printed
    scenario.wait_until("no job of alice is left", lambda: not scenario.jobs_of("alice"))
    said = play("jaspy", limit="node1", releases=[new, current, retired])
    assert "this run did not ask all hosts what runs from it (hub, login, node2)" in " ".join(said.split())
    assert OLD in scenario.host("login").check_output("ls /apps/jasmin/jaspy/envs").split()
    play("jaspy", releases=[new, current, retired])
    assert OLD not in scenario.host("login").check_output("ls /apps/jasmin/jaspy/envs")
    assert f"{OLD} is retired; {NEW} has replaced it" in alice("module load jaspy/3.11/v20260401")
