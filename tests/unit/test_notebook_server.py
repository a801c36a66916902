"""What each user's Jupyter server has besides: examples, dashboards for Dask's panel, and an end of what signed out."""

import asyncio
import gc
import json
import logging
from types import SimpleNamespace

import pytest
from jupyterhub.services.auth import HubOAuth
from tornado import web
from tornado.httpclient import HTTPRequest
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port
from tornado.websocket import WebSocketHandler, websocket_connect

from notebook_server import sign_out
from notebook_server.dashboards import of_the_gateway, plots_of
from notebook_server.examples import offer

GATEWAY = "https://dask-gateway.test"
LOG = logging.getLogger("test")


@pytest.fixture
def settings(tmp_path):
    folder = tmp_path / "examples"
    folder.mkdir()
    (folder / "first.ipynb").write_text("the site's")
    home = tmp_path / "home"
    home.mkdir()
    return SimpleNamespace(folder=str(folder), link="dask-examples", home=home)


def test_the_examples_are_found_in_the_users_folder(settings):
    assert offer(settings, settings.home, LOG)
    assert offer(settings, settings.home, LOG)
    assert (settings.home / "dask-examples/first.ipynb").read_text() == "the site's"


def test_a_link_to_where_the_examples_were_once_is_renewed(settings):
    (settings.home / "dask-examples").symlink_to("/nowhere")
    assert offer(settings, settings.home, LOG)
    assert (settings.home / "dask-examples/first.ipynb").exists()


@pytest.mark.parametrize("kind", ["folder", "file", "link"])
def test_what_the_user_has_under_that_name_stays(settings, kind, tmp_path):
    mine = settings.home / "dask-examples"
    if kind == "folder":
        mine.mkdir()
        (mine / "first.ipynb").write_text("my own")
    elif kind == "file":
        mine.write_text("my own")
    else:
        (tmp_path / "elsewhere").mkdir()
        mine.symlink_to(tmp_path / "elsewhere")
    before = mine.lstat()
    assert not offer(settings, settings.home, LOG)
    assert mine.lstat() == before


def test_a_home_that_takes_nothing_more_keeps_nobody_from_a_server(settings, caplog):
    assert not offer(settings, settings.home / "missing", LOG)
    assert "can't be offered" in caplog.text


def test_a_site_can_offer_none(settings):
    settings.folder = ""
    assert not offer(settings, settings.home, LOG)
    assert list(settings.home.iterdir()) == []


@pytest.mark.parametrize("end", ["", "/", "/status", "/status/"])
def test_a_dashboard_of_the_gateway_is_known(end):
    assert of_the_gateway(f"{GATEWAY}/clusters/0af1{end}", GATEWAY) == f"{GATEWAY}/clusters/0af1"
    assert of_the_gateway(f"{GATEWAY}/clusters/0af1{end}", f"{GATEWAY}/") == f"{GATEWAY}/clusters/0af1"


@pytest.mark.parametrize(
    "url",
    [
        "https://elsewhere.test/clusters/0af1/status",
        "https://dask-gateway.test.elsewhere.test/clusters/0af1",
        "https://dask-gateway.test:444/clusters/0af1",
        "https://dask-gateway.test@elsewhere.test/clusters/0af1",
        "http://dask-gateway.test/clusters/0af1",
        "https://dask-gateway.test/api/v1/clusters/",
        "https://dask-gateway.test/clusters/0af1/../../api",
        "",
    ],
)
def test_the_token_goes_to_no_other_address(url):
    assert of_the_gateway(url, GATEWAY) == ""
    assert of_the_gateway(url, "") == ""


@pytest.mark.parametrize(("token", "plots"), [("good", {"Individual CPU": "individual-cpu"}), ("bad", None)])
def test_the_plots_are_those_that_the_gateway_shows_the_user(token, plots):
    class Plots(web.RequestHandler):
        def get(self):
            if self.request.headers["Authorization"] != "token good":
                self.redirect("/sign-in")
                return
            self.write(json.dumps({"Individual CPU": "individual-cpu"}))

    async def test():
        socket, port = bind_unused_port(address="127.0.0.1")
        server = HTTPServer(web.Application([("/clusters/0af1/individual-plots.json", Plots)]))
        server.add_socket(socket)
        try:
            return await plots_of(f"http://127.0.0.1:{port}/clusters/0af1", token)
        finally:
            server.stop()

    assert asyncio.run(test()) == plots


def test_a_gateway_that_is_away_shows_no_plots():
    socket, port = bind_unused_port(address="127.0.0.1")
    socket.close()
    assert asyncio.run(plots_of(f"http://127.0.0.1:{port}/clusters/0af1", "good")) is None


# -- signing out --------------------------------------------------------------------------------------------------

SCOPE = "access:servers!server=alice/"
COOKIE = "jupyterhub-user-alice"
SECRET = "a secret of the server's"
SIGNED_OUT = (1008, "signed out")


class SignedIn:
    """A Hub, a user's server, and the websockets that are open to it."""

    def __init__(self):
        self.ended = set()  # tokens
        self.scopes = [SCOPE]
        self.status = 200
        self.asked = []
        self.handlers = []  # also those that are done
        hub, port = bind_unused_port(address="127.0.0.1")
        server, self._port = bind_unused_port(address="127.0.0.1")
        self.hub_auth = HubOAuth(
            api_url=f"http://127.0.0.1:{port}/hub/api", api_token="server", oauth_client_id=COOKIE,
            base_url="/user/alice/", access_scopes={SCOPE}, cache_max_age=10,
        )  # fmt: skip
        self.websockets = sign_out.OpenWebsockets()
        self.websockets.follow(self)
        self._servers = [HTTPServer(application) for application in (self._hub(), self._server())]
        for listening, socket in zip(self._servers, (hub, server), strict=True):
            listening.add_socket(socket)

    async def get_user(self, handler):
        """Let in as JupyterHub's own provider does."""
        user = await self.hub_auth.get_user(handler, sync=False)
        return user if user and self.hub_auth.check_scopes(self.hub_auth.access_scopes, user) else None

    def _hub(self):
        signed_in = self

        class User(web.RequestHandler):
            def get(self):
                token = self.request.headers["Authorization"].removeprefix("token ")
                signed_in.asked.append(token)
                self.set_status(403 if token in signed_in.ended else signed_in.status)
                self.write({"kind": "user", "name": "alice", "scopes": signed_in.scopes})

        return web.Application([("/hub/api/user", User)], log_function=lambda handler: None)

    def _server(self):
        provider = self

        class Echo(WebSocketHandler):
            async def prepare(self):
                provider.handlers.append(self)
                if await provider.get_user(self) is None:
                    raise web.HTTPError(403)

            def on_message(self, message):
                self.write_message(message)

        return web.Application([("/echo", Echo)], cookie_secret=SECRET, log_function=lambda handler: None)

    async def open(self, *, session="", token="", address=""):
        """A websocket with the cookies of a browser's session, or with a token in its header or its address."""
        headers = {"Sec-Fetch-Mode": "websocket"}
        if session:
            cookie = web.create_signed_value(SECRET, COOKIE, session).decode()
            headers["Cookie"] = f"{COOKIE}={cookie}; jupyterhub-session-id=browser-of-{session}"
        if token:
            headers["Authorization"] = f"token {token}"
        url = f"ws://127.0.0.1:{self._port}/echo" + (f"?token={address}" if address else "")
        return await websocket_connect(HTTPRequest(url, headers=headers))

    async def look(self):
        """Look, when what the Hub has answered before counts no more."""
        self.hub_auth.cache.clear()
        await self.websockets.look()

    def stop(self):
        for listening in self._servers:
            listening.stop()


async def end_of(websocket) -> tuple:
    """Code and reason with which a websocket is closed."""
    while await websocket.read_message() is not None:
        pass
    return websocket.close_code, websocket.close_reason


async def is_open(websocket) -> bool:
    await websocket.write_message("here?")
    return await websocket.read_message() == "here?"


@pytest.fixture
def signed_in():
    """`signed_in(test)` runs a coroutine function with a SignedIn."""

    def run(test):
        async def body():
            it = SignedIn()
            try:
                return await test(it)
            finally:
                it.stop()

        return asyncio.run(asyncio.wait_for(body(), 30))

    return run


def test_signing_out_closes_the_websockets_of_the_session_and_no_others(signed_in):
    async def test(it):
        hers = [await it.open(session="laptop"), await it.open(session="laptop")]
        others = [await it.open(session="desk"), await it.open(token="script"), await it.open(address="link")]
        await it.look()
        assert all([await is_open(websocket) for websocket in hers + others])
        it.ended.add("laptop")
        await it.look()
        return [await end_of(websocket) for websocket in hers], [await is_open(websocket) for websocket in others]

    assert signed_in(test) == ([SIGNED_OUT] * 2, [True] * 3)


@pytest.mark.parametrize("way", ["session", "token", "address"])
def test_whatever_let_a_websocket_in_closes_it_when_it_has_ended(signed_in, way):
    async def test(it):
        websocket = await it.open(**{way: "ends"})
        it.ended.add("ends")
        await it.look()
        return await end_of(websocket)

    assert signed_in(test) == SIGNED_OUT


def test_a_websocket_that_the_session_let_in_does_not_close_for_a_token_that_did_not(signed_in):
    async def test(it):
        it.ended.add("yesterday")
        websocket = await it.open(session="laptop", address="yesterday")
        await it.look()
        return await is_open(websocket)

    assert signed_in(test)


def test_who_may_no_longer_use_the_server_is_out(signed_in):
    async def test(it):
        websocket = await it.open(session="friend")
        it.scopes = ["self"]
        await it.look()
        return await end_of(websocket)

    assert signed_in(test) == SIGNED_OUT


@pytest.mark.parametrize("status", [500, 502, 503, 404, None])
def test_a_hub_that_is_away_signs_nobody_out(signed_in, status):
    async def test(it):
        websocket = await it.open(session="laptop")
        if status:
            it.status = status
        else:
            it.hub_auth.api_url = "http://127.0.0.1:9/hub/api"
        await it.look()
        return await is_open(websocket)

    assert signed_in(test)


def test_the_hub_is_asked_once_for_each_session_that_has_a_websocket_open(signed_in):
    async def test(it):
        stays = [await it.open(session="laptop") for _ in range(3)]
        goes = await it.open(session="desk")
        it.asked.clear()
        await it.websockets.look()  # its answers still count
        at_first = it.asked.copy()
        goes.close()
        await end_of(goes)
        await it.look()
        still = [await is_open(websocket) for websocket in stays]
        it.handlers.clear()
        gc.collect()
        return at_first, it.asked, still, len(it.websockets._let_in)

    assert signed_in(test) == ([], ["laptop"], [True] * 3, 3)


def test_it_looks_at_what_the_identity_provider_lets_in_and_again_and_again(signed_in, monkeypatch):
    every = []
    callback = SimpleNamespace(start=lambda: None)
    monkeypatch.setattr(sign_out, "PeriodicCallback", lambda look, each: every.append((look, each)) or callback)

    async def test(it):
        return [(it.websockets.look, 10_000)]

    assert signed_in(test) == every
    sign_out.OpenWebsockets().follow(SimpleNamespace(get_user=None))
    assert len(every) == 1, "a server without a Hub has nobody to ask"
