"""The snippet that users are given, where users run it."""

import re

import guide
import pytest
import scenario

_, *OLDER = scenario.offered_releases()


def test_the_snippet_computes_in_a_kernel_of_alices_notebook_server(alices_server):
    with alices_server.kernel("jaspy") as kernel:
        printed = kernel.run(scenario.render_example("first_cluster.py"), timeout=300)

    assert int(re.search(r"computed by (\d+) workers", printed)[1]) >= 2
    nothing_is_left_of("alice")


def test_the_snippet_computes_from_a_login_host_and_its_jobs_are_alices_on_the_nodes(login_python):
    watched = scenario.render_example("first_cluster.py").replace(
        "total = squares.sum().compute()",
        "total = squares.sum().compute()\n"
        "import subprocess\n"
        "print(subprocess.check_output(['squeue', '-h', '-o', '%j|%u|%T|%N|%Z'], text=True))",
    )

    done = login_python("alice", watched, timeout=300)

    assert done.returncode == 0, done.stderr
    jobs = [line.split("|") for line in done.stdout.splitlines() if line.startswith("dask-")]
    kinds = [re.match(r"dask-(scheduler|worker)-", name)[1] for name, *_ in jobs]
    assert kinds.count("scheduler") == 1
    assert kinds.count("worker") >= 2
    home = f"{scenario.site()['site_home_directory']}/alice"
    for name, user, state, node, folder in jobs:
        assert user == "alice", name
        assert state in ("RUNNING", "PENDING", "CONFIGURING", "COMPLETING"), name
        assert state != "RUNNING" or node in ("node1", "node2"), name
        assert folder.startswith(home), name
    nothing_is_left_of("alice")


@pytest.mark.parametrize("release", OLDER)
def test_the_snippet_computes_on_older_releases_with_one_option_more(login_python, release):
    snippet = scenario.render_example("first_cluster.py")
    of_release = snippet.replace("worker_cores = 2\n", f"worker_cores = 2\noptions.jaspy = {release!r}\n")
    assert of_release != snippet
    prefix = "lambda: __import__('sys').prefix"
    of_release = of_release.replace(
        "client.close()",
        f"print('on', {{client.run_on_scheduler({prefix}), *client.run({prefix}).values()}})\nclient.close()",
    )

    done = login_python("alice", of_release, timeout=300, module=scenario.jaspy_module(release))

    assert done.returncode == 0, done.stderr
    assert int(re.search(r"computed by (\d+) workers", done.stdout)[1]) >= 2
    assert re.search(rf"^on {{'/apps/jasmin/jaspy/envs/{release}-\w+'}}$", done.stdout, re.MULTILINE), done.stdout
    assert "version" not in done.stderr
    assert "preload" not in done.stderr
    nothing_is_left_of("alice")


def test_a_bare_gateway_call_works_in_a_notebook_and_ignores_a_stale_token_file(alices_server):
    """The home folder is shared: a login host's expired token must not stand before the notebook server's own."""
    scenario.put_file("login", "alice", "/home/users/alice/.config/dask/gateway.yaml", guide.gateway_yaml("0" * 32))
    with alices_server.kernel("jaspy") as kernel:
        assert kernel.run("import dask_gateway; print(dask_gateway.Gateway().list_clusters())") == "[]"


def test_a_token_file_that_others_can_read_is_named_with_the_command_to_mend_it(alice):
    token = alice.new_token(note="careless")
    path = "/home/users/alice/.config/dask/gateway.yaml"
    scenario.put_file("login", "alice", path, guide.gateway_yaml(token), mode="644")

    done = scenario.as_user("login", "alice", "module load jaspy && python -c 'import dask_gateway'")

    assert f"chmod 600 {path}" in done.stderr
    assert token not in done.stderr + done.stdout


def nothing_is_left_of(user: str) -> None:
    """Neither jobs in the queue nor anything but logs in the staging folders in the user's home."""
    scenario.wait_until(f"no job of {user} in the queue", lambda: not scenario.jobs_of(user), timeout=60)
    scenario.wait_until(
        f"no keys or other staged files of a cluster in {user}'s home",
        lambda: not scenario.staged_files_of(user),
        timeout=30,
    )
