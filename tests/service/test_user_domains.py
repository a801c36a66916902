"""With a host name for each user's server, a page of one user's server can't act as another who opens it."""

import json
import re
from urllib.parse import urlsplit

import pytest
import scenario
from browser import Person, chromium, first_notebook, run_cell, screenshot, the_panel_finds_the_dashboard_and_shows_it

pytestmark = pytest.mark.long

NOTEBOOK = """import dask_gateway
cluster = dask_gateway.Gateway().new_cluster(workers=1)
client = cluster.get_client()
print("computed:", client.submit(sum, [40, 2]).result())"""

# What a page of carol's server may try while alice looks at it
READS_THE_TOKEN_PAGE = """hub => fetch(`${hub}/hub/token`, {credentials: "include"}).then(
    answer => answer.text()).then(text => /user: "alice"/.test(text) && text.match(/xsrf_token: "([^"]+)"/)[1],
    error => String(error))"""
MAKES_A_TOKEN = """async ([hub, xsrf]) => {
    const address = `${hub}/hub/api/users/alice/tokens?_xsrf=${encodeURIComponent(xsrf)}`;
    const request = {method: "POST", credentials: "include", body: '{"note": "of a page"}'};
    for (const way of [{headers: {"Content-Type": "application/json"}}, {mode: "no-cors"}])
        await fetch(address, {...request, ...way}).catch(error => String(error)); }"""
SETS_A_COOKIE = """domain => {
    document.cookie = `_xsrf=known; domain=${domain}; path=/hub/; secure`;
    document.cookie = `__Host-jupyterhub-hub-login=mine; domain=${domain}; path=/; secure`; }"""


def own_names(users: bool) -> None:
    for book in ("hub", "gateway"):
        done = scenario.playbook(book, "-e", json.dumps({"site_notebook_user_domains": users}))
        assert done.returncode == 0, done.stdout[-5000:]


@pytest.fixture
def settings(alice):
    """``settings(True)``: each user's server has a name of its own; after the test none has. Servers end with that."""

    def change(users: bool) -> None:
        scenario.host("hub").check_output("systemctl stop 'jupyter-*.service'")
        own_names(users)

    yield change
    change(False)


def alices(chrome) -> Person:
    """Alice at a browser whose pages may ask this machine, which is where the service is."""
    return Person(chrome, "alice", permissions=["local-network-access"])


def in_a_page_of_carols_server(person: Person, address: str):
    """A page under the address of carol's server, which is hers to fill: she may run another program there."""
    person.context.route(address, lambda route: route.fulfill(body="<h1>Look</h1>", content_type="text/html"))
    return person.open(address)


def notes_of(alice) -> list[str]:
    tokens = alice.api.get(f"{alice.url}/hub/api/users/alice/tokens", timeout=30)
    tokens.raise_for_status()
    return [token["note"] for token in tokens.json()["api_tokens"]]


@pytest.mark.parametrize("change", [{"site_notebook_user_domains": True}, {"jupyterhub_spawner": "slurm"}])
def test_no_server_is_forgotten_that_runs(alices_server, change):
    before = scenario.host("hub").check_output("sha256sum /etc/jupyterhub/*.*")
    refused = scenario.playbook("hub", "-e", json.dumps(change))
    assert refused.returncode != 0
    assert "These run: jupyter-alice-singleuser.service" in " ".join(refused.stdout.split()), refused.stdout[-3000:]
    assert scenario.host("hub").check_output("sha256sum /etc/jupyterhub/*.*") == before
    assert alices_server.server_answers()


def test_a_page_of_anothers_server_reads_and_makes_no_token(no_clusters_left, settings, alice):
    settings(True)
    with chromium() as chrome:
        browser, sockets, answers = alices(chrome), [], []
        hub = browser.hub
        domain = urlsplit(hub).hostname
        own = f"https://alice.{domain}"

        # As a user: everything is there, under the name of the user's own
        page = browser.open(f"{hub}/hub/spawn")
        page.on("websocket", lambda socket: sockets.append(socket.url))
        browser.fill_in(page)
        page.wait_for_url(f"{own}/user/alice/lab", timeout=120_000)
        page.goto(f"{own}/user/alice/lab?reset")
        page.wait_for_selector(".jp-Launcher")
        first_notebook(page)
        run_cell(page, NOTEBOOK)
        page.locator(".jp-OutputArea-output", has_text="computed: 42").wait_for(timeout=120_000)
        the_panel_finds_the_dashboard_and_shows_it(page)
        screenshot(page, "own-name")
        scenario.host("login").run("rm -f /home/users/alice/Untitled*.ipynb")

        # What is not the server's is under the Hub's name, whichever was asked
        for path in ("/hub/home", "/services/docs/", "/user/../hub/home"):
            elsewhere = browser.open(f"https://carol.{domain}{path}")
            assert elsewhere.url.startswith(f"{hub}/"), path
        # Her server, by the address that she had before
        assert browser.open(f"{hub}/user/alice/lab").url.startswith(f"{own}/user/alice/lab")

        # As carol
        channels = next(url for url in sockets if "/channels" in url)
        assert channels.startswith(f"wss://alice.{domain}/user/alice/api/kernels/")
        evil = in_a_page_of_carols_server(browser, f"https://carol.{domain}/user/carol/look")
        assert evil.evaluate(READS_THE_TOKEN_PAGE, hub) == "TypeError: Failed to fetch"
        evil.evaluate(SETS_A_COOKIE, domain)
        evil.on("response", lambda answer: answers.append(answer.status))
        evil.evaluate(MAKES_A_TOKEN, [hub, "known"])
        assert answers == [403]
        assert "of a page" not in notes_of(alice)
        assert browser.websocket(evil, channels, protocols=()) == "refused"
        assert browser.websocket(page, channels, protocols=()) == "open"
        # And alice is still who she was
        assert re.search(r'user: "alice"', browser.open(f"{hub}/hub/token").content())
        browser.context.close()

    # The same page where all have one name: the attempts themselves are good
    settings(False)
    with chromium() as chrome:
        browser = alices(chrome)
        browser.fill_in(browser.open(f"{hub}/hub/login?next=/hub/home"))
        evil = in_a_page_of_carols_server(browser, f"{hub}/user/carol/look")
        read = evil.evaluate(READS_THE_TOKEN_PAGE, hub)
        evil.evaluate(MAKES_A_TOKEN, [hub, read])
        assert "of a page" in notes_of(alice)
        browser.context.close()
