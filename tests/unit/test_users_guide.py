"""The user's guide as a page."""

import importlib.util
import re
from pathlib import Path

import jinja2
import pytest

REPOSITORY = Path(__file__).parents[2]
SPEC = importlib.util.spec_from_file_location("guide_filter", REPOSITORY / "plugins/filter/guide.py")
GUIDE = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(GUIDE)
SPEC = importlib.util.spec_from_file_location("jaspy_filter", REPOSITORY / "plugins/filter/jaspy.py")
JASPY = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(JASPY)
RELEASES = [{"name": f"jaspy3.12-v{day}", "lock": f"{day}.txt"} for day in (20280101, 20290101)]

TEXT = """# The guide

## First steps

```python
x < 1  # <b>
```

| a | b |
|---|---|
| 1 | 2 |

## First `steps`

<script>alert(1)</script>

    indented
"""


@pytest.fixture(scope="module")
def page():
    return GUIDE.guide_html(TEXT)


def test_each_section_has_an_address_and_stands_in_the_contents(page):
    assert page["title"] == "The guide"
    assert page["sections"] == [
        {"id": "first-steps", "title": "First steps"},
        {"id": "first-steps-2", "title": "First steps"},
    ]
    for section in page["sections"]:
        assert f'<h2 id="{section["id"]}">' in page["html"]


def test_a_block_of_code_has_a_button_that_says_what_it_copies(page):
    assert (
        '<button type="button" class="copy" hidden>Copy<span class="hidden"> block 1, First steps</span>'
        in page["html"]
    )
    assert '<code class="language-python">x &lt; 1  # &lt;b&gt;\n</code>' in page["html"]


def test_what_is_wider_than_the_page_is_reached_by_the_keyboard(page):
    assert re.search(r'<pre tabindex="0" role="region" aria-label="[^"]+">', page["html"])
    assert '<div class="table" tabindex="0" role="region" aria-label="Table 1"><table>' in page["html"]
    assert page["html"].count("</table></div>") == 1


def test_html_in_the_text_stays_text(page):
    assert "<script" not in page["html"]
    assert "&lt;script&gt;" in page["html"]


def guide(**host) -> str:
    """The guide's text for a site that has set this for its host."""
    values = {"hostvars": {"all": host}, "groups": {"dask_gateway": ["all"], "jupyterhub": ["all"], "login": ["all"]}}
    environment = jinja2.Environment(undefined=jinja2.ChainableUndefined, trim_blocks=True)  # noqa: S701
    environment.filters["jaspy_catalogue"] = JASPY.catalogue
    template = environment.from_string((REPOSITORY / "docs/users.md.j2").read_text())
    return template.render(values, site_support_address="help@example.org", site_jaspy_releases=RELEASES)


NETWORKS = {"networks": ["192.0.2.0/24"]}
DESKTOP = {"remote_desktop": "desktop.example.org"}
INSIDE = "It opens inside this site's network only: from elsewhere, use a browser on "


@pytest.mark.parametrize(
    ("inside", "sentence"),
    [
        (NETWORKS | DESKTOP, f"{INSIDE}desktop.example.org."),
        (NETWORKS, f"{INSIDE}a host inside it."),
        (NETWORKS | {"remote_desktop": ""}, f"{INSIDE}a host inside it."),
        (DESKTOP, None),
        ({}, None),
    ],
)
def test_the_guide_says_where_a_dashboard_opens(inside, sentence):
    text = guide(dask_gateway_dashboards_inside=inside)
    told = re.findall("^.*inside this site's network.*$", text, re.MULTILINE)
    assert told == ([sentence] if sentence else [])
    assert ("desktop.example.org" in text) == bool(sentence and "desktop" in sentence)


def test_the_guide_promises_no_dashboard_where_there_is_none():
    assert "This site runs clusters without Dask's dashboard." not in guide()
    text = guide(dask_gateway_dashboards=False)
    assert "This site runs clusters without Dask's dashboard." in text
    for promised in ("client.dashboard_link", "images/dashboard.png", "page *hardware*"):
        assert promised in guide()
        assert promised not in text
    assert "images/clusters.png" in text


def test_the_guide_names_the_examples_where_they_are():
    assert "The folder `dask-examples` in JupyterLab" in guide()
    text = guide(jupyterhub_examples_folder="", dask_client_examples_folder="/opt/examples")
    assert "The folder `dask-examples`" not in text
    assert "On login hosts, `/opt/examples` has notebooks" in text


def test_the_guide_names_the_release_that_the_site_has():
    text = guide()
    assert 'options.jaspy = "jaspy3.12-v20290101"' in text
    assert "`module load jaspy/3.12/v20290101`" in text


def test_the_guide_shows_every_picture_that_is_copied_for_it():
    shown = re.findall('<img src="images/([^"]+)"', GUIDE.guide_html(guide())["html"])
    assert sorted(shown) == sorted(path.name for path in (REPOSITORY / "docs/images").iterdir())


def test_the_guide_itself_has_a_button_on_every_block():
    text = guide()
    html = GUIDE.guide_html(text)["html"]
    assert html.count('class="copy"') == html.count("<pre") == len(re.findall(r"^ *```\w+$", text, re.MULTILINE))
    assert 'href="mailto:help@example.org"' in html
    for image in re.findall(r'<img src="([^"]+)"', html):
        assert (REPOSITORY / "docs" / image).exists(), image
