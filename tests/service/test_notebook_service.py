"""What users of the notebook service read when something is wrong, and what others on its host can't do to them."""

import json

import pytest
import scenario
from hub_client import HubUser, SignInRefusedError

HOME = scenario.site()["site_home_directory"]


@pytest.fixture
def carol_without_a_server(hub_user):
    carol = hub_user("carol")
    carol.stop_server()
    yield carol
    carol.stop_server()


def test_a_wrong_password_is_refused(hub_url):
    with pytest.raises(SignInRefusedError, match="Invalid username or password"):
        HubUser(hub_url, scenario.ca(), "alice", "not her password").sign_in()


def test_passwords_cannot_be_guessed_by_the_thousand():
    """From a host of its own, so that the tests' own sign-ins are not counted with these."""
    address = f"https://{scenario.site()['site_notebook_host']}/hub/login"
    program = (
        "import urllib.error, urllib.request\n"
        "for n in range(100):\n"
        "    try:\n"
        f"        urllib.request.urlopen({address!r}, b'username=alice')\n"
        "    except urllib.error.HTTPError as error:\n"
        "        print(error.code, error.read().decode() if error.code == 429 else '')\n"
    )
    answers = scenario.host("login").check_output("/usr/bin/python3 -c %s", program).splitlines()
    statuses = [answer[:3] for answer in answers if answer[:3].isdigit()]
    assert statuses[0] == "403"  # the Hub's own: the form lacked its token
    assert statuses.count("429") > 40
    assert "429 Too many attempts from your address. Wait a minute, then try again." in answers


def test_an_account_of_the_system_cannot_sign_in(hub_url):
    hub = scenario.host("hub")
    hub.check_output("useradd --system --shell /bin/bash daemon-of-sorts && echo daemon-of-sorts:right | chpasswd")
    try:
        with pytest.raises(SignInRefusedError, match="Invalid username or password"):
            HubUser(hub_url, scenario.ca(), "daemon-of-sorts", "right").sign_in()
    finally:
        hub.check_output("userdel daemon-of-sorts")


def test_a_user_without_a_home_folder_reads_so(carol_without_a_server):
    site = scenario.host("site")
    site.check_output(f"mv {HOME}/carol {HOME}/carol.away")
    try:
        with pytest.raises(RuntimeError, match=f"Your home folder {HOME}/carol does not exist .* write to support@"):
            carol_without_a_server.start_server()
    finally:
        site.check_output(f"mv {HOME}/carol.away {HOME}/carol")


def test_a_server_that_cannot_start_is_reported_at_once_with_its_last_message(carol_without_a_server):
    settings = f"{HOME}/carol/.jupyter/jupyter_server_config.py"
    scenario.put_file("hub", "carol", settings, "import os; print('no space left', flush=True); os._exit(3)")
    with (
        scenario.removed_after("hub", settings),
        pytest.raises(RuntimeError, match=r"ended while it was starting\. Its last message: no space left"),
    ):
        carol_without_a_server.start_server()


def test_a_reload_of_the_front_end_keeps_running_websockets(alices_server):
    with alices_server.kernel() as kernel:
        kernel.run("kept = 42")
        scenario.host("hub").check_output("systemctl reload nginx.service")
        assert kernel.run("print(kept)") == "42"


def test_what_a_kernel_prints_goes_through_no_port_that_others_can_read(alices_server):
    with alices_server.kernel() as kernel:
        connection = json.loads(kernel.run("import ipykernel; print(open(ipykernel.get_connection_file()).read())"))
    assert connection["transport"] == "ipc"
    assert scenario.as_user("hub", "bob", f"ls {connection['ip'].rpartition('/')[0]}").returncode != 0


def test_another_user_of_the_host_gets_nothing_from_the_proxy_or_a_server(alices_server):
    program = """
import http.client
for line in open("/proc/net/tcp").read().splitlines()[1:]:
    fields = line.split()
    address, port = fields[1].split(":")
    if fields[3] == "0A" and address == "0100007F":
        for path in ("/api/routes", "/user/alice/api/contents", "/user/alice/api/kernels", "/hub/api/users"):
            try:
                connection = http.client.HTTPConnection("127.0.0.1", int(port, 16), timeout=10)
                connection.request("GET", path)
                status = connection.getresponse().status
            except (OSError, http.client.HTTPException):
                status = "no http"
            print(int(port, 16), path, status)
"""
    answers = scenario.as_user("hub", "bob", f"python3 - <<'E'\n{program}\nE").stdout.splitlines()
    assert any(line.endswith("/user/alice/api/kernels 403") for line in answers)
    assert [line for line in answers if line.endswith(" 200")] == []
