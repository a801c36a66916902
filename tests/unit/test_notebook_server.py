"""What each user's Jupyter server has besides: the examples, and the gateway's dashboards for Dask's panel."""

import asyncio
import json
import logging
from types import SimpleNamespace

import pytest
from tornado import web
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port

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
