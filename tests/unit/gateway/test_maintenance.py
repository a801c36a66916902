"""Maintenance: nobody gets new clusters for a time, and those that run go on."""

import json
from datetime import datetime, timedelta

import pytest

from slurm_gateway import maintenance

from .conftest import examined

SOON = (datetime.now() + timedelta(hours=2)).isoformat(timespec="minutes")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "maintenance.json"


async def refused(site, user="alice"):
    """What a user reads who asks for a cluster; an empty string where it is made."""
    async with site.client(user) as gateway:
        try:
            await gateway.submit()
        except ValueError as exc:
            return str(exc)
        return ""


def test_nobody_gets_a_new_cluster_but_whom_the_operators_except(site, admin, path):
    async def test(site):
        running = await site.running()
        code, out, _ = await admin(
            site, "maintenance", "on", "--until", SOON, "--message", "New disks.", "--except-user", "carol"
        )
        assert code == 0
        assert f"but for carol, until {SOON}" in out
        said = await refused(site)
        assert f"until {maintenance.readable(datetime.fromisoformat(SOON).astimezone())}. New disks. Clusters" in said
        assert await refused(site, "carol") == ""
        assert site.cluster(running).is_active()
        assert (await admin(site, "maintenance", "off"))[1] == "There is no maintenance; users get new clusters.\n"
        assert await refused(site) == ""

    site(test, maintenance_file=str(path))


def test_a_maintenance_outlives_a_restart_and_shows_in_health(site, admin, path):
    async def test(site):
        await admin(site, "maintenance", "on", "--until", SOON)
        await site.stop()
        await site.start()
        assert "being maintained" in await refused(site)
        assert (await examined(site, admin))[1]["maintenance"]["state"] == "warning"
        maintenance.begin(path, maintenance.Maintenance("", "2020-01-01T00:00"))
        assert "its announced end is over" in (await examined(site, admin))[1]["maintenance"]["said"]
        assert (await admin(site, "maintenance"))[1].startswith(
            "Nobody gets new clusters, until 2020-01-01T00:00 (which is over)"
        )

    site(test, maintenance_file=str(path))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "Say with --until when it is expected to end"),
        (["--until", "tomorrow"], "'tomorrow' is no time"),
        (["--until", "2020-01-01T00:00"], "is over already"),
    ],
)
def test_an_operator_who_names_no_end_to_come_reads_that(site, admin, path, arguments, said):
    async def test(site):
        code, out, err = await admin(site, "maintenance", "on", *arguments)
        assert (code, out) == (2, "")
        assert said in err
        assert not path.exists()

    site(test, maintenance_file=str(path))


@pytest.mark.parametrize(
    "text", ["", "[]", '{"message": "x"}', '{"message": "", "until": "x", "by": "", "excepted": []}']
)
def test_a_file_that_says_nothing_readable_keeps_users_out_until_somebody_looks(path, text):
    path.write_text(text)
    assert "no new clusters for the time being" in maintenance.current(str(path)).sentence


def test_what_is_announced_is_one_line(path):
    ongoing = maintenance.announced("two\nlines", SOON, "root", ["b", "a", "b"])
    maintenance.begin(path, ongoing)
    assert maintenance.current(str(path)) == ongoing
    assert "two lines" in ongoing.sentence
    assert json.loads(path.read_text())["excepted"] == ["a", "b"]
