"""Who may ask, and what somebody who may not is told: through upstream's client, as its users see it."""

import asyncio

import aiohttp
import pytest

from .conftest import SCOPE


def told(site, token, error=ValueError, prepare=lambda site: None):
    async def test(site):
        prepare(site)
        async with site.client(token=token) as gateway:
            with pytest.raises(error) as caught:
                await gateway.list_clusters()
            return str(caught.value)

    return site(test)


HOW = "Make a new one at https://notebooks.test/hub/token and put it into ~/.config/dask/gateway.yaml"


def test_a_token_of_the_notebook_service_is_let_in(site):
    async def test(site):
        async with site.client() as gateway:
            assert await gateway.list_clusters() == []

    site(test)


def test_a_wrong_expired_or_revoked_token(site):
    sentence = told(site, "wrong-token")
    assert sentence.startswith("Your token is wrong, has expired or was revoked. " + HOW)


def test_a_token_without_the_scope(site):
    def prepare(site):
        site.tokens["alice-token"]["scopes"] = ["access:servers!user=alice", "access:services!service=other"]

    sentence = told(site, "alice-token", prepare=prepare)
    assert "lacks the scope access:services!service=dask-gateway" in sentence
    assert HOW in sentence


@pytest.mark.parametrize("scope", [SCOPE, "access:services"])
def test_a_token_with_the_scope(site, scope):
    async def test(site):
        site.tokens["alice-token"]["scopes"] = [scope]
        async with site.client() as gateway:
            await gateway.list_clusters()

    site(test)


def test_a_token_of_a_service(site):
    def prepare(site):
        site.tokens["service-token"] = {"kind": "service", "name": "alice", "scopes": [SCOPE]}

    assert told(site, "service-token", prepare=prepare).startswith("This token belongs to a service")


@pytest.mark.parametrize(
    "name", ["Alice", "../alice", "alice/x", "-oProxyCommand", "a" * 300, "alice\n", "", "root;id"]
)
def test_a_user_with_an_impossible_name(site, name):
    def prepare(site):
        site.tokens["alice-token"]["name"] = name

    assert told(site, "alice-token", prepare=prepare).startswith("The user name ")


@pytest.mark.parametrize("token", ["short", "with space in it", "x" * 5000, "ümlaut-token"])
def test_what_is_no_token_is_not_sent_to_the_hub(site, token):
    async def test(site):
        header = {"Authorization": f"jupyterhub {token}"}
        async with site.http.get(f"{site.url}/api/v1/clusters/", headers=header) as response:
            assert response.status == 422
            assert "is not a token" in (await response.json())["error"]
        assert site.hub_questions == 0

    site(test)


@pytest.mark.parametrize("status", [500, 502, 503, 429, 302, 400])
def test_a_hub_that_does_not_answer_is_not_taken_for_a_wrong_token(site, status):
    from dask_gateway import GatewayServerError

    def prepare(site):
        site.hub_status = status

    sentence = told(site, "alice-token", GatewayServerError, prepare)
    assert sentence == "The notebook service can't be reached to check your token. Try again in a minute."


def test_a_hub_that_is_away(site):
    from dask_gateway import GatewayServerError

    async def test(site):
        await site.hub.close()
        async with site.client() as gateway:
            with pytest.raises(GatewayServerError, match="can't be reached to check your token"):
                await gateway.list_clusters()

    site(test)


def test_no_token_is_a_401_in_answer_to_which_the_client_sends_its_token(site):
    async def test(site):
        async with site.http.get(f"{site.url}/api/v1/clusters/") as response:
            assert response.status == 401
            assert response.headers["WWW-Authenticate"] == "jupyterhub"
        header = {"Authorization": "Basic YWxpY2U6"}
        async with site.http.get(f"{site.url}/api/v1/clusters/", headers=header) as response:
            assert response.status == 422
            assert "auth='jupyterhub'" in (await response.json())["error"]

    site(test)


def cookie_of(response):
    (cookie,) = response.cookies.values()
    return cookie


def test_reading_goes_on_for_a_short_time_without_asking_the_hub(site):
    async def test(site):
        site.authenticator.request_max_age = 0.3
        url = f"{site.url}/api/v1/clusters/"
        async with site.http.get(url, headers={"Authorization": "jupyterhub alice-token"}) as response:
            cookie = cookie_of(response)
        assert cookie["secure"]
        assert cookie["httponly"]
        jar = {cookie.key: cookie.value}
        async with aiohttp.ClientSession(cookies=jar) as session:
            async with session.get(url) as response:
                assert response.status == 200
            assert site.hub_questions == 1
            await asyncio.sleep(0.35)
            async with session.get(url) as response:
                assert response.status == 401

    site(test)


@pytest.mark.parametrize("method", ["POST", "DELETE"])
def test_a_request_that_changes_something_is_not_let_in_by_a_cookie(site, method):
    async def test(site):
        async with site.http.get(
            f"{site.url}/api/v1/clusters/", headers={"Authorization": "jupyterhub alice-token"}
        ) as response:
            cookie = cookie_of(response)
        async with aiohttp.ClientSession(cookies={cookie.key: cookie.value}) as session:
            path = "" if method == "POST" else "0" * 32
            async with session.request(method, f"{site.url}/api/v1/clusters/{path}", json={}) as response:
                assert response.status == 401

    site(test)


def test_a_revoked_token_makes_no_cluster_although_it_was_good_a_moment_ago(site):
    async def test(site):
        async with site.client() as gateway:
            await gateway.list_clusters()
            del site.tokens["alice-token"]
            with pytest.raises(ValueError, match="has expired or was revoked"):
                await gateway.submit()
        assert site.batch.submissions() == []

    site(test)
