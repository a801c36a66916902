"""The Hub's pages as the site's people see them: JupyterHub's, with the site's name and where to find help."""

import sys
from importlib.resources import files
from pathlib import Path

import jinja2
import pytest

STOCK = Path(sys.prefix) / "share/jupyterhub/templates"
SITE = {
    "site_name": "Test <site>",
    "support_address": "help@test",
    "support_link": "mailto:help@test",
    "guide": "/services/docs/",
    "clusters": "https://dask-gateway.test/",
    "base_url": "/hub/",
    "login_url": "/hub/login",
    "parsed_scopes": [],
    "static_url": lambda path, **_: f"/hub/static/{path}",
}


@pytest.fixture
def page():
    """`page("error.html", …)`: one of the Hub's pages, found as the Hub finds them."""
    ours = str(files("notebook_service") / "templates")
    loader = jinja2.ChoiceLoader(
        [jinja2.PrefixLoader({"templates": jinja2.FileSystemLoader(STOCK)}), jinja2.FileSystemLoader([ours, STOCK])]
    )
    environment = jinja2.Environment(loader=loader, autoescape=True)
    return lambda name, **values: environment.get_template(name).render(SITE | values)


@pytest.mark.parametrize("name", ["login.html", "error.html", "404.html", "logout.html", "not_running.html"])
@pytest.mark.parametrize("logo", [True, False])
def test_sign_in_and_error_pages_say_whose_they_are_and_where_to_find_help(page, name, logo):
    values = {"authenticator": type("Authenticator", (), {"request_otp": False}), "has_logo": logo}
    html = page(name, status_code=503, status_message="Service Unavailable", **values)
    assert "<title>Test &lt;site&gt;</title>" in html.replace("\n", "")
    assert "<span>Test &lt;site&gt;</span>" in html
    assert '<a href="mailto:help@test">help@test</a>' in html
    assert 'href="/services/docs/"' in html
    assert '<img src="/hub/logo"' in html
    assert ('alt="JupyterHub"' in html) is not logo


def test_who_is_signed_in_finds_clusters_and_guide(page):
    user = type("User", (), {"name": "alice", "json_escaped_name": "alice", "spawner": None})
    html = page("error.html", user=user, no_spawner_check=True, status_code=404, status_message="Not Found")
    assert '<a class="nav-link" href="https://dask-gateway.test/">Clusters</a>' in html
    assert "/hub/token" in html


def test_nothing_but_blocks_of_the_stock_pages_is_replaced():
    """What JupyterHub's next release changes in its pages is not lost."""
    for template in (files("notebook_service") / "templates").iterdir():
        assert '{% extends "templates/' in template.read_text(), template
