"""The pages for browsers, with a Hub and a gateway that the tests play."""

import asyncio
import ipaddress
import json
import re
from http.cookies import SimpleCookie
from urllib.parse import parse_qs, urlsplit

import pytest
from tornado import web
from tornado.httpclient import AsyncHTTPClient
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port

from cluster_pages.app import application
from cluster_pages.handlers import KEY_HEADER, SESSION_HEADER, Page, age
from cluster_pages.settings import Settings

URL = "https://dask-gateway.test"
SCOPE = "access:services!service=dask-gateway"
CLUSTER = "a" * 32
BROWSER = {"Sec-Fetch-Mode": "navigate", "User-Agent": "test", "X-Real-IP": "192.0.2.7", "X-Scheme": "https"}


class Hub:
    """What the Hub and the gateway know; each token belongs to the user of that name."""

    def __init__(self):
        self.scopes = [SCOPE]
        self.signed_out = set()
        self.asked = []
        self.gateway_status = None
        self.clusters = [
            {"name": CLUSTER, "status": "RUNNING", "dashboard": True, "started": 0, "workers": 3, "workers_waiting": 1,
             "cores": 12, "memory": 3 * 2**30},
        ]  # fmt: skip

    def application(self):
        hub = self

        class User(web.RequestHandler):
            def get(self):
                name = self.request.headers["Authorization"].removeprefix("token ")
                if name in hub.signed_out:
                    self.set_status(403)
                self.write({"kind": "user", "name": name, "groups": [], "admin": False, "scopes": hub.scopes})

        class Token(web.RequestHandler):
            def post(self):
                self.write({"access_token": self.get_argument("code"), "token_type": "Bearer"})

        class Gateway(web.RequestHandler):
            def get(self, path):
                user = self.request.headers["Authorization"].removeprefix("token ")
                hub.asked.append((self.request.method, path, user))
                if hub.gateway_status:
                    self.set_status(hub.gateway_status)
                    self.write({"error": "no"})
                elif path == "summaries":
                    self.write(json.dumps(hub.clusters if user == "alice" else []))
                elif user in hub.signed_out:
                    self.set_status(422)
                    self.write({"error": "Your token is wrong, has expired or was revoked."})
                elif path.rpartition("/")[2] != CLUSTER:
                    self.set_status(404)
                    self.write({"error": "There is no such cluster."})
                elif user != "alice":
                    self.set_status(403)
                    self.write({"error": "This cluster belongs to somebody else."})
                elif self.request.method == "DELETE":
                    self.set_status(204)
                else:
                    self.write({"key": "the-key"})

            delete = get

        return web.Application(
            [(r"/hub/api/user", User), (r"/hub/api/oauth2/token", Token), (r"/api/v1/(.*)", Gateway)],
            log_function=lambda handler: None,
        )


class Browser:
    """A browser that follows nothing by itself and keeps its cookies."""

    def __init__(self, address, hub):
        self.address = address
        self.hub = hub
        self.cookies = {}

    async def ask(self, path, method="GET", body=None, **headers):
        headers = BROWSER | {name.replace("_", "-"): value for name, value in headers.items()}
        if self.cookies:
            headers["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        answer = await AsyncHTTPClient().fetch(
            self.address + path,
            method=method,
            headers=headers,
            body=body,
            follow_redirects=False,
            raise_error=False,
            allow_nonstandard_methods=True,
        )
        self.set_cookies = answer.headers.get_list("Set-Cookie")
        for line in self.set_cookies:
            for name, cookie in SimpleCookie(line).items():
                if cookie["expires"] and not cookie.value:
                    self.cookies.pop(name, None)
                else:
                    self.cookies[name] = cookie.value
        return answer

    async def sign_in(self, name, path="/"):
        """Come back from the Hub as this user; the address that the browser is sent to then."""
        sent = await self.ask(path)
        question = parse_qs(urlsplit(sent.headers["Location"]).query)
        back = await self.ask(f"/oauth_callback?code={name}&state={question['state'][0]}")
        return back.headers["Location"]

    async def authorize(self, cluster=CLUSTER, method="GET", **headers):
        """What the front end is told: status and key."""
        answer = await self.question(cluster, method, **headers)
        return answer.code, answer.headers.get(KEY_HEADER)

    async def question(self, cluster=CLUSTER, method="GET", **headers):
        uri = f"/clusters/{cluster}/status"
        return await self.ask("/authorize", X_Original_URI=uri, X_Original_Method=method, **headers)


@pytest.fixture
def pages():
    """`pages(test)` runs a coroutine function with a Browser."""

    def run(test, **changes):
        async def body():
            hub = Hub()
            sockets = [bind_unused_port(address="127.0.0.1") for _ in range(2)]
            hub_url, address = (f"http://127.0.0.1:{port}" for _, port in sockets)
            site = Settings(
                **{"url": URL, "hub_url": hub_url, "gateway_api": hub_url, "site_name": "Test <site>",
                   "support_address": "help@test", "api_token": "secret", "check_interval": 0} | changes
            )  # fmt: skip
            servers = [HTTPServer(hub.application()), HTTPServer(application(site), xheaders=True)]
            for server, (socket, _) in zip(servers, sockets, strict=True):
                server.add_socket(socket)
            try:
                return await test(Browser(address, hub))
            finally:
                for server in servers:
                    server.stop()

        return asyncio.run(asyncio.wait_for(body(), 30))

    return run


def test_nobody_signed_in_is_sent_to_the_hub_and_comes_back_to_the_dashboard(pages):
    async def test(browser):
        sent = await browser.ask(f"/clusters/{CLUSTER}/status?a=b")
        target = await browser.sign_in("alice", f"/clusters/{CLUSTER}/status?a=b")
        return sent, target, browser.set_cookies

    sent, target, cookies = pages(test)
    location = urlsplit(sent.headers["Location"])
    assert (sent.code, location.path) == (302, "/hub/api/oauth2/authorize")
    assert parse_qs(location.query)["redirect_uri"] == [f"{URL}/oauth_callback"]
    assert target == f"/clusters/{CLUSTER}/status?a=b"
    (session,) = [cookie for cookie in cookies if cookie.startswith("__Host-service-dask-gateway=")]
    assert {"HttpOnly", "Secure", "Path=/", "SameSite=Lax"} <= set(session.split("; "))


@pytest.mark.parametrize("header", [{"Sec_Fetch_Mode": "cors"}, {"Upgrade": "websocket"}])
def test_what_a_page_loads_by_itself_begins_no_sign_in(pages, header):
    async def test(browser):
        return (await browser.ask(f"/clusters/{CLUSTER}/status/ws", **header)).code, browser.cookies

    assert pages(test) == (403, {})


def test_the_key_is_for_the_owner_alone(pages):
    async def test(browser):
        nobody = await browser.authorize()
        await browser.sign_in("carol")
        other = await browser.authorize()
        page = await browser.ask(f"/clusters/{CLUSTER}/status")
        browser.cookies.clear()
        await browser.sign_in("alice")
        return nobody, other, page, await browser.authorize(), await browser.authorize("b" * 32)

    nobody, other, page, owner, unknown = pages(test)
    assert nobody == (401, None)
    assert other == (403, None)
    assert page.code == 403
    assert "belongs to somebody else" in page.body.decode()
    assert owner == (200, "the-key")
    assert unknown == (403, None)


def test_a_forged_session_is_none(pages):
    async def test(browser):
        await browser.sign_in("alice")
        (name,) = [name for name in browser.cookies if "service" in name]
        browser.cookies[name] = browser.cookies[name].replace("service", "Service")
        return await browser.authorize()

    assert pages(test) == (401, None)


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("GET", {"Upgrade": "websocket", "Origin": URL}, 200),
        ("GET", {"Upgrade": "websocket", "Origin": "https://notebooks.test"}, 403),
        ("GET", {"Upgrade": "websocket"}, 403),
        ("HEAD", {}, 200),
        ("POST", {}, 403),
        ("DELETE", {}, 403),
    ],
)
def test_others_pages_open_no_websocket_and_nothing_is_sent_to_a_dashboard(pages, method, headers, status):
    async def test(browser):
        await browser.sign_in("alice")
        return (await browser.authorize(method=method, **headers))[0]

    assert pages(test) == status


@pytest.mark.parametrize(
    ("header", "status"),
    [("token alice", 200), ("Bearer alice", 200), ("token carol", 403), ("Basic alice", 401), ("token ", 401)],
)
def test_a_hub_token_opens_what_its_owner_may_see(pages, header, status):
    async def test(browser):
        return (await browser.authorize(Authorization=header))[0]

    assert pages(test) == status


def test_a_websocket_brings_a_ticket_that_holds_while_the_session_does(pages):
    async def test(browser):
        await browser.sign_in("alice")
        page = await browser.question()
        websocket = await browser.question(Upgrade="websocket", Origin=URL)
        ticket = websocket.headers[SESSION_HEADER]
        browser.cookies.clear()  # the scheduler has no cookie

        async def asked(ticket):
            return (await browser.ask("/session", X_Dask_Dashboard_Session=ticket)).code

        answers = [await asked(ticket)]
        browser.hub.gateway_status = 503
        answers.append(await asked(ticket))
        browser.hub.gateway_status = None
        browser.hub.signed_out.add("alice")
        answers += [await asked(ticket), await asked(ticket[:-4] + "AAAA"), await asked("")]
        return page.headers.get(SESSION_HEADER), ticket, answers

    without, ticket, answers = pages(test)
    assert without is None
    assert "alice" not in ticket
    # goes on; nobody knows; has ended; none of ours
    assert answers == [204, 503, 410, 400, 400]


def test_a_site_can_keep_dashboards_inside_its_network(pages):
    async def test(browser):
        await browser.sign_in("alice")
        outside = await browser.authorize(), await browser.ask(f"/clusters/{CLUSTER}/status")
        return *outside, await browser.authorize(X_Real_IP="198.51.100.4")

    networks = (ipaddress.ip_network("198.51.100.0/24"),)
    refused, page, inside = pages(test, networks=networks, remote_desktop="desktop.test")
    assert refused == (403, None)
    assert "a browser on desktop.test" in page.body.decode()
    assert inside == (200, "the-key")


def test_signing_out_at_the_hub_ends_the_session_here(pages):
    async def test(browser):
        await browser.sign_in("alice")
        browser.hub.signed_out.add("alice")
        refused = await browser.authorize()
        while (page := await browser.ask("/")).code == 200:
            await asyncio.sleep(0.1)
        return refused, page

    refused, page = pages(test)
    assert refused == (403, None)
    assert page.code == 302


def test_an_answer_counts_for_some_seconds_and_for_that_session_and_cluster_alone(pages):
    async def test(browser):
        await browser.sign_in("alice")
        answers = [await browser.authorize(), await browser.authorize()]
        questions = len(browser.hub.asked)
        answers.append(await browser.authorize("b" * 32))
        browser.cookies.clear()
        await browser.sign_in("carol")
        return questions, [*answers, await browser.authorize()]

    questions, answers = pages(test, check_interval=60)
    assert questions == 1
    assert [status for status, _ in answers] == [200, 200, 403, 403]


def test_the_list_shows_a_users_clusters_with_link_and_button(pages):
    async def test(browser):
        await browser.sign_in("alice")
        mine = (await browser.ask("/")).body.decode()
        browser.cookies.clear()
        await browser.sign_in("carol")
        return mine, (await browser.ask("/")).body.decode()

    mine, others = pages(test)
    assert f'href="/clusters/{CLUSTER}/status"' in mine
    assert re.search(r"<td>3 and 1 starting</td>\s*<td>12</td>\s*<td>3.0 GiB</td>", mine)
    assert "Test &lt;site&gt;" in mine
    assert "help@test" in mine
    assert CLUSTER not in others
    assert "gateway.new_cluster()" in others


def test_a_cluster_is_stopped_by_its_button_and_not_by_a_page_of_others(pages):
    async def test(browser):
        await browser.sign_in("alice")
        page = (await browser.ask("/")).body.decode()
        form = f"cluster={CLUSTER}&_xsrf="
        token = re.search(r'name="_xsrf" value="([^"]+)"', page)[1]
        kind = {"Content_Type": "application/x-www-form-urlencoded"}
        forged = [await browser.ask("/stop", "POST", form + word, **kind) for word in ("", "wrong", token[:-2] + "xx")]
        stopped = [question for question in browser.hub.asked if question[0] == "DELETE"]
        done = await browser.ask("/stop", "POST", form + token, **kind)
        return [answer.code for answer in forged], stopped, done, browser.hub.asked[-1]

    forged, stopped, done, last = pages(test)
    assert forged == [403, 403, 403]
    assert stopped == []
    assert (done.code, done.headers["Location"]) == (303, "/")
    assert last == ("DELETE", f"clusters/{CLUSTER}", "alice")


def test_who_has_signed_out_elsewhere_and_stops_a_cluster_reads_so_and_finds_the_list(pages):
    async def test(browser):
        await browser.sign_in("alice")
        page = (await browser.ask("/")).body.decode()
        form = f"cluster={CLUSTER}&_xsrf=" + re.search(r'name="_xsrf" value="([^"]+)"', page)[1]
        kind = {"Content_Type": "application/x-www-form-urlencoded"}
        browser.hub.signed_out.add("alice")
        Page.hub_auth.cache.clear()
        answers = [await browser.ask("/stop", "POST", form, **kind)]  # which takes the session's cookie away
        answers.append(await browser.ask("/stop", "POST", form, **kind))
        listed = await browser.ask("/")
        await browser.sign_in("carol")  # a new session, and the list in an old tab
        answers.append(await browser.ask("/stop", "POST", form, **kind))
        return answers, listed, browser.hub.asked

    answers, listed, asked = pages(test)
    for answer in answers:
        text = answer.body.decode()
        assert answer.code == 403
        assert "<h1>Nothing was stopped</h1>" in text
        assert "You have signed out, or in again, since this list was opened." in text
        assert '<a href="/">Your clusters</a>' in text
        assert "xsrf" not in text.lower()
    assert (listed.code, urlsplit(listed.headers["Location"]).path) == (302, "/hub/api/oauth2/authorize")
    assert "DELETE" not in [method for method, _, _ in asked]


@pytest.mark.parametrize(
    ("status", "answered", "sentence"),
    [(404, 404, "has ended"), (409, 503, "still starting"), (410, 404, "has ended"), (500, 502, "does not answer")],
)
def test_a_dashboard_that_is_not_there_is_a_sentence(pages, status, answered, sentence):
    async def test(browser):
        await browser.sign_in("alice")
        browser.hub.gateway_status = status
        return await browser.ask(f"/clusters/{CLUSTER}/status")

    page = pages(test)
    assert page.code == answered
    assert sentence in page.body.decode()


def test_an_address_without_the_page_leads_its_owner_to_the_dashboard_and_nobody_else(pages):
    async def test(browser):
        answers = [await browser.ask(f"/clusters/{CLUSTER}")]
        for name in ("alice", "carol"):
            browser.cookies.clear()
            await browser.sign_in(name)
            answers.append(await browser.ask(f"/clusters/{CLUSTER}"))
        return [(answer.code, urlsplit(answer.headers.get("Location", "")).path) for answer in answers]

    assert pages(test) == [(302, "/hub/api/oauth2/authorize"), (302, f"/clusters/{CLUSTER}/status"), (403, "")]


def test_pages_lead_to_the_guide_and_to_help_and_show_the_logo(pages):
    site = {
        "guide_url": "https://notebooks.test/services/docs/",
        "logo_url": "https://notebooks.test/hub/logo",
        "support_address": "https://help.test/desk",
    }

    async def test(browser):
        return (await browser.ask("/nothing")).body.decode()

    page = pages(test, **site)
    assert '<a href="https://notebooks.test/services/docs/">' in page
    assert 'href="https://notebooks.test/services/docs/#when-it-does-not-work"' in page
    assert '<img src="https://notebooks.test/hub/logo" alt="">' in page
    assert '<a href="https://help.test/desk">' in page
    plain = pages(test)
    assert "<img" not in plain
    assert '<a href="mailto:help@test">' in plain


def test_an_account_without_the_scope_is_refused(pages):
    async def test(browser):
        browser.hub.scopes = ["self"]
        await browser.sign_in("alice")
        return await browser.ask("/")

    page = pages(test)
    assert page.code == 403
    assert "may not use this service" in page.body.decode()


def test_pages_are_in_nobodys_frame_and_run_no_script(pages):
    async def test(browser):
        return await browser.ask("/nothing")

    page = pages(test)
    assert page.code == 404
    assert "frame-ancestors 'none'" in page.headers["Content-Security-Policy"]
    assert "script" not in page.body.decode()


@pytest.mark.parametrize(
    ("seconds", "text"), [(-5, "0 min"), (59, "0 min"), (3599, "59 min"), (7260, "2 h 1 min"), (864000, "10 days")]
)
def test_an_age_is_for_people(seconds, text):
    assert age(seconds) == text


def test_settings_say_what_is_wrong_with_them(tmp_path):
    file = tmp_path / "pages.json"
    file.write_text('{"url": "https://a", "networks": ["10.0.0.0/8/8"]}')
    with pytest.raises(ValueError, match=r"10\.0\.0\.0/8/8"):
        Settings.read(file, "secret")
