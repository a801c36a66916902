"""The service in a real browser: dashboards, clusters, tokens; with screenshots, see `browser.SCREENSHOTS`."""

import json
import re
import uuid
from datetime import datetime, timedelta
from types import SimpleNamespace

import guide
import pytest
import scenario
import yaml
from browser import (
    Person,
    by_keyboard,
    chromium,
    first_notebook,
    run_cell,
    screenshot,
    serious_findings,
    the_panel_finds_the_dashboard_and_shows_it,
)
from hub_client import trusting
from playwright.sync_api import TimeoutError as NotDrawnError

PROGRAM = """
import time
import dask_gateway
from distributed import fire_and_forget

gateway = dask_gateway.Gateway(auth="jupyterhub")
cluster = gateway.new_cluster(shutdown_on_close=False)
cluster.scale(1)
client = cluster.get_client()
client.wait_for_workers(1)
for n in range(1200):
    fire_and_forget(client.submit(lambda n: time.sleep(0.5), n, key=f"nap-{n}"))
print(cluster.name, client.dashboard_link)
"""
# Of Dask's dashboard, what Bokeh draws, and all else that there is; the plots for themselves are asked of it
PAGES = [
    *("status", "workers", "tasks", "system", "profile", "graph", "groups", "hardware", "shuffle", "profile-server"),
    *("events", "stealing", "counters", "exceptions", "gpu"),
]
PAGES_OF_A_WORKER = ["status", "system", "profile", "profile-server", "counters"]
REDIRECTS = ["", "info"]
OTHERS = [
    *(*REDIRECTS, "info/main/workers.html", "info/main/logs.html", "info/main/exceptions.html"),
    # Of the task that is computed last
    *("info/task/nap-1199.html", "info/call-stack/nap-1199.html", "individual-plots.json"),
    *("json/counts.json", "json/identity.json", "json/index.html", "sitemap.json", "health"),
    *("statics/css/base.css", "static/js/bokeh.min.js"),
]
# Opening it has Dask measure its workers, which writes gigabytes to their folders; here those lie in memory
MEASURES_WORKERS = "hardware"
DEFAULTS = yaml.safe_load((scenario.REPOSITORY / "roles/jupyterhub/defaults/main.yml").read_text())
MAXIMUM_DAYS = DEFAULTS["jupyterhub_token_maximum_days"]


@pytest.fixture(autouse=True)
def pictures_of_failure(request):
    """What the browser showed when a test failed, beside the other pictures, and its address and text in the report."""
    yield
    report = getattr(request.node, "called", None)
    if report is None or not report.failed:
        return
    for person in (value for value in request.node.funcargs.values() if isinstance(value, Person)):
        for number, page in enumerate(person.context.pages[-3:]):
            screenshot(page, f"failed-{request.node.name}-{person.name}-{number}")
            print(f"{person.name} saw {page.url}\n{page.inner_text('body')[:1000]}")


@pytest.fixture(scope="module")
def chrome():
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def alices_browser(chrome) -> Person:
    return Person(chrome, "alice")


@pytest.fixture(scope="module")
def carols_browser(chrome) -> Person:
    return Person(chrome, "carol")


@pytest.fixture(scope="module")
def cluster(token_file):
    """Alice's cluster, with a worker that has something to do for minutes."""
    token = token_file("alice")
    scenario.put_file("login", "alice", "/home/users/alice/naps.py", PROGRAM)
    done = scenario.as_user("login", "alice", "module load jaspy && python naps.py")
    assert done.returncode == 0, done.stderr
    name, link = done.stdout.split()
    yield SimpleNamespace(name=name, link=link, token=token)
    stop = f"import dask_gateway; dask_gateway.Gateway(auth='jupyterhub').stop_cluster('{name}')"
    scenario.as_user("login", "alice", f'module load jaspy && python -c "{stop}"')
    scenario.wait_until("alice's jobs have ended", lambda: not scenario.jobs_of("alice"))


def drawn(page) -> None:
    """Bokeh draws the page."""
    page.wait_for_function("window.Bokeh && Bokeh.documents.length && Bokeh.documents[0].roots().length")


def live(page) -> None:
    """The page draws what comes through its websocket."""
    drawn(page)
    page.wait_for_function(
        """() => {
            const changes = window.changes ??= {count: 0, on: null};
            changes.on ??= Bokeh.documents.forEach(one => one.on_change(() => changes.count++)) || true;
            return changes.count > 5;
        }"""
    )


def test_the_dashboard_opens_after_signing_in_and_is_live(cluster, alices_browser):
    assert cluster.link == f"{alices_browser.gateway}/clusters/{cluster.name}/status"
    page = alices_browser.open(cluster.link)
    assert page.url.startswith(f"{alices_browser.hub}/hub/login")
    screenshot(page, "sign-in")
    alices_browser.fill_in(page)
    page.wait_for_url(cluster.link)
    live(page)
    # The task stream shows what the worker does
    page.wait_for_function("Bokeh.documents[0].get_model_by_name('task_stream').renderers[0].data_source.length > 0")
    screenshot(page, "dashboard")


@pytest.fixture(scope="module")
def dashboard(cluster) -> SimpleNamespace:
    """The paths of the dashboard of alice's cluster: what Bokeh draws, all others, and websockets."""
    folder = f"/clusters/{cluster.name}/"

    def text(path: str) -> str:
        answer = scenario.get("gateway", folder + path, headers={"Authorization": f"token {cluster.token}"})
        assert answer.status_code == 200, answer.text
        return answer.text

    listing = [path.lstrip("/") for path in json.loads(text("individual-plots.json")).values()]
    plots = [path for path in listing if not path.startswith("statics/")]
    assert len(plots) > 20
    listed = text("info/main/workers.html")
    # Of each worker: its own dashboard, and what the scheduler tells of it
    proxies = {f"proxy/{where}" for where in re.findall(r"proxy/([0-9]+/[0-9.]+/)status", listed)}
    workers = set(re.findall(r"worker/([^\"']+\.html)", listed))
    assert len(proxies) == len(workers) == 1
    of_workers = [f"info/{what}/{worker}" for what in ("worker", "logs", "call-stacks") for worker in workers]
    pages = [*PAGES, *plots, *(f"{proxy}{page}" for proxy in proxies for page in PAGES_OF_A_WORKER)]
    return SimpleNamespace(
        folder=folder,
        pages=pages,
        plots=plots,
        others=[*OTHERS, *of_workers, *sorted(set(listing) - set(plots))],
        sockets=[*(f"{page}/ws" for page in pages), "eventstream"],
        routes=json.loads(text("sitemap.json"))["paths"],
    )


def test_every_route_of_the_dashboard_is_among_what_is_asked_for(dashboard):
    """One that a new Dask has is seen here; a route is a regular expression."""
    asked = [f"/{path}" for path in (*dashboard.pages, *dashboard.others, *dashboard.sockets)]
    assert "/info/task/(.*).html" in dashboard.routes
    assert [route for route in dashboard.routes if not any(re.fullmatch(route, path) for path in asked)] == []


def undrawn(person: Person, folder: str, pages: list[str]) -> list[str]:
    """Those of a dashboard's pages that Bokeh does not draw."""
    tab, found = person.context.new_page(), []
    for path in pages:
        tab.goto(f"{person.gateway}{folder}{path}", wait_until="commit")
        try:
            drawn(tab)
        except NotDrawnError:
            found.append(path)
    tab.close()
    return found


def test_every_page_of_the_dashboard_is_drawn_for_its_owner(dashboard, alices_browser):
    pages = [path for path in PAGES if path != MEASURES_WORKERS]
    assert undrawn(alices_browser, dashboard.folder, pages) == []


@pytest.mark.long
def test_every_plot_is_drawn_by_itself_for_its_owner(dashboard, alices_browser):
    plots = [path for path in dashboard.plots if not re.search("gpu|rmm", path)]  # no node has one
    assert undrawn(alices_browser, dashboard.folder, plots) == []


def test_every_page_of_the_dashboard_is_for_the_owner_and_for_nobody_else(
    cluster, dashboard, alices_browser, carols_browser
):
    page = alices_browser.open(cluster.link)
    carols = carols_browser.open(cluster.link)
    carols_browser.fill_in(carols)
    carols.wait_for_url(cluster.link)
    assert "belongs to somebody else" in carols.inner_text("main")
    screenshot(carols, "refused")
    for path in [*dashboard.pages, *dashboard.others]:
        if path != MEASURES_WORKERS:
            # A redirect is told by a script's request as 0
            expected = (200, 0) if path in REDIRECTS else (200,)
            assert alices_browser.status(page, dashboard.folder + path) in expected, path
        assert carols_browser.status(carols, dashboard.folder + path) == 403, path
    assert carols_browser.websocket(carols, f"{dashboard.folder}status/ws") == "refused"
    # The others without the browser, which lets more and more time pass after each that is refused
    cookies = "; ".join(f"{one['name']}={one['value']}" for one in carols_browser.context.cookies(cluster.link))
    shown = scenario.get_as_written("gateway", f"{dashboard.folder}status", Cookie=cookies)
    assert "belongs to somebody else" in shown[2], "these are a session of hers"
    for path in dashboard.sockets:
        assert upgraded(dashboard.folder + path, Cookie=cookies) == 403, path
    assert alices_browser.websocket(page, f"{dashboard.folder}status/ws") == "open"


def upgraded(path: str, **others: str) -> int:
    """The status that a websocket gets, of somebody without a session if no other headers have one."""
    gateway = f"https://{scenario.site()['site_gateway_host']}"
    headers = {
        "Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==", "Origin": gateway,
    }  # fmt: skip
    return scenario.get_as_written("gateway", path, **headers, **others)[0]


NOT_THERE = ["no/such/page", "proxy/1/10.0.0.1/status", "%2e%2e/api/v1/routes", "../api/v1/routes"]


@pytest.mark.parametrize("loads", ["navigate", "cors"])
def test_nobody_who_is_not_signed_in_sees_a_page_of_a_dashboard(dashboard, loads):
    sign_in = f"https://{scenario.site()['site_notebook_host']}/hub/"
    headers = {"Sec-Fetch-Mode": loads, "X-Dask-Dashboard-Key": "x"}
    for path in [*dashboard.pages, *dashboard.others, *dashboard.sockets, *NOT_THERE]:
        status, address, text = scenario.get_as_written("gateway", dashboard.folder + path, **headers)
        assert status == (302 if loads == "navigate" else 403), path
        assert "bokeh" not in text.lower(), path
        assert address.startswith(sign_in) if status == 302 else not address, path


def test_nobody_who_is_not_signed_in_opens_a_websocket_of_a_dashboard(dashboard):
    for path in dashboard.sockets:
        assert upgraded(dashboard.folder + path) == 403, path


def test_a_workers_page_opens_through_the_schedulers(cluster, alices_browser):
    folder = f"{alices_browser.gateway}/clusters/{cluster.name}"
    assert alices_browser.open(f"{folder}/").url == f"{folder}/status"
    page = alices_browser.open(f"{folder}/info")
    assert page.url.endswith("/info/main/workers.html")
    page.click("text=dashboard")
    page.wait_for_url(re.compile(r".*/proxy/[0-9]+/[0-9.]+/status"))
    live(page)
    workers = page.url
    assert alices_browser.open(workers.removesuffix("status")).url == workers
    screenshot(page, "worker")


def test_a_compute_nodes_ports_show_nothing_of_a_dashboard(cluster):
    """From another host, and to another user of the same node, who reaches what listens on loopback too."""
    asked = 0
    for node in ("node1", "node2"):
        listening = scenario.host(node).check_output("ss -Hltn | awk '{print $4}'").split()
        sockets = {(address, int(port)) for address, _, port in (one.rpartition(":") for one in listening)}
        # Docker's resolver is nobody's job
        ports = {port for address, port in sockets if port > 30000 and address != "127.0.0.11"}
        asked += len(ports)
        here = (node, "127.0.0.1", "[::1]")
        for host, user, addresses in (("login", "carol", [node]), (node, "carol", here), ("gateway", "nobody", [node])):
            urls = [f"http://{address}:{port}{path}" for address in addresses for port in ports for path in PROBED]
            answers = scenario.host(host).run("runuser -u %s -- python3 -c %s %s", user, ASK, " ".join(urls))
            assert answers.rc == 0, answers.stderr
            for line in answers.stdout.splitlines():
                url, _, answer = line.partition(" ")
                assert answer in NOTHING, (host, user, url, answer)
    assert asked >= 5, "scheduler and worker have two ports each, and the scheduler's API has one"


PROBED = ("/", "/status", "/health", "/info/main/workers.html", "/status/ws")
# The API for the gateway has paths of its own; what speaks TLS closes the connection
NOTHING = {"403 ''", "no answer", "404 '<html><title>404: Not Found</title><body>404: Not Found</body></html>'"}
ASK = """
import http.client, sys, urllib.error, urllib.request
for url in sys.argv[1].split():
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            print(url, answer.status, repr(answer.read().decode()))
    except urllib.error.HTTPError as error:
        print(url, error.code, repr(error.read().decode()))
    except (OSError, http.client.HTTPException):
        print(url, "no answer")
"""


def test_a_dashboards_key_stands_in_no_log(cluster):
    key = scenario.host("node1").check_output("cat /home/users/alice/.dask-gateway/%s/dask.dashboard", cluster.name)
    logs = "journalctl --no-pager -q -o cat; cat /var/log/nginx/*.log; ps axwwe"
    logs += "; find /home/users/alice/.dask-gateway/logs -type f -name '*.log' -exec cat {} +"
    for host in ("gateway", "node1", "node2"):
        assert scenario.secrets_in(host, {"key": key}, f"({logs}) 2>/dev/null") == []


NARROW = {"width": 360, "height": 740}


def widens(page) -> bool:
    """Whether a page is wider than the screen, which then shows a part of it only."""
    return page.evaluate("document.documentElement.scrollWidth > window.innerWidth")


@pytest.mark.parametrize("look", [{"color_scheme": "dark"}, {"viewport": NARROW}], ids=["dark", "narrow"])
def test_everybody_can_use_the_list_of_clusters(cluster, alices_browser, chrome, look):
    person = Person(chrome, "alice", storage_state=alices_browser.context.storage_state(), **look)
    page = person.open(person.gateway)
    assert page.get_by_role("row").filter(has_text=cluster.name).is_visible()
    assert serious_findings(page) == []
    assert not widens(page)
    screenshot(page, f"clusters-{next(iter(look))}")
    person.context.close()


def test_the_list_of_clusters_leads_to_the_dashboard_and_stops_a_cluster(cluster, alices_browser):
    page = alices_browser.open(alices_browser.gateway)
    row = page.get_by_role("row").filter(has_text=cluster.name)
    assert re.search(r"running\s+1\s+1\s+0.5 GiB\s+\d+ min", row.inner_text())
    assert serious_findings(page) == []
    screenshot(page, "clusters")
    row.get_by_role("link", name="Open").click()
    page.wait_for_url(cluster.link)
    page.goto(cluster.link.replace("/status", f"/{MEASURES_WORKERS}"))  # last, as a small worker may end for it
    drawn(page)
    page.goto(alices_browser.gateway)
    by_keyboard(page, row.get_by_role("button", name="Stop"))
    page.wait_for_url(f"{alices_browser.gateway}/")
    scenario.wait_until("alice's jobs have ended", lambda: not scenario.jobs_of("alice"))
    page.reload()
    assert "You have no cluster" in page.inner_text("main")
    wide = page.viewport_size
    page.set_viewport_size(NARROW)
    assert serious_findings(page) == []
    assert not widens(page)
    page.set_viewport_size(wide)
    page.goto(cluster.link)
    assert "has ended" in page.inner_text("main")
    assert serious_findings(page) == []


def new_token(page, note: str, scopes: str = "") -> str:
    """Make a token on the token page, with a note and the site's own expiry, and perhaps with scopes."""
    page.wait_for_function("window._jupyterhub_page_loaded")
    page.fill("#token-note", note)
    assert f"{MAXIMUM_DAYS} days" in page.inner_text("#token-expiration-seconds option:checked")
    if scopes:
        page.fill("#token-scopes", scopes)
    page.click("#request-token-form button[type=submit]")
    page.wait_for_selector("#token-area", state="visible")
    return page.inner_text("#token-result")


def test_a_token_with_nothing_but_a_note_makes_clusters_for_as_long_as_the_site_permits(
    alices_browser, no_clusters_left
):
    page = alices_browser.open(f"{alices_browser.hub}/hub/token")
    if "/hub/login" in page.url:
        alices_browser.fill_in(page)
    token = new_token(page, "no more than this")
    for given, status in ((token, 200), (token[::-1], 422)):
        answer = scenario.get("gateway", "/api/v1/clusters/", headers={"Authorization": f"token {given}"})
        assert answer.status_code == status, answer.text

    api = trusting(scenario.ca())
    api.headers["Authorization"] = f"token {token}"
    hub = f"{scenario.published_url('hub')}/hub/api"
    number = api.get(f"{hub}/user", timeout=30).json()["token_id"]
    made = api.get(f"{hub}/users/alice/tokens/{number}", timeout=30).json()
    assert made["note"] == "no more than this"
    lasts = datetime.fromisoformat(made["expires_at"]) - datetime.fromisoformat(made["created"])
    assert abs(lasts - timedelta(days=MAXIMUM_DAYS)) < timedelta(minutes=1)

    started = api.post(f"{scenario.published_url('gateway')}/api/v1/clusters/", json={}, timeout=30)
    assert started.status_code == 201, started.text
    scenario.wait_until("the scheduler is a job", lambda: scenario.jobs_of("alice"))


def test_a_token_of_the_token_page_computes_on_the_login_host_until_it_is_revoked(alices_browser):
    page = alices_browser.open(f"{alices_browser.hub}/hub/token")
    if "/hub/login" in page.url:
        alices_browser.fill_in(page)
    note = f"from the browser, {uuid.uuid4().hex[:8]}"
    token = new_token(page, note, "access:services!service=dask-gateway")
    page.locator("#token-result").evaluate("element => element.textContent = '0'.repeat(32)")  # no secret in a picture
    screenshot(page, "token")

    path = "/home/users/alice/.config/dask/gateway.yaml"
    scenario.put_file("login", "alice", path, guide.gateway_yaml(token))
    assert scenario.host("login").file(path).mode == 0o600
    compute = (
        "module load jaspy && python -c \"import dask_gateway; g = dask_gateway.Gateway(auth='jupyterhub'); "
        'c = g.new_cluster(); c.scale(1); print(c.get_client().submit(sum, [40, 2]).result(timeout=90)); c.shutdown()"'
    )
    done = scenario.as_user("login", "alice", compute)
    assert done.stdout.split() == ["42"], done.stderr
    # The same in one step
    scenario.host("login").run("rm -f %s", path)
    login = scenario.as_user("login", "alice", "module load jaspy && dask-gateway-login", given=f"{token}\n")
    assert login.returncode == 0, login.stderr
    assert token not in login.stdout + login.stderr
    assert scenario.host("login").file(path).mode == 0o600
    listed = scenario.as_user("login", "alice", "module load jaspy && dask-gateway-login --check")
    assert listed.returncode == 0, listed.stderr

    page.reload()
    page.wait_for_function("window._jupyterhub_page_loaded")
    row = page.locator("tr.token-row").filter(has_text=note)
    assert "access:services!service=dask-gateway" in row.locator("pre").all_text_contents()
    row.get_by_role("button", name="revoke").click()
    row.wait_for(state="detached")
    refused = scenario.as_user("login", "alice", compute)
    assert refused.returncode != 0
    assert "was revoked" in refused.stderr
    checked = scenario.as_user("login", "alice", "module load jaspy && dask-gateway-login --check")
    assert checked.returncode == 1
    assert "was revoked" in checked.stderr
    scenario.host("login").run("rm -f %s", path)


NOTEBOOK = """import dask_gateway
cluster = dask_gateway.Gateway().new_cluster(workers=1)
client = cluster.get_client()
client.wait_for_workers(1)
print("computed:", client.submit(sum, [40, 2]).result())
cluster"""


def test_a_notebook_computes_on_the_batch_cluster_and_its_link_leads_to_the_dashboard(alices_browser, no_clusters_left):
    page = alices_browser.open(f"{alices_browser.hub}/hub/spawn")
    if "/hub/login" in page.url:
        alices_browser.fill_in(page)
    page.wait_for_url(re.compile(".*/user/alice/lab"), timeout=120_000)  # the server starts
    # One of her own, whose name sorts before theirs
    own = "/home/users/alice/.local/share/jupyter/kernels/aaa/kernel.json"
    kernel = {"argv": ["/bin/false"], "display_name": "AAA", "language": "python"}
    scenario.put_file("login", "alice", own, json.dumps(kernel))
    with scenario.removed_after("login", own):
        page.goto(f"{alices_browser.hub}/user/alice/lab?reset")
        cards = page.locator(".jp-LauncherCard[data-category=Notebook]")
        cards.filter(has_text="AAA").wait_for()
        assert [card.get_attribute("title") for card in cards.all()][:4] == [
            "Jaspy", "Jaspy 3.11 v20261101", "Jaspy 3.11 v20260401", "AAA",
        ]  # fmt: skip
        screenshot(page, "launcher")
    the_examples_open(page)
    page.goto(f"{alices_browser.hub}/user/alice/lab?reset")
    first_notebook(page)
    run_cell(page, NOTEBOOK)
    page.locator(".jp-OutputArea-output", has_text="computed: 42").wait_for(timeout=120_000)
    link = page.locator(".jp-OutputArea-output a", has_text="/clusters/")
    link.wait_for()
    screenshot(page, "notebook")
    with page.context.expect_page() as opened:
        link.click()
    live(opened.value)
    opened.value.close()

    the_widget_scales(page)
    the_panel_finds_the_dashboard_and_shows_it(page)
    screenshot(page, "panel")
    scenario.host("login").run("rm -f /home/users/alice/Untitled*.ipynb")


def the_examples_open(page) -> None:
    """From the folder in JupyterLab's file browser, by double clicks."""
    files = page.locator(".jp-DirListing-item")
    files.filter(has_text="dask-examples").dblclick()
    files.filter(has_text="1_first_cluster.ipynb").dblclick()
    page.get_by_role("heading", name="A first cluster").wait_for()
    screenshot(page, "example")


def the_widget_scales(page) -> None:
    """A click on the button of the cluster's form makes workers, which it counts."""
    page.get_by_text("Manual Scaling").click()
    page.get_by_role("spinbutton", name="Workers").fill("2")
    page.get_by_role("button", name="Scale", exact=True).click()
    scenario.wait_until("scheduler and two workers are jobs", lambda: len(scenario.jobs_of("alice")) == 3)
    page.locator("tr", has_text=re.compile(r"^\s*Workers\s+2\s*$")).wait_for(timeout=120_000)
    screenshot(page, "notebook")


def test_signing_out_of_the_hub_ends_the_session_at_the_gateway(alices_browser, new_cluster):
    """What is open draws no more, and what is opened asks for sign-in."""
    page = alices_browser.open(alices_browser.gateway)
    if "/hub/login" in page.url:
        alices_browser.fill_in(page)
        page.wait_for_url(f"{alices_browser.gateway}/**")
    dashboard, sockets = alices_browser.context.new_page(), []
    dashboard.on("websocket", lambda socket: sockets.append(socket))
    dashboard.goto(f"{alices_browser.gateway}/clusters/{new_cluster('alice')}/status")
    live(dashboard)
    assert [socket.is_closed() for socket in sockets] == [False]
    page.reload()
    assert "Your Dask clusters" in page.inner_text("main")
    page.get_by_role("link", name="Sign out").click()
    page.wait_for_load_state()

    def sign_in_is_asked_for() -> bool:
        page.goto(alices_browser.gateway)
        return "/hub/login" in page.url

    scenario.wait_until("the session has ended", sign_in_is_asked_for, timeout=20)

    def nothing_is_drawn() -> bool:
        dashboard.wait_for_timeout(200)  # the browser's events are told meanwhile
        return all(socket.is_closed() for socket in sockets)

    scenario.wait_until("the open dashboard's websocket has ended", nothing_is_drawn, timeout=40)
