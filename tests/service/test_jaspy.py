"""The software environments: modules, releases side by side, and what is told when versions do not fit."""

import json
import re

import pytest
import scenario

CURRENT, SUPPORTED, RETIRED = "jaspy3.11-v20261101", "jaspy3.11-v20260401", "jaspy3.11-v20251001"

# What a user's shell is before and after: everything that is exported, and functions and aliases. The module command's
# own list of what is loaded is empty before and not there after, which is the same.
LOADED_AND_UNLOADED = """
state() { export -p | grep -vx 'declare -x LOADEDMODULES=""'; declare -f | grep -v '^state'; alias; }
before=$(state)
module load jaspy || exit 3
[ "$(state)" != "$before" ] || exit 4
python -c 'import sys; print(sys.prefix)'
module unload jaspy || exit 5
diff <(echo "$before") <(state)
"""


def in_bash(command: str, shell: str = "bash -l", host: str = "login", user: str = "alice"):
    scenario.put_file(host, user, f"/home/users/{user}/script.sh", command)
    return scenario.as_user(host, user, f"{shell} script.sh")


def module_load(name: str, then: str = 'echo "$JASPY_RELEASE"'):
    return in_bash(f"module load {name} || exit 1; {then}")


@pytest.mark.parametrize(
    ("name", "release"),
    [
        ("jaspy", CURRENT),
        ("jaspy/3.11", CURRENT),
        ("jaspy/3.11/v20261101", CURRENT),
        ("jaspy/3.11/v20260401", SUPPORTED),
    ],
)
def test_each_name_of_a_module_loads_its_release(name, release):
    done = module_load(name, 'echo "$JASPY_RELEASE"; readlink -f "$(command -v dask)"')
    assert done.returncode == 0, done.stderr
    loaded, dask = done.stdout.split()
    assert loaded == release
    assert re.fullmatch(rf"/apps/jasmin/jaspy/envs/{release}-[0-9a-f]{{12}}/bin/dask", dask)
    assert ("will be retired on 2027-04-01" in done.stderr) == (release == SUPPORTED)


def test_the_name_of_a_retired_release_fails_with_the_one_that_replaced_it():
    done = module_load("jaspy/3.11/v20251001")
    assert done.returncode == 1
    assert f"{RETIRED} is retired; {CURRENT} has replaced it: module load jaspy/3.11/v20261101" in done.stderr


def test_modules_tell_what_they_are_and_exclude_each_other():
    told = in_bash("module -t avail jaspy; module whatis jaspy; module help jaspy/3.11/v20260401").stderr
    assert "v20261101(default)" in told
    assert "(the default)" in told
    assert "(supported, until 2027-04-01)" in told
    assert re.search(r"^ +distributed 2026\.3\.0$", told, re.MULTILINE)
    assert f"support@{scenario.site()['site_domain']}" in told
    both = in_bash("module load jaspy; module load jaspy/3.11/v20260401; echo $JASPY_RELEASE")
    assert both.stdout.split() == [CURRENT]
    assert "onflict" in both.stderr


@pytest.mark.parametrize("shell", ["bash -l", "bash -c '. /etc/profile.d/modules.sh; . ./script.sh' #"])
def test_unloading_leaves_a_shell_as_it_was(shell):
    done = in_bash(LOADED_AND_UNLOADED, shell)
    assert (done.returncode, done.stdout.splitlines()[1:]) == (0, []), done.stdout + done.stderr


def test_unloading_leaves_the_shell_of_a_job_as_it_was():
    scenario.put_file("login", "alice", "/home/users/alice/job.sh", f"#!/bin/bash -l\n{LOADED_AND_UNLOADED}")
    done = scenario.as_user(
        "login", "alice", "rm -f job.out; sbatch --wait --mem=200 --output=job.out job.sh; cat job.out"
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"^/apps/jasmin/jaspy/envs/jaspy3\.11-v20261101-\w+$", done.stdout.split("\n", 1)[1].strip()), (
        done.stdout
    )


def test_a_user_can_write_nowhere_in_the_tree():
    done = scenario.as_user(
        "login", "alice", "find /apps/jasmin/ -writable -not -type l -print -quit; touch /apps/jasmin/x"
    )
    assert done.stdout == ""
    assert "Permission denied" in done.stderr


SNIPPET = """
import json, sys, warnings
import dask_gateway, distributed
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    with dask_gateway.Gateway() as gateway, gateway.new_cluster(**json.loads(sys.argv[1])) as cluster:
        cluster.scale(1)
        for _ in range(2):
            with cluster.get_client() as client:
                client.wait_for_workers(1, timeout=120)
                there = client.run_on_scheduler(lambda: __import__("sys").prefix)
                assert client.submit(sum, [20, 22]).result(timeout=60) == 42
        if len(sys.argv) > 2:
            from dask_user_tools import env_check
            print("exit code", env_check.main([cluster.name]))
print("scheduler", there)
for one in caught:
    if "versions" in str(one.message):
        print("warning", type(one.message).__name__, str(one.message).replace("\\n", " "))
"""


def compute(token_file, module: str, environment: str = "", *arguments: str, **options):
    """Run the snippet in a release, with the cluster's options."""
    token_file("alice")
    scenario.put_file("login", "alice", "/home/users/alice/snippet.py", SNIPPET)
    words = " ".join([f"'{json.dumps(options)}'", *arguments])
    return scenario.as_user("login", "alice", f"module load {module}; {environment} python snippet.py {words}", 240)


@pytest.mark.usefixtures("no_clusters_left")
def test_a_cluster_of_another_release_is_told_once_and_named_by_the_check(token_file):
    done = compute(token_file, "jaspy", "", "check", jaspy=SUPPORTED)
    assert done.returncode == 0, done.stderr
    warnings = [line for line in done.stdout.splitlines() if line.startswith("warning")]
    assert len(warnings) == 1, done.stdout
    assert "distributed 2026.8.0 here and 2026.3.0 there" in warnings[0]
    assert f'new_cluster(jaspy="{CURRENT}")' in warnings[0]
    rows = [line.split() for line in done.stdout.splitlines()]
    first = rows[rows.index(["package", "here", "scheduler", "workers"]) + 1]
    assert first == ["distributed", "2026.8.0", "2026.3.0", "2026.3.0"]
    assert "exit code 1" in done.stdout


@pytest.mark.usefixtures("no_clusters_left")
def test_the_warning_can_be_switched_off_and_a_retired_release_names_its_replacement(token_file):
    off = "DASK_DASK_USER_TOOLS__VERSION_WARNING=False"
    done = compute(token_file, "jaspy", off, jaspy=RETIRED)
    assert f"{RETIRED} is retired; {CURRENT} has replaced it" in done.stderr
    done = compute(token_file, "jaspy", off, jaspy=SUPPORTED)
    assert done.returncode == 0, done.stderr
    assert "VersionWarning" not in done.stdout


IN_A_CELL = """
for _ in range(2):
    with cluster.get_client() as client:
        client.scheduler_info()
"""


@pytest.mark.usefixtures("no_clusters_left")
def test_a_kernel_tells_of_another_release_once_and_not_at_all_when_that_is_switched_off(alices_server):
    off = "import dask; dask.config.set({'dask-user-tools.version-warning': False})\n"
    connect = "import dask_gateway; cluster = dask_gateway.Gateway().connect({!r})\n"
    read: list[str] = []
    with alices_server.kernel("jaspy") as kernel:
        code = "import dask_gateway; cluster = dask_gateway.Gateway().new_cluster(jaspy={!r}, shutdown_on_close=False)"
        name = kernel.run(f"{code.format(SUPPORTED)}; print(cluster.name)")
        kernel.run(IN_A_CELL, show=read.append)
        kernel.run(IN_A_CELL, show=read.append)
    shown = "".join(read)
    assert shown.count("VersionWarning") == 1, shown
    assert "distributed 2026.8.0 here and 2026.3.0 there" in shown
    assert f'new_cluster(jaspy="{CURRENT}")' in shown
    assert "Mismatched" not in shown

    read.clear()
    with alices_server.kernel("jaspy") as kernel:
        kernel.run(off + connect.format(name) + IN_A_CELL, show=read.append)
    shown = "".join(read)
    assert "VersionWarning" not in shown
    assert "Mismatched versions found" in shown  # distributed's own table instead


TOO_FAR = """
import time, warnings, dask_gateway
setup = "case $SLURM_JOB_NAME in dask-worker*) module load jaspy/3.11/v20260401;; *) module load jaspy;; esac"
with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    cluster = dask_gateway.Gateway().new_cluster(worker_setup=setup)
    client = cluster.get_client()
    cluster.scale(1)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not any("did not come up" in str(one.message) for one in told):
        time.sleep(0.1)
    cluster.shutdown()
for one in told:
    print(one.message)
"""


@pytest.mark.usefixtures("no_clusters_left")
def test_a_worker_too_far_from_its_scheduler_ends_at_once_where_its_user_sees_it(login_python):
    done = login_python("alice", TOO_FAR)
    assert "too far from its scheduler's (distributed 2026.3.0 here and 2026.8.0 there)" in done.stdout, done.stderr


def test_an_environment_is_checked_without_a_cluster(token_file):
    token_file("alice")
    check = "module load jaspy; dask-env-check --no-cluster && python -m dask_user_tools.env_check"
    done = scenario.as_user("login", "alice", check)
    assert (done.returncode, done.stdout.count("Fit for the gateway")) == (0, 2), done.stdout + done.stderr
    assert "You have no running cluster" in done.stdout
    done = scenario.as_user("login", "alice", "module load jaspy; dask-env-check --python /usr/bin/python3")
    assert done.returncode == 1
    assert "Missing: dask, distributed, dask-gateway, lz4" in done.stdout


def test_notebooks_have_the_same_releases(alices_server):
    with alices_server.kernel(SUPPORTED) as kernel:
        assert kernel.run("import distributed; print(distributed.__version__)") == "2026.3.0"
    with alices_server.kernel("jaspy") as kernel:
        assert CURRENT in kernel.run("import sys; print(sys.prefix)")
