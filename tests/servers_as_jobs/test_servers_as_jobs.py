"""Users' notebook servers as jobs of the batch cluster; in one order, as one server serves most of them."""

import json
import re
import shlex
import time
from contextlib import contextmanager, suppress

import pytest
import requests
import scenario
from browser import Person, chromium, first_notebook, run_cell, screenshot
from hub_client import trusting
from hub_settings import hub_with

HOME = scenario.site()["site_home_directory"]
FOLDER = f"{HOME}/alice/.notebook-server"


def servers_of(user: str) -> list[dict[str, str]]:
    """The user's jobs that are notebook servers and have not ended, as the controller tells them."""
    fields = "%i|%j|%u|%T|%N|%l|%C|%m"
    names = ("id", "name", "user", "state", "node", "limit", "cores", "memory")
    out = scenario.host("controller").check_output("squeue --noheader --user %s --format %s", user, fields)
    jobs = [dict(zip(names, line.strip().split("|"), strict=True)) for line in out.splitlines() if line.strip()]
    return [job for job in jobs if job["name"].startswith("notebook-server") and job["state"] != "COMPLETING"]


def the_server(user: str) -> dict[str, str]:
    (job,) = servers_of(user)
    return job


def start(user, profile: str, seen=lambda message: None) -> None:
    """Start a server of a profile, as the page does; each thing that the page says is `seen`."""
    path = f"{user.url}/hub/api/users/{user.name}/server"
    answer = user.api.post(path, json={"profile": profile}, timeout=60)
    if answer.status_code >= 400:
        raise RuntimeError(answer.json()["message"])
    if answer.status_code == 201:
        return
    with user.api.get(f"{path}/progress", stream=True, timeout=150) as events:
        for line in events.iter_lines(decode_unicode=True):
            event = json.loads(line[5:]) if line.startswith("data:") else {}
            if event.get("failed"):
                raise RuntimeError(event["message"])
            if event.get("ready"):
                return
            seen(event.get("message", ""))
    raise AssertionError("the page says neither that the server is ready nor that it failed")


def address_of(server) -> tuple[str, int]:
    """Where the server listens, as a kernel of it tells."""
    with server.kernel() as kernel:
        out = kernel.run(
            "import os, socket; from urllib.parse import urlsplit\n"
            "print(socket.gethostname(), urlsplit(os.environ['JUPYTERHUB_SERVICE_URL']).port)"
        )
    node, port = out.split()
    return node, int(port)


ASK = """
import ssl, sys, urllib.error, urllib.request
url, token, trusting = sys.argv[1:]
context = ssl.create_default_context(cafile=trusting) if trusting else ssl._create_unverified_context()
try:
    request = urllib.request.Request(url, headers={"Authorization": token} if token else {})
    print(urllib.request.urlopen(request, context=context, timeout=20).status)
except urllib.error.HTTPError as error:
    print(error.code)
except Exception:
    print("no answer")
"""


def asked_by_bob(host: str, url: str, token: str = "", trusting: str = "") -> str:
    """The status of an answer that bob gets on a host; without `trusting`, he takes any certificate."""
    call = shlex.join(["/usr/bin/python3", "-c", ASK, url, token, trusting])
    return scenario.as_user(host, "bob", call).stdout.strip()


@pytest.fixture
def carol(hub_user):
    user = hub_user("carol")
    user.stop_server()
    yield user
    user.stop_server()


@contextmanager
def no_free_nodes():
    """``with no_free_nodes() as end_it``: no job starts before `end_it` is called."""
    controller = scenario.host("controller")
    drained = []

    def end_it() -> None:
        while drained:
            controller.check_output(f"scontrol update nodename={drained.pop()} state=resume")

    for node in ("node1", "node2"):
        controller.check_output(f"scontrol update nodename={node} state=drain reason=test")
        drained.append(node)
    try:
        yield end_it
    finally:
        end_it()


def test_alices_server_is_a_job_of_hers_on_a_node_and_her_kernel_computes(alices_server):
    job = the_server("alice")
    assert (job["user"], job["state"], job["limit"], job["cores"], job["memory"]) == (
        "alice", "RUNNING", "1:00:00", "1", "800M",
    )  # fmt: skip
    assert job["node"] in ("node1", "node2")
    with alices_server.kernel() as kernel:
        printed = kernel.run("import getpass, socket; print(socket.gethostname(), getpass.getuser(), 5 * 4)")
        assert printed == f"{job['node']} alice 20"
    # Nothing of hers runs on the Hub's host any more
    assert scenario.host("hub").run("pgrep -u alice").stdout == ""


def test_the_snippet_computes_in_a_kernel_and_knows_who_she_is_by_itself(alices_server):
    with alices_server.kernel("jaspy") as kernel:
        printed = kernel.run(scenario.render_example("first_cluster.py"), timeout=300)
        assert kernel.run("print(dask_gateway.Gateway().list_clusters())") == "[]"
    assert int(re.search(r"computed by (\d+) workers", printed)[1]) >= 2
    scenario.wait_until("her server is the only job that is left", lambda: len(scenario.jobs_of("alice")) == 1)


def test_the_examples_and_the_kernels_are_there(alices_server):
    assert {"jaspy", "jaspy3.11-v20261101"} <= set(alices_server.kernels())
    listed = alices_server.api.get(f"{alices_server.server_url}/api/contents/dask-examples", timeout=30).json()
    assert "1_first_cluster.ipynb" in [item["name"] for item in listed["content"]]


def test_the_servers_token_is_in_nothing_that_others_or_slurm_have(alices_server):
    job = the_server("alice")
    with alices_server.kernel() as kernel:
        token = kernel.run("import os; print(os.environ['JUPYTERHUB_API_TOKEN'])")
        # The kernel's own environment has it, and whoever may look there finds it
        assert token == scenario.environment_of(job["node"], "alice", "JUPYTERHUB_API_TOKEN")
        seen = scenario.as_user(
            job["node"],
            "bob",
            "ps axwwe; cat /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n'; "
            f"{scenario.EVERYWHERE} -user alice -type f -readable -exec cat {{}} + 2>/dev/null"
            " | tr -c '[:print:]' '\\n'",
        ).stdout
        secret = {"token": token}
        for host in ("hub", job["node"]):
            for command in ("ps axww -o args", "systemctl show '*' --all", "journalctl --no-pager -q -o cat"):
                assert scenario.secrets_in(host, secret, command) == [], (host, command)
            assert scenario.world_readable_files_with(host, secret) == []
    assert "notebook_server.job" in seen
    assert token not in seen
    assert len(token) >= 32
    assert scenario.secrets_in(job["node"], secret, f"find {FOLDER} -type f -exec cat {{}} +") == []
    # What SLURM keeps of a job and tells its operators, its files for root as well
    for command in (
        f"scontrol show job {job['id']}; scontrol write batch_script {job['id']} -",
        "find /var/lib/slurm /var/log/slurm -type f -exec cat {} +",
        "mysqldump --all-databases",
    ):
        assert scenario.secrets_in("controller", secret, command) == [], command


def test_nobody_else_gets_anything_from_it_neither_by_the_hub_nor_from_the_node(alices_server, hub_user):
    bob = hub_user("bob")
    assert bob.api.get(f"{alices_server.server_url}/api/status", timeout=30).status_code == 403
    assert bob.api.get(f"{alices_server.server_url}/api/contents", timeout=30).status_code == 403

    node, port = address_of(alices_server)
    contents = f"{node}:{port}/user/alice/api/contents"
    for host in (node, "login"):
        assert asked_by_bob(host, f"https://{contents}") == "403"
        assert asked_by_bob(host, f"https://{contents}", token=bob.api.headers["Authorization"]) == "403"
    assert asked_by_bob("login", f"http://{contents}") == "no answer"
    # Its certificate is the Hub's authority's, for the names by which proxy and Hub ask
    authority = scenario.host("hub").file("/etc/jupyterhub/servers/authority.crt").content_string
    scenario.put_file("login", "bob", f"{HOME}/bob/authority.crt", authority)
    assert asked_by_bob("login", f"https://{contents}", trusting=f"{HOME}/bob/authority.crt") == "403"
    assert asked_by_bob("login", f"https://{contents}", trusting="/etc/ssl/certs/ca-certificates.crt") == "no answer"
    assert scenario.host("hub").file("/etc/jupyterhub/servers/authority.key").mode == 0o600


def test_a_servers_token_can_change_nothing_about_how_the_hub_starts_servers(alices_server):
    with alices_server.kernel() as kernel:
        token = kernel.run("import os; print(os.environ['JUPYTERHUB_API_TOKEN'])")
    api = trusting(scenario.ca())
    api.headers["Authorization"] = f"token {token}"
    # batchspawner's own, which would set what it is told to
    upstreams = api.post(f"{alices_server.url}/hub/api/batchspawner", json={"squeue": "/bin/touch"}, timeout=30)
    assert upstreams.status_code == 404
    ours = api.post(f"{alices_server.url}/hub/api/notebook-server", json={"port": 2222, "request": ""}, timeout=30)
    assert (ours.status_code, ours.json()["message"]) == (
        403, "No start of a notebook server waits for this one; it may have been stopped.",
    )  # fmt: skip


def test_a_restarted_hub_finds_the_running_server(alices_server):
    job = the_server("alice")
    with alices_server.kernel() as kernel:
        kernel.run("kept = 42")
        scenario.host("hub").check_output("systemctl restart jupyterhub.service")
        hub = f"{alices_server.url}/hub/api/users/alice"
        scenario.wait_until(
            "the Hub is back and has her server",
            lambda: (answer := alices_server.api.get(hub, timeout=30)).ok and answer.json()["servers"][""]["ready"],
        )
        assert kernel.run("print(kept)") == "42"
    assert alices_server.server_answers()
    assert the_server("alice")["id"] == job["id"]


def test_stopping_it_cancels_the_job_and_leaves_nothing(alices_server):
    job = the_server("alice")
    alices_server.stop_server()
    scenario.wait_until("her job is gone from the queue", lambda: not servers_of("alice"))
    node = scenario.host(job["node"])
    assert node.run("find %s -name '*.json'", FOLDER).stdout == ""
    scenario.wait_until("nothing of it is left on the node", lambda: not node.run("pgrep -u alice").stdout)
    assert node.run("find /tmp -name 'notebook-server-*' -user alice").stdout == ""


def test_a_job_that_waits_says_so_on_the_page_then_starts_with_its_profiles_limits(carol):
    said = []
    with no_free_nodes() as end_it:

        def hear(message: str) -> None:
            said.append(message)
            if "queue" in message:
                end_it()

        start(carol, "long", hear)
    assert any(re.match(r"Your server is job \d+ and waits in the batch cluster's queue", text) for text in said), said
    job = the_server("carol")
    assert (job["limit"], job["cores"], job["memory"]) == ("2:00:00", "2", "600M")
    assert carol.server_answers()


def restart_the_hub_while_its_job_waits(user) -> dict[str, str]:
    """Restart the Hub while it waits for a job of the user's that gets no node; the job, as it was then."""
    lost = []

    def restart(message: str) -> None:
        if "queue" in message:
            lost.append(the_server(user.name))
            scenario.host("hub").check_output("systemctl restart jupyterhub.service")

    # The page loses the Hub, at whatever word
    with suppress(AssertionError, RuntimeError, ValueError, requests.exceptions.RequestException):
        start(user, "small", restart)
    mine = f"{user.url}/hub/api/user"
    # It answers before it has looked at the servers
    scenario.wait_until("the Hub is back", lambda: (answer := user.api.get(mine, timeout=30)).ok and not any(
        server["pending"] for server in answer.json().get("servers", {}).values()
    ))  # fmt: skip
    (job,) = lost
    return job


def test_a_hub_restarted_while_a_job_waits_gives_it_up_and_starts_another(carol):
    with no_free_nodes() as end_it:
        lost = restart_the_hub_while_its_job_waits(carol)
        assert lost["state"] == "PENDING"
        scenario.wait_until("the job that no start waits for is gone", lambda: not servers_of("carol"), timeout=20)
        assert scenario.host("node1").run("find %s/carol/.notebook-server -name '*.json*'", HOME).stdout == ""
        said = scenario.host("hub").run("journalctl -q -o cat -u jupyterhub --since=-60s").stdout
        assert "does not appear to be running" not in said, "nobody looked for it where it never was"
        end_it()
    start(carol, "small")
    assert the_server("carol")["id"] != lost["id"]
    assert carol.server_answers()


def test_the_browser_shows_the_wait_and_then_a_notebook_that_computes_on_the_node(carol):
    hub = f"https://{scenario.site()['site_notebook_host']}"
    with chromium() as browser:
        person = Person(browser, "carol")
        with no_free_nodes():
            page = person.open(f"{hub}/hub/spawn")
            person.fill_in(page)
            page.get_by_label("small").check()
            page.get_by_role("button", name="Start").click()
            page.get_by_text("waits in the batch cluster's queue").first.wait_for()
            screenshot(page, "waiting-for-a-node")
        page.wait_for_url(re.compile(".*/user/carol/lab"), timeout=150_000)
        page.goto(f"{hub}/user/carol/lab?reset")
        first_notebook(page)
        run_cell(page, "import socket; print('computed on', socket.gethostname())")
        computed = f"computed on {the_server('carol')['node']}"
        page.locator(".jp-OutputArea-output", has_text=computed).wait_for(timeout=60_000)
        screenshot(page, "notebook-on-a-node")


IDLE = 12  # seconds


def test_an_idle_server_ends_with_its_job_and_not_while_a_kernel_computes(carol):
    settings = {"jupyterhub_idle_timeout": IDLE, "jupyterhub_environment": {"JUPYTERHUB_ACTIVITY_INTERVAL": "3"}}
    with hub_with(**settings):
        start(carol, "small")
        job = the_server("carol")
        with carol.kernel() as kernel:
            with pytest.raises(TimeoutError):
                kernel.run(f"import time; time.sleep({2 * IDLE + 6})", timeout=1)
            kernel.close()  # nobody looks on
            time.sleep(2 * IDLE)
            assert the_server("carol")["id"] == job["id"]
            scenario.wait_until("the server, now idle, and its job have ended", lambda: not servers_of("carol"))


def test_a_server_with_a_host_name_of_its_own_is_reached_by_that_name(carol):
    """Its certificate is for that name, too; the proxy would not speak with it otherwise."""
    with hub_with(site_notebook_user_domains=True):
        start(carol, "small")
        name, asked = f"carol.{scenario.site()['site_notebook_host']}", f"{carol.server_url}/api/status"
        assert carol.api.get(asked, headers={"Host": name}, timeout=30).status_code == 200
        assert carol.api.get(asked, timeout=30, allow_redirects=False).status_code == 302
        carol.stop_server()


# Environments of five releases before, of which two are not among the newest three
OLD = """
import os, pathlib, sys, time
folder = pathlib.Path(sys.argv[1])
for number, days in enumerate([31, 3, 2, 1, 0], 1):
    digest = str(number) * 12
    old = folder / f"environment-{digest}"
    old.mkdir()
    for name in (f".complete-{digest}", ".superseded"):
        (old / name).touch()
        os.utime(old / name, (time.time() - days * 86400,) * 2)
"""


def test_an_upgrade_and_the_way_back_reach_what_servers_run_in_and_leave_them_alone(alices_server):
    hub = scenario.host("hub")
    shared = f"{scenario.site()['site_software_directory']}/notebook-servers"
    before, job = hub.check_output("readlink %s/environment", shared), the_server("alice")
    listing = "ls -d %s/environment-111111111111 %s/environment-222222222222"
    hub.check_output("python3 -c %s %s", OLD, shared)
    try:
        upgraded = scenario.playbook("upgrade")
        assert upgraded.returncode == 0, upgraded.stdout[-6000:]
        # The newest three stay for who goes back; of the others, what servers may still run from
        assert hub.run(listing, shared, shared).stdout.split() == [f"{shared}/environment-222222222222"]
        assert hub.check_output("readlink %s/environment", shared) == before
        assert (the_server("alice")["id"], alices_server.server_answers()) == (job["id"], True)

        # As after the upgrade to a release with other environments and settings
        hub.check_output("ln -sfn environment-555555555555 %s/environment", shared)
        hub.check_output("mv %s/configuration %s/configuration.away && mkdir %s/configuration", *[shared] * 3)
        back = scenario.playbook("rollback")
        assert back.returncode == 0, back.stdout[-6000:]
        assert hub.check_output("readlink %s/environment", shared) == before
        assert hub.run("diff -r %s/configuration %s/configuration.away", shared, shared).stdout == ""
        scenario.wait_until("her server is where it was", alices_server.server_answers)
        assert the_server("alice")["id"] == job["id"]
    finally:
        made = [f"{shared}/environment-{str(number) * 12}" for number in range(1, 6)]
        hub.check_output(shlex.join(["rm", "-rf", *made, f"{shared}/configuration.away"]))


@pytest.mark.parametrize(
    ("profile", "words"),
    [
        ("larger than any node", "(node configuration is not available|[Mm]emory specification can not be satisfied)"),
        ("in a partition that there is not", "[Ii]nvalid partition"),
    ],
)
def test_a_job_that_slurm_refuses_is_told_in_slurms_words_and_leaves_no_token(carol, profile, words):
    with pytest.raises(RuntimeError, match=f"The batch cluster refuses the job .*: .*{words}.* write to support@"):
        start(carol, profile)
    assert servers_of("carol") == []
    assert scenario.host("node1").run("find %s/carol/.notebook-server -name '*.json*'", HOME).stdout == ""


def test_a_server_that_cannot_start_is_told_with_its_last_message(carol):
    settings = f"{HOME}/carol/.jupyter/jupyter_server_config.py"
    scenario.put_file("login", "carol", settings, "import os; print('it is broken', flush=True); os._exit(3)")
    with (
        scenario.removed_after("login", settings),
        pytest.raises(RuntimeError, match=r"ended while it was starting.*Its last message: it is broken"),
    ):
        start(carol, "small")
    assert servers_of("carol") == []


def test_who_can_have_no_server_is_told_before_anything_is_submitted(carol):
    site = scenario.host("site")
    site.check_output(f"mv {HOME}/carol {HOME}/carol.away")
    try:
        with pytest.raises(RuntimeError, match=f"Your home folder {HOME}/carol does not exist"):
            start(carol, "small")
    finally:
        site.check_output(f"mv {HOME}/carol.away {HOME}/carol")
    assert servers_of("carol") == []
