"""Pages that need no sign-in: the user's guide, and what people read while something is away."""

import re

import pytest
import scenario
from browser import Person, by_keyboard, chromium, screenshot, serious_findings

GUIDE = "/services/docs/"


@pytest.fixture(scope="module")
def chrome():
    with chromium() as browser:
        yield browser


def test_the_guide_is_there_for_everybody_with_this_sites_addresses_and_runs_nothing_of_others():
    assert scenario.get("hub", GUIDE.rstrip("/")).headers["Location"] == GUIDE
    answer = scenario.get("hub", GUIDE)
    assert answer.status_code == 200
    policy = answer.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
    assert "unsafe" not in policy
    assert answer.headers["Strict-Transport-Security"]
    text = answer.text
    assert f"Gateway(&quot;https://{scenario.site()['site_gateway_host']}&quot;" in text
    assert f"https://{scenario.site()['site_notebook_host']}/hub/token" in text
    assert "{{" not in text
    for name in re.findall(r'(?:src|href)="([a-z][^":#]*)"', text):
        assert scenario.get("hub", GUIDE + name).status_code == 200, name
    assert scenario.get("hub", f"{GUIDE}..%2f..%2f..%2fetc/passwd").status_code in (400, 404)
    assert scenario.get("hub", f"{GUIDE}images/").status_code == 403


def test_a_block_of_the_guide_is_copied_by_the_keyboard(chrome):
    person = Person(chrome, bypass_csp=False)
    page = person.open(f"{person.hub}{GUIDE}")
    by_keyboard(page, page.get_by_role("button", name="Copy block 2, In the notebook service"))
    page.get_by_role("status").filter(has_text="Copied").wait_for()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == page.locator("pre").nth(1).inner_text().rstrip()
    assert copied.startswith("import dask.array as da\n")
    compile(copied, "the guide", "exec")
    screenshot(page, "guide")
    page.get_by_role("link", name="When it does not work").click()
    assert page.url.endswith("#when-it-does-not-work")
    person.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everybody_can_use_the_guide_and_the_hubs_pages(chrome, scheme):
    person = Person(chrome, color_scheme=scheme)
    for path in (GUIDE, "/hub/login", "/hub/error/403"):
        assert serious_findings(person.open(f"{person.hub}{path}")) == [], path
    person.context.close()


def has_the_sites_name_and_help(text: str) -> bool:
    site = scenario.site()
    return site["site_name"] in text and f"mailto:{site['site_support_address']}" in text


def test_pages_of_the_hub_carry_the_sites_name_its_logo_and_where_to_find_help():
    missing = scenario.get("hub", "/hub/no-such-page")
    assert missing.status_code == 404
    errors = {status: scenario.get("hub", f"/hub/error/{status}") for status in (403, 500, 503)}
    for status, page in errors.items():
        assert f"<h1>{status}:" in page.text
    for page in (
        scenario.get("hub", "/hub/login"),
        missing,
        *errors.values(),
        scenario.get("gateway", "/no-such-page"),
    ):
        assert has_the_sites_name_and_help(page.text), page.url
        assert GUIDE in page.text
    beside = scenario.get("hub", "/services/docs/no-such-page")
    assert beside.status_code == 404
    assert has_the_sites_name_and_help(beside.text)
    (shown,) = re.findall(r'<img src="([^"]+)"', missing.text)
    logo = (scenario.REPOSITORY / "molecule/shared/files/logo.svg").read_bytes()
    assert scenario.get("hub", shown).content == logo


def test_who_saves_more_than_can_be_sent_reads_how_much_that_is_and_what_to_do(alices_server):
    book = {"type": "file", "format": "text", "content": "x" * (65 << 20)}
    answer = alices_server.api.put(f"{alices_server.server_url}/api/contents/too-large.txt", json=book, timeout=120)
    assert answer.status_code == 413
    assert "larger than 64m" in answer.json()["message"]
    assert "clearing its outputs" in answer.json()["message"]


@pytest.mark.parametrize(
    ("host", "unit", "path", "status"),
    [
        ("hub", "jupyterhub.service", "/hub/login", 503),
        ("hub", "jupyterhub-proxy.service", "/hub/login", 502),
        ("gateway", "dask-gateway-pages.service", "/", 502),
        ("gateway", "dask-gateway-pages.service", "/clusters/0af1/status", 502),
    ],
)
def test_while_a_service_is_away_people_read_that_and_where_to_find_help(
    chrome, alices_server, host, unit, path, status
):
    machine = scenario.host(host)
    machine.check_output("systemctl stop %s", unit)
    try:
        page = scenario.get(host, path)
        assert page.status_code == status
        assert page.headers["Content-Type"] == "text/html; charset=utf-8"
        assert "does not answer at the moment" in page.text
        assert has_the_sites_name_and_help(page.text)
        (logo,) = re.findall(r'<img src="([^"]+)"', page.text)
        assert scenario.get(host, logo).headers["Content-Type"] == "image/svg+xml"
        for scheme in ("light", "dark"):
            person = Person(chrome, color_scheme=scheme)
            shown = person.open(getattr(person, host) + path)
            assert "does not answer at the moment" in shown.inner_text("main")
            assert serious_findings(shown) == []
            screenshot(shown, f"away-{unit}-{scheme}")
            person.context.close()
        if host == "hub":
            assert scenario.get("hub", GUIDE).status_code == 200
    finally:
        machine.check_output("systemctl start %s", unit)
        scenario.wait_until(f"{unit} answers", lambda: scenario.get(host, path).status_code < 500)
    scenario.wait_until("alice's server is where it was", alices_server.server_answers)


def test_who_tries_to_sign_in_too_often_reads_that_and_where_to_find_help(chrome):
    """The attempts are the gateway host's, whose address signs nobody in; the browser is shown what it was answered."""
    address = f"https://{scenario.site()['site_notebook_host']}/hub/login"
    program = (
        "import urllib.error, urllib.request\n"
        "for n in range(200):\n"
        "    try:\n"
        f"        urllib.request.urlopen({address!r}, b'username=alice')\n"
        "    except urllib.error.HTTPError as error:\n"
        "        if error.code == 429:\n"
        "            print(error.headers['Content-Type'], error.read().decode(), sep='\\n')\n"
        "            break\n"
    )
    kind, _, text = scenario.host("gateway").check_output("/usr/bin/python3 -c %s", program).partition("\n")
    assert kind == "text/html; charset=utf-8"
    assert has_the_sites_name_and_help(text)
    (logo,) = re.findall(r'<img src="([^"]+)"', text)
    assert scenario.get("hub", logo).headers["Content-Type"] == "image/svg+xml"
    for scheme in ("light", "dark"):
        person = Person(chrome, color_scheme=scheme)
        page = person.context.new_page()
        page.route(address, lambda route: route.fulfill(status=429, content_type=kind, body=text))
        page.goto(address)
        assert "Too many attempts from your address" in page.inner_text("main")
        assert "Wait a minute, then try again." in page.inner_text("main")
        assert serious_findings(page) == []
        screenshot(page, f"too-many-attempts-{scheme}")
        person.context.close()
