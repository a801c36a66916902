"""The site's accounts portal, as tests change it, as people use its pages, and as the gateway's decisions show it."""

import json
import subprocess
import time
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import requests
import scenario
from hub_client import HubUser, trusting
from portal_control import PortalControl

CONFIGURATION = "/etc/accounts-check/dask-gateway"
AUDIT_LOG = "/var/log/accounts-check/dask-gateway/audit.log"
ANSWERS = "/var/lib/accounts-check/dask-gateway/answers.sqlite"
A_CLUSTER = "a cluster"

_CALL_CONTROL = """
import sys, urllib.error, urllib.request as u
method, path = sys.argv[1:]
request = u.Request(f"http://127.0.0.1:8001/control/{path}", sys.stdin.buffer.read(), method=method)
try:
    print(u.urlopen(request, timeout=20).read().decode())
except urllib.error.HTTPError as error:
    print(error.read().decode())
"""


def today():
    """The day that it is at the site, by whose end grants expire."""
    return datetime.now(ZoneInfo(scenario.site()["common_timezone"])).date()


def control() -> PortalControl:
    """What tests do to the portal; its control listens on the loopback of its host."""

    def call(method: str, path: str, body: str) -> str:
        return subprocess.run(
            ["docker", "exec", "-i", f"{scenario.PREFIX}-site", "python3", "-c", _CALL_CONTROL, method, path],
            input=body, capture_output=True, text=True, check=True, timeout=60,
        ).stdout  # fmt: skip

    return PortalControl(call)


def answers() -> bool:
    """Whether the portal answers."""
    try:
        return "token" in control().requests()
    except (subprocess.CalledProcessError, ValueError):
        return False


def start() -> None:
    """Start the portal and wait until it answers."""
    scenario.host("site").check_output("systemctl start accounts-portal")
    scenario.wait_until("the accounts portal answers", answers)


def stop() -> None:
    """Take the portal away."""
    scenario.host("site").check_output("systemctl stop accounts-portal")


def check(user: str, *options: str) -> tuple[int, dict]:
    """What `gateway-admin accounts check` says: its exit code and its answer."""
    command = " ".join(["gateway-admin accounts check --json", *options, "-- %s"])
    done = scenario.host("gateway").run(command, user)
    return done.rc, json.loads(done.stdout)


def audited(user: str) -> list[dict]:
    """The entries of the gateway's audit log about a user."""
    text = scenario.host("gateway").check_output(f"cat {AUDIT_LOG}")
    entries = [json.loads(line) for line in text.splitlines()]
    return [entry for entry in entries if entry["user"] == user]


_REMEMBERED_FOR = """
import json, sqlite3, sys, time
answers = sqlite3.connect(f"file:{sys.argv[1]}?mode=ro", uri=True)
rows = answers.execute("select answer from answers where user = ?", sys.argv[2:])
print(max([json.loads(answer)["until"] - time.time() for answer, in rows], default=0))
"""


def wait_until_asked_anew(user: str) -> None:
    """Wait until what the gateway remembers of a user is too old, and the portal is asked at the user's next request.

    A question that is under way may be answered only meanwhile: the gateway itself asks about those who compute.
    """

    def seconds_left() -> float:
        done = scenario.host("gateway").check_output("python3 -c %s %s %s", _REMEMBERED_FOR, ANSWERS, user)
        return float(done)

    def is_old() -> bool:
        left = seconds_left()
        time.sleep(max(0, left))
        return left <= 0

    scenario.wait_until(f"nothing is remembered of {user}", is_old, timeout=60)


class Requests:
    """What users ask of the gateway's API, each with a token of the Hub, as dask_gateway.Gateway does."""

    def __init__(self, hub_user):
        self._hub_user = hub_user
        self._sessions: dict[str, requests.Session] = {}
        self.clusters = scenario.published_url("gateway") + "/api/v1/clusters/"

    def session(self, user: str) -> requests.Session:
        """The user's own session."""
        if user not in self._sessions:
            person: HubUser = self._hub_user(user)
            self._sessions[user] = session = trusting(scenario.ca())
            session.headers["Authorization"] = f"jupyterhub {person.new_token(note='accounts')}"
        return self._sessions[user]

    def new_cluster(self, user: str, live: bool = False) -> str:
        """Ask for a cluster: A_CLUSTER, which is stopped at once, or the sentence that the user reads.

        With `live`, whatever the gateway remembers of the user is let grow old first.
        """
        if live:
            wait_until_asked_anew(user)
        answer = self.session(user).post(self.clusters, json={}, timeout=60)
        if answer.status_code == 201:
            self.session(user).delete(self.clusters + answer.json()["name"], timeout=60).raise_for_status()
            return A_CLUSTER
        assert answer.status_code == 422, answer.text  # of the refusals, the one whose text reaches the user
        return answer.json()["error"]

    def scale(self, user: str, cluster: str, **numbers) -> requests.Response:
        """Scale a cluster, or adapt it if a minimum is given."""
        verb = "adapt" if "minimum" in numbers else "scale"
        return self.session(user).post(f"{self.clusters}{cluster}/{verb}", json=numbers, timeout=60)


_BROWSER = Path(__file__).with_name("portal_browser.py")


def browse(user: str, password: str, *steps: dict) -> list[dict]:
    """Have a user sign in at the portal, in a browser of sorts on a login host, and open pages or send their forms.

    A step is ``{"page": path}``, with ``"form": {…}`` to send, perhaps to another ``"action"``; what comes back is the
    status, address and text of the page that is then shown.
    """
    url = f"https://accounts.{scenario.site()['site_domain']}"
    request = json.dumps({"url": url, "user": user, "password": password, "steps": steps})
    done = subprocess.run(
        ["docker", "exec", "-i", f"{scenario.PREFIX}-login", "python3", "-c", _BROWSER.read_text()],
        input=request, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
