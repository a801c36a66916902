"""Hosts that share no software tree: each builds the releases for itself, and takes nothing from the others' tree."""

import json
import re

import pytest
import scenario

pytestmark = pytest.mark.long

SHARED, OWN, SEARCH_PATH = "/apps/jasmin", "/srv/own-software", "/etc/environment-modules/modulespath"
ALONE = ("login", "node2")
PROGRAM = """
import dask_gateway, sys
with dask_gateway.Gateway().new_cluster() as cluster, cluster.get_client() as client:
    cluster.scale(1)
    print("here", sys.prefix)
    print("there", client.submit(lambda: __import__("sys").prefix).result(timeout=120))
"""


def play() -> tuple[int, str]:
    own = {
        "jaspy_shared_tree": False,
        "site_jaspy_directory": f"{OWN}/jaspy",
        "jaspy_modulefiles_directory": f"{OWN}/modulefiles",
    }
    done = scenario.playbook("jaspy", "--limit", ":".join(ALONE), "-e", json.dumps(own))
    return done.returncode, done.stdout


def shared_tree() -> str:
    """Names, kinds, rights, times and links of all there is in the shared tree."""
    listing = f"find {SHARED} -printf '%p %y %m %u %T@ %l\\n' | sort | sha256sum"
    return scenario.host("node1").check_output(listing)


@pytest.fixture
def without_the_shared_tree():
    """Two hosts without the modules of the shared tree, which they get back."""
    for name in ALONE:
        scenario.host(name).check_output(
            f"rm -rf {OWN}; cp -p {SEARCH_PATH} {SEARCH_PATH}.before; sed -i '\\|^{SHARED}/|d' {SEARCH_PATH}"
        )
    yield
    for name in ALONE:
        scenario.host(name).check_output(f"mv {SEARCH_PATH}.before {SEARCH_PATH}; rm -rf {OWN}")


@pytest.mark.usefixtures("without_the_shared_tree", "no_clusters_left")
def test_hosts_without_the_shared_tree_build_their_own_and_leave_that_one_alone(login_python):
    before = shared_tree()
    code, said = play()
    assert code == 0, said[-3000:]

    for name in ALONE:
        for release in scenario.offered_releases():
            find = f'module load {scenario.jaspy_module(release)}; readlink -f "$(command -v dask)"; echo "$_LMFILES_"'
            dask, module = scenario.as_user(name, "alice", find).stdout.split()
            assert re.fullmatch(rf"{OWN}/jaspy/envs/{release}-[0-9a-f]{{12}}/bin/dask", dask)
            assert module == f"{OWN}/modulefiles/{scenario.jaspy_module(release)}"
    done = login_python("alice", PROGRAM)
    assert done.returncode == 0, done.stderr
    default = scenario.offered_releases()[0]
    assert re.search(rf"^here {OWN}/jaspy/envs/{default}-", done.stdout, re.MULTILINE), done.stdout
    assert re.search(rf"^there ({OWN}|{SHARED})/jaspy/envs/{default}-", done.stdout, re.MULTILINE), done.stdout
    assert "version" not in done.stderr
    code, said = play()
    assert (code, set(re.findall(r"changed=(\d+)", said))) == (0, {"0"}), said[-3000:]

    assert shared_tree() == before
    loaded = scenario.as_user("node1", "alice", 'module load jaspy; readlink -f "$(command -v dask)"').stdout
    assert loaded.startswith(f"{SHARED}/jaspy/envs/{default}-")
