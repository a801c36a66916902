"""The Hub as other sites have it, with everything at once that the scenario's own inventory leaves out.

Users sign in at the accounts portal and must hold a service; servers come in sizes, may have names, and are stopped
when they are idle. The Hub is configured once for all of it, and back, by the roles that operators apply, without their
installing anything, so that this can be part of every run.
"""

import time

import accounts_portal
import pytest
import requests
import scenario
from browser import Person, chromium, screenshot, serious_findings
from hub_client import HubUser
from hub_settings import hub_with, play_hub
from portal_control import PortalControl

LOGIN_SERVICE = {"category": "login_services", "service": "jasmin-login"}
IDLE = 12  # seconds
BUSY = 600
TASKS = 150
SETTINGS = {
    "jupyterhub_authentication": "oauth",
    "jupyterhub_allowed_groups": [LOGIN_SERVICE["service"]],
    "jupyterhub_admin_groups": ["operators"],
    "jupyterhub_required_service": "dask",
    "jupyterhub_profiles": [
        {"name": "small", "memory": "700M", "cores": 0.5},
        {"name": "large", "memory": "1G", "cores": 2},
    ],
    "jupyterhub_tasks_limit": TASKS,
    "jupyterhub_named_servers": 1,
    "jupyterhub_idle_timeout": IDLE,
    "jupyterhub_busy_timeout": BUSY,
    "jupyterhub_environment": {"JUPYTERHUB_ACTIVITY_INTERVAL": "3"},
}


@pytest.fixture(scope="module")
def portal() -> PortalControl:
    """The portal's control. Carol holds both services, so that she may sign in and have a server."""
    control = accounts_portal.control()
    control.reset()
    control.grant("carol", **LOGIN_SERVICE)
    yield control
    control.reset()


@pytest.fixture(scope="module")
def switched_hub(hub_user, portal):
    """The Hub with the other settings; nobody has a server that its playbook would have to keep."""
    hub_user("carol").stop_server()
    with hub_with(**SETTINGS):
        yield
        hub_user("carol").stop_server()


@pytest.fixture(scope="module")
def chrome(switched_hub):
    with chromium() as browser:
        yield browser


@pytest.fixture
def somebody(chrome):
    """``somebody("bob")``: that person at a browser that nobody has used."""
    return lambda name: Person(chrome, name)


@pytest.fixture(scope="module")
def carols_browser(chrome) -> Person:
    return Person(chrome, "carol")


def unit_property(unit: str, name: str) -> str:
    return scenario.host("hub").check_output("systemctl show --value --property=%s %s", name, unit)


def sign_in(person: Person, path: str = "/hub/home"):
    """The page that is shown after signing in at the portal."""
    page = person.open(person.hub + path)
    assert page.url.startswith(f"{person.hub}/hub/login")
    page.get_by_role("button", name="LOTUS test site accounts").or_(
        page.get_by_role("link", name="LOTUS test site accounts")
    ).click()
    person.fill_in_at_portal(page)
    return page


def test_carol_signs_in_at_the_portal_and_starts_a_server_of_the_size_she_chooses_as_herself(carols_browser):
    page = sign_in(carols_browser, "/hub/spawn")
    screenshot(page, "sizes")
    assert serious_findings(page) == []
    assert page.get_by_label("small").is_visible()
    page.get_by_label("large").check()
    page.get_by_role("button", name="Start").click()
    page.wait_for_url("**/user/carol/lab*", timeout=120_000)
    assert unit_property("jupyter-carol-singleuser", "MemoryMax") == str(2**30)
    owner = scenario.host("hub").check_output(
        "ps --no-headers -o user= -p %s", unit_property("jupyter-carol-singleuser", "MainPID")
    )
    assert owner.strip() == "carol"


def test_who_signs_out_is_signed_out_of_the_hub_of_the_server_and_of_the_portal(carols_browser):
    page = carols_browser.open(f"{carols_browser.hub}/hub/home")
    server = f"{carols_browser.hub}/user/carol/api/status"
    cookies = {cookie["name"]: cookie["value"] for cookie in carols_browser.context.cookies(server)}
    assert scenario.get("hub", "/user/carol/api/status", cookies=cookies).status_code == 200
    page.goto(f"{carols_browser.hub}/hub/logout")
    assert page.url.startswith("https://accounts."), "the portal asks whether its session ends too"
    page.get_by_role("main").get_by_role("button", name="Sign out").click()
    page.wait_for_url(f"{carols_browser.hub}/hub/login**")

    # Somebody who has copied the cookies gets nothing with them any more
    scenario.wait_until(
        "the server has forgotten the session",
        lambda: scenario.get("hub", "/user/carol/api/status", cookies=cookies).status_code in (302, 403),
        timeout=20,
    )
    assert scenario.get("hub", "/hub/home", cookies=cookies).headers["Location"].startswith("/hub/login")
    page = sign_in(carols_browser)  # the portal asks for the password again
    assert page.url == f"{carols_browser.hub}/hub/home"


def test_bob_who_is_in_no_group_that_may_sign_in_reads_so(portal, somebody):
    portal.claim("bob", groups=["transfer"])
    assert "The account bob may not use the notebook service" in sign_in(somebody("bob")).inner_text("body")


def test_bob_who_does_not_hold_the_required_service_reads_where_to_apply(portal, somebody):
    portal.claim("bob")
    page = sign_in(somebody("bob"))
    assert "bob does not hold the service 'dask'" in page.inner_text("body")
    assert scenario.site()["site_accounts_apply_url"] in page.inner_text("body")
    screenshot(page, "required-service")


def test_who_is_in_an_admin_group_runs_the_hub_until_the_next_sign_in_without_it(portal, somebody):
    def admits(groups: list[str]) -> int:
        portal.claim("carol", groups=[LOGIN_SERVICE["service"], *groups])
        person = somebody("carol")
        page = sign_in(person)
        assert page.get_by_role("link", name="Admin").count() == len(groups)
        return page.goto(f"{person.hub}/hub/admin").status

    assert admits([]) == 403
    assert admits(["operators"]) == 200
    assert admits([]) == 403


@pytest.mark.parametrize(
    ("claimed", "sentence"),
    [
        ("mallory", "knows no account named mallory"),
        ("Carol", "knows no account named Carol"),
        ("carol\n", "knows no account named 'carol\\n'"),
        ("root", "root is an account of the system"),
        (26001, "does not say who you are (the claim preferred_username)"),
        (None, "does not say who you are"),
    ],
)
def test_a_name_that_is_no_users_is_told_so_whatever_the_portal_says(portal, somebody, claimed, sentence):
    portal.claim("bob", preferred_username=claimed, groups=[LOGIN_SERVICE["service"]])
    text = sign_in(somebody("bob")).inner_text("body")
    assert "403" in text
    assert sentence in text


@pytest.mark.parametrize("query", ["code=x&state=made-up", "code=x", "error=access_denied&state=x"])
def test_nobody_is_signed_in_by_an_address_that_somebody_else_made(switched_hub, query):
    answer = scenario.get("hub", f"/hub/oauth_callback?{query}")
    assert answer.status_code == 400
    assert not [cookie for cookie in answer.cookies if cookie.name == "jupyterhub-hub-login"]


def test_a_sign_in_that_another_browser_began_is_refused(portal, somebody):
    portal.claim("bob", groups=["jasmin-login"])
    attacker, victim = somebody("bob"), somebody("carol")
    page = attacker.context.new_page()
    caught = []
    # What the portal sends bob back with. That it is used by then makes no difference to who did not begin it
    page.on("request", lambda request: "/hub/oauth_callback" in request.url and caught.append(request.url))
    page.goto(f"{attacker.hub}/hub/oauth_login")
    page.fill("#id_username", "bob")
    page.fill("#id_password", scenario.passwords()["bob"])
    page.get_by_role("main").get_by_role("button", name="Sign in").click()
    page.wait_for_url(f"{attacker.hub}/**")
    shown = victim.open(caught[0]).inner_text("body")
    assert "was not begun in this browser" in shown


def test_a_portal_that_gives_no_answer_is_told_in_a_sentence(portal, somebody):
    person = somebody("carol")
    portal.fault("token", "status", code=503, times=3)
    try:
        text = sign_in(person).inner_text("body")
    finally:
        portal.behave()
    assert "LOTUS test site accounts gives no answer at the moment. Try again" in text


def test_who_loses_the_service_starts_no_server(portal, hub_user):
    carol = hub_user("carol")
    carol.stop_server()
    portal.revoke("carol", service="dask")
    try:
        time.sleep(scenario.site()["accounts_check_allowed_max_age"])
        with pytest.raises(RuntimeError, match="carol no longer holds the service 'dask'"):
            carol.start_server()
    finally:
        portal.reset()
        portal.grant("carol", **LOGIN_SERVICE)
        time.sleep(scenario.site()["accounts_check_refused_max_age"])


def start(user: HubUser, path: str = "server", **options) -> requests.Response:
    return user.api.post(f"{user.url}/hub/api/users/{user.name}/{path}", json=options, timeout=60)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"profile": "huge"}, "There is no notebook server of the size 'huge'; there are small, large."),
        ({"profile": "small", "mem_limit": "900G"}, "A notebook server has no option mem_limit"),
    ],
)
def test_the_api_gives_no_server_that_the_site_does_not_offer(switched_hub, hub_user, options, sentence):
    carol = hub_user("carol")
    carol.stop_server()
    answer = start(carol, **options)
    assert answer.status_code == 400, answer.text
    assert sentence in answer.json()["message"]


BURN = """
import time
began, used = time.time(), time.process_time()
while time.time() < began + 2:
    pass
print((time.process_time() - used) / (time.time() - began))
"""
GRAB = """
import subprocess, sys
print(subprocess.run([sys.executable, "-c", "b'x' * (1 << 30)"]).returncode)
"""


def test_a_server_has_the_memory_and_the_processors_of_its_size_and_outlives_who_wants_more(switched_hub, hub_user):
    carol = hub_user("carol")
    assert start(carol, profile="small").status_code in (201, 202)
    scenario.wait_until("carol's server answers", carol.server_answers)
    with carol.kernel() as kernel:
        assert float(kernel.run(BURN)) < 0.65
        assert kernel.run(GRAB) == "-9"
        assert kernel.run("print('alive')") == "alive"


FORK = """
import subprocess
naps = []
try:
    while len(naps) < 1000:
        naps.append(subprocess.Popen(["sleep", "100"]))
except BlockingIOError:
    pass
print(len(naps))
for nap in naps:
    nap.kill()
    nap.wait()
"""


def test_a_server_has_as_many_processes_as_the_site_permits_and_outlives_who_wants_more(switched_hub, hub_user):
    carol = hub_user("carol")
    carol.start_server()
    with carol.kernel() as kernel:
        assert 10 < int(kernel.run(FORK)) < TASKS
        assert kernel.run("print('alive')") == "alive"
    assert carol.server_answers()


def test_servers_with_names_are_beside_the_one_without_and_as_many_as_the_site_permits(switched_hub, hub_user):
    carol = hub_user("carol")
    carol.start_server()
    assert start(carol, "servers/second").status_code in (201, 202)
    units = "systemctl --no-legend --plain list-units 'jupyter-carol-*'"
    scenario.wait_until(
        "two servers run", lambda: scenario.host("hub").check_output(units).count(" active running ") == 2
    )
    refused = start(carol, "servers/third")
    assert refused.status_code == 400
    assert "already has the maximum of 1 named servers" in refused.json()["message"]
    assert carol.server_answers()


@pytest.mark.long
def test_a_server_is_stopped_when_it_is_idle_and_not_while_a_kernel_computes_in_silence(switched_hub, hub_user):
    carol = hub_user("carol")

    def runs() -> bool:
        return unit_property("jupyter-carol-singleuser", "ActiveState") == "active"

    carol.start_server()
    with carol.kernel() as kernel:
        with pytest.raises(TimeoutError):
            kernel.run(f"import time; time.sleep({2 * IDLE + 6})", timeout=1)
        kernel.close()  # nobody looks on
        began = time.monotonic()
        time.sleep(2 * IDLE)
        assert runs()
        scenario.wait_until("the server, now idle, was stopped", lambda: not runs(), timeout=6 + 3 * IDLE)
    assert time.monotonic() - began > 3 * IDLE


@pytest.mark.long
def test_the_users_name_is_in_the_claim_that_the_site_names(switched_hub, portal, somebody):
    """Last, as the Hub keeps this setting until the others go too."""
    play_hub(SETTINGS | {"jupyterhub_oauth_username_claim": "nickname"})
    groups = [LOGIN_SERVICE["service"]]
    portal.claim("bob", preferred_username="alice", nickname="carol", groups=groups)
    page = sign_in(somebody("bob"))
    assert "carol" in page.inner_text("body")
    portal.claim("bob", preferred_username="carol", groups=groups)
    text = sign_in(somebody("bob")).inner_text("body")
    assert "does not say who you are (the claim nickname)" in text
