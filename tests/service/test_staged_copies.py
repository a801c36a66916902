"""Releases on disks of hosts whose shared tree is slow: checked, mounted where the release is, and gone again."""

import json
import re

import pytest
import scenario

pytestmark = pytest.mark.long

ENVIRONMENTS, MODULES, COPIES = "/apps/jasmin/jaspy/envs", "/apps/jasmin/modulefiles", "/var/lib/jaspy"
PROGRAM = """
import dask_gateway
with dask_gateway.Gateway().new_cluster() as cluster, cluster.get_client() as client:
    cluster.scale(1)
    print(client.submit(lambda: open(__import__("numpy").__file__).name).result(timeout=120))
"""


def play(staged: bool) -> tuple[int, str]:
    done = scenario.playbook("jaspy", "-e", json.dumps({"jaspy_staged": staged}))
    return done.returncode, done.stdout


def loaded(module: str) -> str:
    """The file that a module is read from on node2, and the release that it loads."""
    return scenario.as_user("node2", "alice", f'module load {module}; echo "$_LMFILES_ $JASPY_RELEASE"').stdout.strip()


@pytest.fixture
def shared_again():
    yield
    play(staged=False)


@pytest.mark.usefixtures("no_clusters_left", "shared_again")
def test_hosts_read_checked_copies_of_the_releases_and_go_back(login_python):
    code, said = play(staged=True)
    assert code == 0, said[-3000:]
    node2 = scenario.host("node2")
    current = node2.check_output(f"basename $(readlink {ENVIRONMENTS}/jaspy3.11-v20261101)")
    there = f"{ENVIRONMENTS}/{current}"
    assert "ro" in node2.check_output(f"findmnt --noheadings --output OPTIONS {there}").split(",")
    assert f"[{COPIES}/{current}]" in node2.check_output(f"findmnt --noheadings --output SOURCE {there}")
    assert loaded("jaspy") == f"{COPIES}/modulefiles/jaspy/3.11/v20261101 jaspy3.11-v20261101"
    done = login_python("alice", PROGRAM)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(there)
    writable = f"find {COPIES} {there} -writable -not -type l -print -quit; touch {COPIES}/x {there}/x"
    refused = scenario.as_user("node2", "alice", writable)
    assert refused.stdout == ""
    assert re.findall("Permission denied|Read-only", refused.stderr)
    code, said = play(staged=True)
    assert (code, set(re.findall(r"changed=(\d+)", said))) == (0, {"0"}), said[-3000:]

    # As on a host that was down while the lists changed: what it does not know is found in the shared tree
    copy = f"{COPIES}/modulefiles/jaspy/3.11"
    node2.check_output(f"rm {copy}/v20260401; echo '# old' >> {copy}/v20261101; touch {copy}/v20240101")
    assert loaded("jaspy/3.11/v20260401") == f"{MODULES}/jaspy/3.11/v20260401 jaspy3.11-v20260401"

    # A file of the shared tree that is not what was packed
    archive = f"/apps/jasmin/jaspy/archives/{current}.tar"
    scenario.host("node1").check_output(f"printf x >> {archive}")
    node2.check_output(f"umount {there} && rm -r {COPIES}/{current}")
    code, said = play(staged=True)
    assert code != 0
    assert f"{archive} has the SHA-256" in " ".join(said.split())
    assert not node2.file(f"{COPIES}/{current}").exists
    node2.check_output(f"diff -r {COPIES}/modulefiles/jaspy {MODULES}/jaspy")
    assert scenario.as_user("node2", "alice", "module load jaspy; python -c 'import distributed'").returncode == 0
    scenario.host("node1").check_output(f"rm {archive}")
    assert play(staged=True)[0] == 0
    node2.check_output(f"findmnt {there}")

    code, said = play(staged=False)
    assert code == 0, said[-3000:]
    for name in ("node1", "node2", "login", "hub"):
        host = scenario.host(name)
        assert COPIES not in host.check_output(
            "cat /etc/fstab /proc/self/mountinfo /etc/environment-modules/modulespath"
        )
        assert host.check_output(f"ls {COPIES}") == ""
    assert node2.check_output("ls /apps/jasmin/jaspy/archives") == ""
