"""A real browser, Debian's chromium without a screen, that finds the service under the names that users know."""

import functools
import itertools
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import scenario
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Locator, Page, sync_playwright

# Of each scenario
SCREENSHOTS = scenario.STATE / "screenshots" / os.environ.get("MOLECULE_SCENARIO_NAME", "default")
# The browser starts no conversation of its own
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"]  # fmt: skip


@functools.cache
def pictures() -> Path:
    """The folder of screenshots, empty when a session begins: an old one would pass for a new one."""
    shutil.rmtree(SCREENSHOTS, ignore_errors=True)
    SCREENSHOTS.mkdir(parents=True)
    return SCREENSHOTS


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser; its contexts are people with cookies of their own."""
    pictures()
    program = shutil.which("chromium")
    assert program, "chromium is missing: script/test service installs it, or apt-get install chromium libatomic1"
    names = {"hub": "site_notebook_host", "gateway": "site_gateway_host"}
    ports = {name: scenario.published_url(name).rpartition(":")[2] for name in names}
    addresses = {scenario.site()[names[name]]: f"127.0.0.1:{port}" for name, port in ports.items()}
    addresses[f"*.{scenario.site()['site_notebook_host']}"] = addresses[scenario.site()["site_notebook_host"]]
    # The site's own host publishes nothing; this machine reaches it by Docker's bridge
    addresses[f"accounts.{scenario.site()['site_domain']}"] = f"{scenario.address('site')}:443"
    rules = ", ".join(f"MAP {name}:443 {address}" for name, address in addresses.items())
    # Whatever proxy this machine has, the service is here
    environment = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program,
            args=[*QUIET, f"--host-resolver-rules={rules}", "--no-proxy-server"],
            env=environment,
        )
        yield browser
        browser.close()


class Person:
    """One person at a browser."""

    _numbers = itertools.count(1)

    def __init__(self, browser: Browser, name: str | None = None, **options):
        # The scenario's authority is not the browser's: the certificates are tested by the other clients
        self.context: BrowserContext = browser.new_context(
            **{
                "ignore_https_errors": True,
                "bypass_csp": True,  # a test's scripts run in the pages
                "viewport": {"width": 1280, "height": 800},
                "permissions": ["clipboard-read", "clipboard-write"],
            }
            | options
        )
        self.context.set_default_timeout(45_000)
        self.name = name
        self.hub = f"https://{scenario.site()['site_notebook_host']}"
        self.gateway = f"https://{scenario.site()['site_gateway_host']}"

    def open(self, url: str) -> Page:
        """Open an address in a new tab."""
        page = self.context.new_page()
        page.goto(url)
        return page

    def fill_in(self, page: Page) -> None:
        """Sign in on the page that asks for it."""
        page.fill("#username_input", self.name)
        page.fill("#password_input", scenario.passwords()[self.name])
        page.click("#login_submit")

    def fill_in_at_portal(self, page: Page) -> None:
        """Sign in on the accounts portal's page, and come back to the Hub's."""
        page.fill("#id_username", self.name)
        page.fill("#id_password", scenario.passwords()[self.name])
        page.get_by_role("main").get_by_role("button", name="Sign in").click()
        page.wait_for_url(f"{self.hub}/**")

    def status(self, page: Page, path: str) -> int:
        """The status that a request of an open page's own script gets."""
        return page.evaluate("path => fetch(path, {redirect: 'manual'}).then(answer => answer.status)", path)

    def websocket(self, page: Page, address: str, protocols: tuple[str, ...] = ("bokeh", "none")) -> str:
        """Whether a page's script can open a websocket, of its own host where the address is a path."""
        return page.evaluate(
            """([address, protocols]) => new Promise(done => {
                const socket = new WebSocket(new URL(address, `wss://${location.host}`), protocols);
                socket.onopen = () => done("open");
                socket.onerror = () => done("refused");
            })""",
            [address, list(protocols)],
        )


def by_keyboard(page: Page, button: Locator) -> None:
    """Move to a button with Tab, and press it with Enter."""
    for _ in range(40):
        page.keyboard.press("Tab")
        if button.evaluate("element => element === document.activeElement"):
            page.keyboard.press("Enter")
            return
    raise AssertionError("Tab does not lead to it")


def first_notebook(page: Page) -> None:
    """From JupyterLab's launcher to a notebook with the first kernel, to be typed into."""
    page.locator(".jp-LauncherCard[data-category=Notebook]").first.click()
    page.locator(".jp-Notebook .jp-Cell .cm-content").first.click()
    page.get_by_text("Jaspy | Idle").wait_for(timeout=90_000)


def run_cell(page: Page, code: str) -> None:
    """Type code into the cell and run it."""
    page.keyboard.insert_text(code)
    page.keyboard.press("Shift+Enter")


def the_panel_finds_the_dashboard_and_shows_it(page: Page) -> None:
    """JupyterLab's Dask panel asks the notebook for its client by itself, and shows plots in a tab beside it."""
    page.locator(".jp-SideBar [data-id='dask-dashboard-launcher']").click()
    page.get_by_role("button", name="Task Stream", exact=True).click()
    frame = page.frame_locator("iframe[src*='/clusters/']")
    frame.locator(".bk-Figure, .bk-Row, .bk-Column").first.wait_for()


def screenshot(page: Page, name: str) -> None:
    """Keep what a person sees, for people to look at."""
    page.screenshot(path=pictures() / f"{name}.png")


@functools.cache
def axe() -> Axe:
    """axe-core from npm, which checks it against the lock beside this file."""
    folder = scenario.STATE / "axe"
    shutil.copytree(Path(__file__).parent / "axe", folder, dirs_exist_ok=True)
    install = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier"]
    done = subprocess.run(install, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return Axe.from_file(folder / "node_modules/axe-core/axe.min.js")


def serious_findings(page: Page) -> list[str]:
    """What axe-core finds that keeps people from using a page."""
    found = axe().run(page).response["violations"]
    return [
        f"{one['id']}: {one['help']}: {one['nodes'][0]['html']}"
        for one in found
        if one["impact"] in ("serious", "critical")
    ]
