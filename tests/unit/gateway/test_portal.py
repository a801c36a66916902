"""The gateway with the accounts portal behind it: many users at once, and a portal that is slow or away."""

import asyncio
import time

import pytest
from dask_gateway import GatewayClusterError
from stand_in import CLIENT, SCOPE, StandIn
from traitlets.config import Config

from slurm_gateway.accounts import PortalCheck

from .conftest import SCOPE as HUB_SCOPE

USERS = 200


@pytest.fixture(scope="module")
def running_portal(tmp_path_factory):
    portal = StandIn(tmp_path_factory.mktemp("portal"))
    portal.start()
    yield portal
    portal.stop()


@pytest.fixture
def portal(running_portal, tmp_path):
    """The portal, with a method that makes a check which asks it."""
    running_portal.control.reset()
    (tmp_path / "secret").write_text(CLIENT["secret"])

    def check(**settings):
        config = Config()
        config.PortalCheck = Config({"apply_url": "https://accounts.test/dask/", **settings})
        config.Portal.url = running_portal.url
        config.Portal.ca_file = running_portal.ca
        config.Portal.client_id = CLIENT["id"]
        config.Portal.client_secret_file = str(tmp_path / "secret")
        config.Portal.scope = SCOPE
        return PortalCheck(config=config)

    running_portal.check = check
    return running_portal


def test_200_users_who_ask_at_once_cost_200_requests_and_others_are_answered_meanwhile(site, portal):
    async def test(site):
        site.backend.accounts = portal.check(timeout=30)
        await site.backend.accounts.start()
        names = [f"user{number}" for number in range(USERS)]
        site.tokens |= {f"{name}-token": {"kind": "user", "name": name, "scopes": [HUB_SCOPE]} for name in names}
        portal.control.count_from_zero()
        portal.control.fault("grants", "slow", seconds=0.5)

        async def ask(name):
            headers = {"Authorization": f"jupyterhub {name}-token"}
            async with site.http.post(f"{site.url}/api/v1/clusters/", json={}, headers=headers) as response:
                return response.status, await response.text()

        questions = asyncio.gather(*(ask(name) for name in names))
        slowest = 0
        async with site.client() as gateway:
            while not questions.done():
                began = time.monotonic()
                assert await gateway.list_clusters() == []
                slowest = max(slowest, time.monotonic() - began)
                await asyncio.sleep(0.05)
        answers = await questions
        counted = portal.control.requests()
        assert {status for status, _ in answers} == {422}
        assert all(f"{name} does not hold the service" in text for name, (_, text) in zip(names, answers, strict=True))
        assert counted["grants"] + counted["token"] <= USERS
        assert slowest < 3

    site(test)


def test_a_slow_portal_holds_up_the_one_who_asks_and_nobody_else(site, portal):
    async def test(site):
        site.backend.accounts = portal.check()
        portal.control.fault("grants", "slow", seconds=2)
        async with site.client() as gateway, site.client("carol") as other:
            question = asyncio.ensure_future(gateway.submit())
            began = time.monotonic()
            await other.list_clusters()
            assert time.monotonic() - began < 1.5
            assert await question

    site(test)


def test_while_the_portal_is_away_the_known_go_on_and_all_others_are_told_to_try_again(site, portal):
    async def test(site):
        site.backend.accounts = portal.check(timeout=1, allowed_max_age=0)
        name = await site.running()
        portal.control.fault("grants", "close")
        async with site.client() as gateway:
            assert await gateway.submit()
        async with site.client("carol") as gateway:
            with pytest.raises(ValueError, match="The accounts service can't be reached, try again") as refusal:
                await gateway.submit()
            assert "Apply" not in str(refusal.value)
            assert await gateway.list_clusters() == []
        assert site.cluster(name).is_active()

    site(test)


def test_a_revoked_user_is_refused_at_once_whatever_is_cached_upstream_and_can_still_list_and_stop(site, portal):
    async def test(site):
        site.backend.accounts = portal.check(allowed_max_age=0.1)
        name = await site.running()
        portal.control.revoke("alice")
        await asyncio.sleep(0.2)
        async with site.client() as gateway:
            with pytest.raises(ValueError, match="alice no longer holds the service 'dask'"):
                await gateway.submit()
            with pytest.raises(GatewayClusterError, match="alice no longer holds the service 'dask'"):
                await gateway.scale_cluster(name, 1)
            assert [cluster.name for cluster in await gateway.list_clusters()] == [name]
            await gateway.stop_cluster(name)

    site(test)
