"""What users of the notebook service read when something is wrong, and what others on its host can't do to them."""

import json
import re
import shlex
import ssl
import time
from pathlib import PurePosixPath

import pytest
import requests
import scenario
import websocket
from browser import Person, chromium, screenshot
from hub_client import HubUser, SignInRefusedError, trusting
from hub_settings import hub_with
from playwright.sync_api import Page

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


def test_a_password_makes_no_token_beside_the_page_for_signing_in(hub_url):
    """Where attempts would not be counted."""
    form = {"auth": {"username": "alice", "password": scenario.passwords()["alice"]}}
    answer = trusting(scenario.ca()).post(f"{hub_url}/hub/api/users/alice/tokens", json=form, timeout=60)
    assert answer.status_code == 403
    assert "token" not in answer.json()


def test_passwords_cannot_be_guessed_by_the_thousand():
    """From a host of its own, so that the tests' own sign-ins are not counted with these."""
    address = f"https://{scenario.site()['site_notebook_host']}/hub/login"
    program = (
        "import urllib.error, urllib.request\n"
        "for n in range(100):\n"
        "    try:\n"
        f"        urllib.request.urlopen({address!r}, b'username=alice')\n"
        "    except urllib.error.HTTPError as error:\n"
        "        print(error.code, ' '.join(error.read().decode().split()) if error.code == 429 else '')\n"
    )
    answers = scenario.host("login").check_output("/usr/bin/python3 -c %s", program).splitlines()
    statuses = [answer[:3] for answer in answers if answer[:3].isdigit()]
    assert statuses[0] == "403"  # the Hub's own: the form lacked its token
    assert statuses.count("429") > 40
    refusals = [answer for answer in answers if answer.startswith("429")]
    assert all("Too many attempts from your address" in answer for answer in refusals)
    assert all("Wait a minute, then try again." in answer for answer in refusals)


def test_the_addresses_of_an_ipv6_network_are_one_client():
    """Containers may lack IPv6: a second nginx with the lines of the first is told addresses by the PROXY protocol."""
    hub = scenario.host("hub")
    configuration = hub.file("/etc/nginx/nginx.conf").content_string
    (lines,) = re.findall(r"map \$binary_remote_addr .*?limit_req_zone [^;]*;", configuration, re.DOTALL)
    zone = re.search(r"zone=(\w+):", lines)[1]
    program = (
        "import pathlib, socket, subprocess, sys, tempfile\n"
        "folder = pathlib.Path(tempfile.mkdtemp())\n"
        "configuration, end = folder / 'nginx.conf', folder / 'socket'\n"
        "configuration.write_text(sys.stdin.read().replace('FOLDER', str(folder)))\n"
        "nginx = ['/usr/sbin/nginx', '-e', 'stderr', '-p', str(folder), '-c', str(configuration)]\n"
        "subprocess.run(nginx, check=True)\n"
        "try:\n"
        "    for asked in sys.argv[1:]:\n"
        "        method, family, address = asked.split(',')\n"
        "        with socket.socket(socket.AF_UNIX) as client:\n"
        "            client.connect(str(end))\n"
        "            said = f'PROXY {family} {address} {address} 1 1\\r\\n{method} / HTTP/1.0\\r\\n\\r\\n'\n"
        "            client.sendall(said.encode())\n"
        "            print(client.makefile().readline().split()[1])\n"
        "finally:\n"
        "    subprocess.run([*nginx, '-s', 'stop'], check=True)\n"
        "    subprocess.run(['rm', '-r', folder], check=True)\n"
    )
    configuration = (
        "pid FOLDER/pid; error_log stderr; events {}\n"
        f"http {{ access_log off; {lines}\n"
        "set_real_ip_from unix:; real_ip_header proxy_protocol;\n"
        "server { listen unix:FOLDER/socket proxy_protocol;\n"
        f"location / {{ limit_req zone={zone}; limit_req_status 429; try_files /none =404; }} }} }}\n"
    )
    asked = [
        ("POST,TCP6,2001:db8:a:1::1", "404"),
        ("POST,TCP6,2001:db8:a:1:ffff::2", "429"),  # another address of that network
        ("GET,TCP6,2001:db8:a:1::1", "404"),
        ("POST,TCP6,2001:db8:a:2::1", "404"),
        ("POST,TCP4,192.0.2.1", "404"),
        ("POST,TCP4,192.0.2.2", "404"),
        ("POST,TCP4,192.0.2.1", "429"),
    ]
    answers = hub.check_output(
        f"printf %s {shlex.quote(configuration)} | /usr/bin/python3 -c {shlex.quote(program)} "
        + " ".join(question for question, _ in asked)
    )
    assert list(zip([question for question, _ in asked], answers.split(), strict=True)) == asked


def test_nor_by_the_dozen_for_one_account_from_the_hubs_own_host(hub_url):
    """Beside nginx, as a program of a notebook server can."""
    hub = scenario.host("hub")
    wrong = (
        "import concurrent.futures, http.cookiejar, sys, urllib.error, urllib.parse, urllib.request\n"
        "page = 'http://127.0.0.1:8000/hub/login'\n"
        "def attempt(number):\n"
        "    jar = http.cookiejar.CookieJar(http.cookiejar.DefaultCookiePolicy(secure_protocols=('http', 'https')))\n"
        "    opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(jar))\n"
        "    opener.open(page)\n"
        "    token = next(cookie.value for cookie in jar if cookie.name == '_xsrf')\n"
        "    form = {'_xsrf': token, 'username': 'bob', 'password': f'wrong {number}'}\n"
        "    try:\n"
        "        opener.open(page, urllib.parse.urlencode(form).encode())\n"
        "    except urllib.error.HTTPError as error:\n"
        "        return error.code\n"
        "with concurrent.futures.ThreadPoolExecutor(4) as attempts:\n"
        "    print(*attempts.map(attempt, range(int(sys.argv[1]))))\n"
    )
    bob = HubUser(hub_url, scenario.ca(), "bob", scenario.passwords()["bob"])
    said = "After 20 wrong passwords within 15 min an account cannot sign in for as long, even with the right one."
    forget = "faillock --dir /run/jupyterhub-sign-in --user bob --reset"
    try:
        hub.check_output(forget)
        assert hub.check_output("/usr/bin/python3 -c %s 19", wrong).split() == ["403"] * 19
        bob.sign_in()  # which also forgets what was wrong
        assert hub.check_output("/usr/bin/python3 -c %s 20", wrong).split() == ["403"] * 20
        with pytest.raises(SignInRefusedError, match="Invalid username or password"):
            bob.sign_in()
        with chromium() as browser:
            person = Person(browser, "bob")
            page = person.open(f"{person.hub}/hub/login")
            person.fill_in(page)
            page.get_by_text(said).wait_for()
            screenshot(page, "account-with-too-many-attempts")
        # Others sign in as ever
        HubUser(hub_url, scenario.ca(), "carol", scenario.passwords()["carol"]).sign_in()
    finally:
        hub.check_output(forget)
    bob.sign_in()


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


def test_systemd_holds_a_server_to_the_sites_limits(alices_server):
    """As the scenario's inventory has it for memory, and by the role's default for processors."""
    assert alices_server.server_answers()
    shown = ("systemctl show --property=%s --value jupyter-alice-singleuser", "MemoryMax")
    assert scenario.host("hub").check_output(*shown) == str(2 * 2**30)
    assert scenario.host("hub").check_output(shown[0], "CPUQuotaPerSecUSec") == "2s"


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


def test_a_server_passes_nothing_on_to_ports_where_anybody_of_the_host_may_listen(alices_server):
    """A program of bob's would be sent alice's session, and its answer be a page of her server."""
    program = """
import http.server, threading
class Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        print("asked", self.path, flush=True)
        self.send_response(200)
        self.end_headers()
        if self.path == "/it-listens":
            threading.Thread(target=server.shutdown).start()
    def log_message(self, *words):
        pass
server = http.server.HTTPServer(("127.0.0.1", 0), Answers)
print(server.server_port, flush=True)
server.serve_forever()
"""
    listen = f"setsid -f timeout 60 python3 -c {shlex.quote(program)} > /var/tmp/bob-is-asked 2>&1"
    begin = f"{listen}; sleep 1; cat /var/tmp/bob-is-asked"
    port = int(scenario.as_user("hub", "bob", begin).stdout)
    for path in (f"proxy/{port}/", f"proxy/absolute/{port}/", f"proxy/127.0.0.1:{port}/", f"proxy/localhost:{port}/"):
        answer = alices_server.api.get(f"{alices_server.server_url}/{path}", timeout=30)
        assert answer.status_code == 404, path
    ask = f"import urllib.request; urllib.request.urlopen('http://127.0.0.1:{port}/it-listens')"
    assert scenario.as_user("hub", "bob", f"python3 -c {shlex.quote(ask)}").returncode == 0
    asked = scenario.as_user("hub", "bob", "cat /var/tmp/bob-is-asked; rm /var/tmp/bob-is-asked").stdout.splitlines()
    assert asked == [str(port), "asked /it-listens"]


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


# -- accounts with which something is wrong ---------------------------------------------------------------------


@pytest.fixture
def local_user(hub_url):
    """``local_user("--shell=/bin/sh")``: somebody who has signed in, with an account of the hub's host alone."""
    hub = scenario.host("hub")

    def make(*options: str) -> HubUser:
        hub.check_output(
            f"useradd --uid 29999 --gid nogroup --create-home --home-dir /var/tmp/dora {' '.join(options)} dora"
            " && echo dora:right | chpasswd"
        )
        dora = HubUser(hub_url, scenario.ca(), "dora", "right")
        dora.sign_in()
        return dora

    yield make
    hub.run("userdel dora; rm -rf /var/tmp/dora")


def test_a_user_whose_shell_is_nologin_reads_so(local_user):
    dora = local_user("--shell=/usr/sbin/nologin")
    with pytest.raises(RuntimeError, match=r"not for interactive use \(its login shell is /usr/sbin/nologin\)"):
        dora.start_server()


def test_an_account_that_has_expired_signs_in_no_more_and_starts_no_server_from_an_open_session(local_user, hub_url):
    dora = local_user()
    scenario.host("hub").check_output("usermod --expiredate 1 dora")
    with pytest.raises(RuntimeError, match=r"The account dora can't be used at present .*has expired.*support@"):
        dora.start_server()
    again = trusting(scenario.ca())
    page = again.get(f"{hub_url}/hub/login", timeout=30)
    for password, sentence in (("wrong", "Invalid username or password"), ("right", "can&#39;t be used at present")):
        form = {"username": "dora", "password": password, "_xsrf": again.cookies.get("_xsrf", path="/hub/")}
        page = again.post(f"{hub_url}/hub/login", data=form, headers={"Referer": page.url}, timeout=60)
        assert sentence in page.text, page.text[:3000]


@pytest.mark.long
def test_a_server_that_does_not_listen_in_time_is_told_with_its_last_message(carol_without_a_server):
    settings = f"{HOME}/carol/.jupyter/jupyter_server_config.py"
    scenario.put_file("login", "carol", settings, "import time; print('it waits', flush=True); time.sleep(600)")
    with (
        scenario.removed_after("login", settings),
        hub_with(jupyterhub_start_timeout=15),
        pytest.raises(RuntimeError, match=r"not there after 15 seconds, .*Its last message: it waits\. .*support@"),
    ):
        carol_without_a_server.start_server()
    assert scenario.host("hub").run("pgrep -u carol").stdout == ""


def test_a_user_whom_the_directory_has_forgotten_reads_so(local_user):
    dora = local_user()
    scenario.host("hub").check_output("userdel dora")
    with pytest.raises(RuntimeError, match=r"knows no account named dora\. .* write to support@"):
        dora.start_server()


def test_what_the_directory_has_changed_since_she_signed_in_is_what_counts(carol_without_a_server):
    """Her shell, and then whether she is in it at all; sssd would ask again by itself within minutes."""
    site, hub = scenario.host("site"), scenario.host("hub")
    carol, options = "uid=carol,ou=people,dc=lotus,dc=test", "-Q -Y EXTERNAL -H ldapi:///"
    entry = site.check_output(f"ldapsearch {options} -o ldif-wrap=no -LLL -s base -b {carol}")
    shell = f"dn: {carol}\nchangetype: modify\nreplace: loginShell\nloginShell: /usr/sbin/nologin\n"
    try:
        site.check_output(f"printf %s {shlex.quote(shell)} | ldapmodify {options}")
        hub.check_output("sss_cache -u carol")
        with pytest.raises(RuntimeError, match=r"not for interactive use \(its login shell is /usr/sbin/nologin\)"):
            carol_without_a_server.start_server()
        site.check_output(f"ldapdelete {options} {carol}")
        hub.check_output("sss_cache -u carol")
        with pytest.raises(RuntimeError, match=r"knows no account named carol\."):
            carol_without_a_server.start_server()
    finally:
        site.run(f"ldapdelete {options} {carol}")
        site.check_output(f"printf %s {shlex.quote(entry)} | ldapadd {options}")
        scenario.wait_until("the Hub's host knows her again", lambda: hub.run("getent passwd carol").succeeded)
    carol_without_a_server.start_server()


@pytest.mark.parametrize("name", ["mallory", "root", "alice\0", "../alice", "a" * 300])
def test_a_name_that_is_no_users_reads_what_a_wrong_password_does(hub_url, name):
    with pytest.raises(SignInRefusedError, match="Invalid username or password"):
        HubUser(hub_url, scenario.ca(), name, "whatever").sign_in()


@pytest.fixture
def carols_home_is_full(carol_without_a_server):
    """A small file system over her home folder on the hub's host, and no byte of it is free."""
    hub = scenario.host("hub")
    hub.check_output(
        f"mount -t tmpfs -o size=64k,mode=700,uid=carol tmpfs {HOME}/carol && "
        f"runuser -u carol -- sh -c 'cat /dev/zero > {HOME}/carol/zeros'; test -s {HOME}/carol/zeros"
    )
    yield carol_without_a_server
    carol_without_a_server.stop_server()
    hub.check_output(f"umount {HOME}/carol")


def test_a_user_whose_home_folder_is_full_has_a_server_to_delete_with_and_reads_why_nothing_is_saved(
    carols_home_is_full,
):
    carol = carols_home_is_full
    carol.start_server()
    files = f"{carol.server_url}/api/contents"
    notebook = {"type": "notebook", "content": {"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}}
    refused = carol.api.put(f"{files}/analysis.ipynb", json=notebook, timeout=30)
    assert refused.status_code == 507
    assert refused.json()["message"] == (
        "Your home folder is full (No space left on device), and nothing was saved. "
        "Delete what you no longer need, then save again."
    )
    carol.api.delete(f"{files}/zeros", timeout=30).raise_for_status()
    assert carol.api.put(f"{files}/analysis.ipynb", json=notebook, timeout=30).status_code in (200, 201)


def test_a_server_that_finds_no_space_to_start_is_told_so(carol_without_a_server):
    """As with a quota, which containers have none of: the words that Linux has for it."""
    settings = f"{HOME}/carol/.jupyter/jupyter_server_config.py"
    program = "import errno, os; raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT), '/home/users/carol/.jupyter')"
    scenario.put_file("hub", "carol", settings, f"import os, sys\ntry:\n    {program}\nexcept OSError as error:\n"
                      "    print(error, flush=True)\n    os._exit(1)\n")  # fmt: skip
    with (
        scenario.removed_after("hub", settings),
        pytest.raises(RuntimeError, match=r"found no space .*Disk quota exceeded.*Delete what you no longer need"),
    ):
        carol_without_a_server.start_server()


def test_signing_out_ends_the_sessions_of_the_hub_and_of_the_server(alices_server, hub_url):
    alice = HubUser(hub_url, scenario.ca(), "alice", scenario.passwords()["alice"])
    alice.sign_in()
    alice.browser.get(f"{alice.server_url}/lab", timeout=30).raise_for_status()
    copied = trusting(scenario.ca())
    copied.cookies.update(alice.browser.cookies)
    status = f"{alice.server_url}/api/status"
    assert copied.get(status, timeout=30).ok
    assert copied.get(f"{hub_url}/hub/home", timeout=30).url == f"{hub_url}/hub/home"

    alice.browser.get(f"{hub_url}/hub/logout", timeout=30).raise_for_status()
    assert "/hub/login" in copied.get(f"{hub_url}/hub/home", timeout=30).url
    scenario.wait_until("the server asks who it is", lambda: not copied.get(status, timeout=30).ok, timeout=20)
    assert alices_server.server_answers(), "what is no session goes on"


def opened_in_the_browser(user: HubUser, path: str) -> websocket.WebSocket:
    """A websocket to the user's server, opened as a page of the browser's session does: with its cookies alone."""
    url = user.server_url + path
    cookies = user.browser.prepare_request(requests.Request("GET", url)).headers["Cookie"]
    return websocket.create_connection(
        url.replace("https://", "wss://", 1),
        cookie=cookies,
        header=["Sec-Fetch-Mode: websocket"],
        sslopt={"ca_certs": user.ca, "cert_reqs": ssl.CERT_REQUIRED},
        timeout=30,
    )


def end_of(opened: websocket.WebSocket, timeout: float) -> tuple[int, str]:
    """Code and reason with which the other side closes a websocket."""
    deadline = time.monotonic() + timeout
    while (left := deadline - time.monotonic()) > 0:
        opened.settimeout(left)
        try:
            kind, data = opened.recv_data()
        except websocket.WebSocketTimeoutException:
            break
        if kind == websocket.ABNF.OPCODE_CLOSE:
            return int.from_bytes(data[:2], "big"), data[2:].decode()
    raise AssertionError(f"after {timeout} s still not: the websocket is closed")


def test_signing_out_closes_what_a_page_has_open_to_kernels_and_terminals_and_they_go_on(alices_server, hub_url):
    alice = HubUser(hub_url, scenario.ca(), "alice", scenario.passwords()["alice"])
    alice.sign_in()
    alice.browser.get(f"{alice.server_url}/lab", timeout=30).raise_for_status()
    terminals = f"{alice.server_url}/api/terminals"
    terminal = alice.api.post(terminals, timeout=30).json()["name"]
    with alices_server.kernel() as kernel:
        kernel.run("kept = 42")
        connection = kernel.run("import ipykernel; print(ipykernel.get_connection_file())")
        number = PurePosixPath(connection).stem.removeprefix("kernel-")
        opened = [
            opened_in_the_browser(alice, f"/api/kernels/{number}/channels?session_id=page"),
            opened_in_the_browser(alice, f"/terminals/websocket/{terminal}"),
        ]
        alice.browser.get(f"{hub_url}/hub/logout", timeout=30).raise_for_status()
        # The Hub's last answer counts for 10 s, and the server looks every 10 s
        assert [end_of(each, timeout=40) for each in opened] == [(1008, "signed out")] * 2
        assert kernel.run("print(kept)") == "42", "what is no session has its websocket still"
    assert alices_server.api.delete(f"{terminals}/{terminal}", timeout=30).status_code == 204, "it was there"


@pytest.mark.long
def test_groups_of_the_directory_say_who_may_sign_in_and_who_runs_the_hub(hub_url):
    """With passwords; bob is not in the group dask. Carol is in a group of the Hub's host for a while."""

    def signed_in(name: str) -> HubUser:
        user = HubUser(hub_url, scenario.ca(), name, scenario.passwords()[name])
        user.sign_in()
        return user

    def admin_page(name: str) -> int:
        return signed_in(name).browser.get(f"{hub_url}/hub/admin", timeout=30).status_code

    hub = scenario.host("hub")
    hub.check_output("echo operators:x:7990:carol >> /etc/group")
    try:
        with hub_with(jupyterhub_allowed_groups=["dask"], jupyterhub_admin_groups=["operators"]):
            assert [admin_page("alice"), admin_page("carol")] == [403, 200]
            with pytest.raises(SignInRefusedError, match="bob may not use the notebook service"):
                signed_in("bob")
            hub.check_output("sed -i s/^operators:x:7990:carol/operators:x:7990:/ /etc/group")
            assert admin_page("carol") == 403
    finally:
        hub.check_output("sed -i /^operators:/d /etc/group")
    signed_in("bob")


def test_servers_with_names_are_not_offered(alice):
    answer = alice.api.post(f"{alice.url}/hub/api/users/alice/servers/second", timeout=30)
    assert (answer.status_code, answer.json()["message"]) == (400, "Named servers are not enabled.")


# -- the same in a browser ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def chrome():
    with chromium() as browser:
        yield browser


def at_the_hub(chrome, user: HubUser) -> Page:
    """The Hub's home in a browser of the user's own, who has signed in."""
    person = Person(chrome, user.name)
    page = person.open(f"{person.hub}/hub/home")
    page.fill("#username_input", user.name)
    page.fill("#password_input", user.password)
    page.click("#login_submit")
    page.wait_for_url("**/hub/home")
    return page


def refused(page: Page, sentence: str, picture: str) -> None:
    """Start a server, and read why there is none."""
    answer = page.goto(page.url.replace("/hub/home", "/hub/spawn"))
    assert answer.status < 500
    page.get_by_text(sentence).first.wait_for()
    screenshot(page, picture)
    page.context.close()


def test_the_browser_shows_why_there_is_no_server_without_a_home_folder(chrome, carol_without_a_server):
    page = at_the_hub(chrome, carol_without_a_server)
    site = scenario.host("site")
    site.check_output(f"mv {HOME}/carol {HOME}/carol.away")
    try:
        refused(page, f"Your home folder {HOME}/carol does not exist", "no-home")
    finally:
        site.check_output(f"mv {HOME}/carol.away {HOME}/carol")


def test_the_browser_shows_why_there_is_no_server_with_a_shell_of_nologin(chrome, local_user):
    refused(at_the_hub(chrome, local_user("--shell=/usr/sbin/nologin")), "not for interactive use", "no-shell")


def test_the_browser_shows_why_there_is_no_server_for_who_is_unknown_by_now(chrome, local_user):
    page = at_the_hub(chrome, local_user())
    scenario.host("hub").check_output("userdel dora")
    refused(page, "knows no account named dora", "unknown")


def test_the_browser_shows_why_nothing_is_saved_in_a_full_home_folder(chrome, carols_home_is_full):
    carols_home_is_full.start_server()
    page = at_the_hub(chrome, carols_home_is_full)
    page.goto(page.url.replace("/hub/home", f"/user/{carols_home_is_full.name}/lab"))
    page.locator(".jp-LauncherCard[data-category=Notebook]").first.click()
    page.locator(".jp-Dialog").get_by_text("Your home folder is full").wait_for()
    screenshot(page, "full-home")
    page.context.close()
