"""The same modulefiles under Lmod, in a container beside the hosts: its package takes environment-modules' place."""

import re
import subprocess

import pytest
import scenario

CURRENT, SUPPORTED, RETIRED = "jaspy3.11-v20261101", "jaspy3.11-v20260401", "jaspy3.11-v20251001"

# Lmod's own tables of what is loaded are not there before; the loaded modules' are empty after
LOADED_AND_UNLOADED = """
state() { export -p | grep -vE '^declare -x (_ModuleTable|__LMOD_REF_COUNT|LMOD_|_LMFILES_=""|LOADEDMODULES="")'; }
before=$(state)
module load jaspy || exit 3
[ "$(state)" != "$before" ] || exit 4
module unload jaspy || exit 5
diff <(echo "$before") <(state)
"""


@pytest.fixture(scope="module")
def lmod():
    """``lmod("module load jaspy")``: what bash says to that on a host that has Lmod and the shared tree."""
    node, name = f"{scenario.PREFIX}-node1", f"{scenario.PREFIX}-lmod"
    inspect = ["docker", "inspect", "--format", "{{.Config.Image}}", node]
    image = subprocess.run(inspect, capture_output=True, text=True, check=True).stdout.strip()
    subprocess.run(["docker", "rm", "--force", name], capture_output=True)
    start = ["docker", "run", "--detach", "--rm", "--name", name, "--volumes-from", f"{node}:ro"]
    subprocess.run([*start, image, "sleep", "900"], check=True, capture_output=True)
    try:
        # A mirror can fail once and answer the next time
        packages = (
            "for n in 1 2 3; do apt-get -qq update && apt-get -qq install --no-install-recommends lmod && break; done"
        )
        call = ["docker", "exec", "--env", "DEBIAN_FRONTEND=noninteractive", name, "sh", "-c", packages]
        done = subprocess.run(call, capture_output=True, text=True, timeout=180)
        assert done.returncode == 0, done.stdout + done.stderr

        def run(command: str) -> subprocess.CompletedProcess:
            setup = f"module use {scenario.site()['site_software_directory']}/modulefiles\n"
            script = [name, "bash", "-lc", f"type module >/dev/null || . /etc/profile.d/lmod.sh\n{setup}{command}"]
            return subprocess.run(["docker", "exec", *script], capture_output=True, text=True, timeout=60)

        yield run
    finally:
        subprocess.run(["docker", "rm", "--force", name], capture_output=True)


def test_lmod_loads_each_name_and_warns_of_what_goes(lmod):
    assert "Modules based on Lua" in lmod("module --version").stderr
    for name, release in [
        ("jaspy", CURRENT),
        ("jaspy/3.11", CURRENT),
        ("jaspy/3.11/v20261101", CURRENT),
        ("jaspy/3.11/v20260401", SUPPORTED),
    ]:
        done = lmod(f"module load {name} && echo $JASPY_RELEASE && command -v dask")
        assert done.returncode == 0, done.stderr
        loaded, dask = done.stdout.split()
        assert loaded == release
        assert re.fullmatch(rf"/apps/jasmin/jaspy/envs/{release}-[0-9a-f]{{12}}/bin/dask", dask)
        assert ("will be retired on 2027-04-01" in done.stderr) == (release == SUPPORTED)


def test_lmod_refuses_a_retired_release_with_the_one_that_replaced_it(lmod):
    done = lmod("module load jaspy/3.11/v20251001 || exit 7")
    assert done.returncode == 7
    assert f"{RETIRED} is retired; {CURRENT} has replaced it" in " ".join(done.stderr.split())


def test_lmod_restores_a_shell_and_tells_what_a_module_is(lmod):
    done = lmod(LOADED_AND_UNLOADED)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr
    told = lmod("module -t avail jaspy; module whatis jaspy; module help jaspy/3.11/v20260401").stderr
    assert "jaspy/3.11/v20261101" in told
    assert "(the default)" in told
    assert re.search(r"^ +distributed 2026\.3\.0$", told, re.MULTILINE)
    both = lmod("module load jaspy; module load jaspy/3.11/v20260401; echo $JASPY_RELEASE")
    assert len(both.stdout.split()) == 1
