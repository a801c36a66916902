"""What operators do again and again."""

import os
import re
import subprocess

import pytest
import scenario

HOSTS = [host for host in scenario.HOSTS if host != "site"]


def unchanged_by(*options: str) -> set[str]:
    """The hosts on which site.yml has changed nothing, which must be all that it was for."""
    done = subprocess.run(
        ["ansible-playbook", "--inventory", scenario.INVENTORY, *options, "site.yml"],
        cwd=scenario.REPOSITORY, env=os.environ | scenario.PLAIN_OUTPUT, capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr
    counts = dict(re.findall(r"^(\S+) +: ok=.*changed=(\d+)", done.stdout, flags=re.MULTILINE))
    assert set(counts.values()) == {"0"}, done.stdout[-20000:]
    return set(counts)


@pytest.mark.long
def test_a_check_of_the_installed_service_works_and_would_change_nothing():
    assert unchanged_by("--check", "--diff") >= set(HOSTS)


@pytest.mark.long
@pytest.mark.parametrize("host", HOSTS)
def test_one_host_by_itself_is_what_all_together_have_made_of_it(host):
    assert unchanged_by("--limit", f"{host},localhost") == {host, "localhost"}


PAGES = "dask-gateway-pages.service"
STARTED = f"systemctl show --value --property=ActiveEnterTimestampMonotonic {PAGES}"
CONFIGURATION = "/etc/nginx/nginx.conf"
# nginx goes on with another configuration than the one that is there
NOT_READ = f"""
cp --archive {CONFIGURATION} /root/kept && sed -i 's/return 200 [0-9a-f]*;/return 200 older;/' {CONFIGURATION} &&
systemctl reload nginx && sleep 1 && cp --archive /root/kept {CONFIGURATION} && rm /root/kept
"""


def test_the_users_guide_is_written_for_a_site_of_documentation(tmp_path):
    path = tmp_path / "guide/users.md"
    for changed in (True, False):
        done = scenario.playbook("users_guide", "-e", f"users_guide_path={path}")
        assert done.returncode == 0, done.stdout + done.stderr
        assert ("changed=0" in done.stdout.partition("PLAY RECAP")[2]) is not changed
    text = path.read_text()
    assert f"https://{scenario.site()['site_gateway_host']}" in text
    assert "{{" not in text
    assert "{%" not in text
    for picture in re.findall(r"\]\((images/[^)]+)\)", text):
        assert (path.parent / picture).exists(), picture


def nginx_has_read() -> str:
    return scenario.get("gateway", "/.well-known/tls-frontend").text


@pytest.mark.long
def test_restarts_that_a_run_which_stopped_half_way_has_left_out_are_made_up_for():
    gateway = scenario.host("gateway")
    before, read = gateway.check_output(STARTED), nginx_has_read()
    gateway.check_output("touch /etc/dask-gateway/pages.json")
    gateway.check_output(NOT_READ)
    assert nginx_has_read() == "older"

    done = scenario.playbook("gateway")

    assert done.returncode == 0, done.stdout[-5000:]
    assert f"{PAGES} has started before what it reads has changed" in " ".join(done.stdout.split())
    assert gateway.check_output(STARTED) != before
    assert nginx_has_read() == read
    again = scenario.playbook("gateway")
    assert "changed=0" in again.stdout, again.stdout[-5000:]
