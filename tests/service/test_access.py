"""Who gets in, who does not, and what they read."""

import guide
import pytest
import scenario

PROGRAM = """
import dask_gateway
gw = dask_gateway.Gateway(auth="jupyterhub")
try:
    {body}
except Exception as error:
    print(f"{{type(error).__name__}}: {{error}}")
"""


@pytest.fixture(scope="module")
def alices_cluster(hub_user):
    """Name of a running cluster of alice's."""
    token = hub_user("alice").new_token(note="a cluster to be left alone")
    with as_holder_of("alice", token):
        name = run("alice", "print(gw.new_cluster(shutdown_on_close=False).name)").strip()
    yield name
    with as_holder_of("alice", token):
        run("alice", f"gw.stop_cluster('{name}')")
    scenario.wait_until("alice's jobs have ended", lambda: not scenario.jobs_of("alice"))


def as_holder_of(user: str, token: str):
    """The token file of `user` on the login host holds `token`."""
    path = f"{scenario.site()['site_home_directory']}/{user}/.config/dask/gateway.yaml"
    scenario.put_file("login", user, path, guide.gateway_yaml(token))
    return scenario.removed_after("login", path)


def run(user: str, body: str) -> str:
    """What `body`, run with jaspy on the login host as `user`, printed; an error as the user reads it."""
    program = PROGRAM.format(body=body.replace("\n", "\n    "))
    path = f"{scenario.site()['site_home_directory']}/{user}/program.py"
    scenario.put_file("login", user, path, program)
    done = scenario.as_user("login", user, f"module load jaspy && python {path}")
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_carol_does_not_see_alices_cluster(hub_user, alices_cluster):
    with as_holder_of("carol", hub_user("carol").new_token(note="carol")):
        assert run("carol", "print(gw.list_clusters())").strip() == "[]"


@pytest.mark.parametrize(
    "attempt",
    [
        "print(gw.get_cluster('{name}'))",
        "print(gw.connect('{name}'))",
        "gw.stop_cluster('{name}'); print('stopped')",
        "gw.scale_cluster('{name}', 3); print('scaled')",
        "gw.adapt_cluster('{name}', 1, 3); print('adapts')",
    ],
)
def test_carol_neither_reaches_nor_stops_nor_scales_alices_cluster(hub_user, alices_cluster, attempt):
    with as_holder_of("carol", hub_user("carol").new_token(note="carol")):
        printed = run("carol", attempt.format(name=alices_cluster))
    assert "403" in printed or "lacks permissions" in printed
    assert sorted(scenario.jobs_of("alice")) == [f"dask-scheduler-{alices_cluster[:8]}"]


def test_bob_who_does_not_hold_the_service_is_told_where_to_apply_and_gets_no_job(hub_user):
    with as_holder_of("bob", hub_user("bob").new_token(note="bob")):
        printed = run("bob", "gw.new_cluster()")
    assert "bob does not hold the service" in printed
    assert scenario.site()["site_accounts_apply_url"] in printed
    assert "Traceback" not in printed
    assert scenario.jobs_of("bob") == []


@pytest.mark.parametrize("kind", ["wrong", "expired", "without the scope", "revoked"])
def test_a_bad_token_is_refused_with_a_sentence_that_says_what_to_do(hub_user, kind):
    carol = hub_user("carol")
    if kind == "wrong":
        token = "0" * 32
    elif kind == "expired":
        token = carol.new_token(note="short", expires_in=1)
        scenario.wait_until("the token expired", lambda: not carol.holds(token), timeout=10)
    elif kind == "revoked":
        token = carol.new_token(note="revoked")
        carol.revoke_token(token)
    else:
        token = carol.new_token(note="narrow", scopes=["read:users:name!user"])
    with as_holder_of("carol", token):
        printed = run("carol", "print(gw.new_cluster())")
    assert f"https://{scenario.site()['site_notebook_host']}/hub/token" in printed
    assert token not in printed
    assert scenario.jobs_of("carol") == []


def test_a_user_outside_the_group_cannot_be_submitted_for():
    """The sudo rule itself refuses, whatever the gateway is made to ask."""
    gateway = scenario.host("gateway")
    for user in ("bob", "root", "nobody"):
        done = gateway.run(f"runuser -u dask-gateway -- sudo -n -H -u {user} {scenario.launcher()} </dev/null")
        assert done.rc != 0
        assert "not allowed" in done.stderr or "password is required" in done.stderr
    done = gateway.run(f"runuser -u dask-gateway -- sudo -n -H -u alice {scenario.launcher()} </dev/null")
    assert done.rc == 0, done.stderr
    done = gateway.run("runuser -u dask-gateway -- sudo -n -H -u alice /bin/id")
    assert done.rc != 0


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/routes",
        *("/api/v1/./routes", "/api//v1/routes", "/api/v1/%72outes", "/api%2fv1%2froutes", "/x/../api/v1/routes"),
        *("/clusters/x/../../api/v1/routes", "/clusters/x/%2e%2e/%2e%2e/api/v1/routes"),
    ],
)
def test_the_routes_between_gateway_and_proxy_are_closed(path):
    status, _, text = scenario.get_as_written("gateway", path)
    assert status == 403
    assert "not for clients" in text


@pytest.mark.parametrize("path", ["/authorize", "/health/x", "/clusters", "/clusters/"])
def test_paths_beside_the_pages_are_closed(path):
    assert scenario.get_as_written("gateway", path)[0] == 404


@pytest.mark.parametrize("host", ["gateway", "hub"])
@pytest.mark.parametrize("up", ["..", "%2e%2e", "..%2f..", "%2e%2e%2f%2e%2e", "..%5c..", "..;"])
def test_no_path_leads_to_a_file_of_the_host(host, up):
    for folder in ("/static", "/hub/static", "/services/docs", "/.well-known/tls-frontend", "/clusters/x/statics"):
        for levels in (1, 2, 3, 5, 8):
            path = folder + f"/{up}" * levels + "/etc/passwd"
            status, _, text = scenario.get_as_written(host, path)
            assert status in (302, 400, 403, 404), path
            assert "root:" not in text, path


@pytest.mark.parametrize(
    "path",
    [
        *("/api/v1/clusters/", "/api/v1/options", "/api/v1/clusters/{name}"),
        *("/api/v1/summaries", "/api/v1/dashboards/{name}"),
    ],
)
def test_the_api_answers_nobody_without_a_token(alices_cluster, path):
    assert scenario.get("gateway", path.format(name=alices_cluster)).status_code == 401


@pytest.mark.parametrize("name", ["site_notebook_host", "site_gateway_host"])
def test_plain_http_only_redirects(name):
    server = scenario.site()[name]
    ask = (
        "import http.client; c = http.client.HTTPConnection(%r); c.request('GET', '/hub/login');"
        "a = c.getresponse(); print(a.status, a.headers['Location'])"
    )
    answer = scenario.host("login").check_output("python3 -c %s", ask % server)
    assert answer == f"301 https://{server}/hub/login"
