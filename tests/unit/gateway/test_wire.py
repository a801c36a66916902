"""Clients that go while they are answered, and what is an error all the same."""

import asyncio
import logging

import pytest
from aiohttp import ClientConnectionResetError, ClientSession, web

from slurm_gateway import wire


def answered(handler, hangs_up: bool) -> int:
    """Ask a server with this handler; the status, or 0 where the client has gone."""

    async def ask() -> int:
        app = web.Application(middlewares=[wire.clients_that_hang_up])
        app.router.add_get("/", handler)
        # As the gateway is served; aiohttp's own test server ends handlers whose clients have gone
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        try:
            async with ClientSession() as client, client.get(f"http://127.0.0.1:{runner.addresses[0][1]}/") as response:
                if hangs_up:
                    response.close()
                    await asyncio.sleep(0.5)
                    return 0
                return response.status
        finally:
            await runner.cleanup()

    return asyncio.run(ask())


def errors(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


def test_a_client_that_hangs_up_while_it_is_answered_is_no_error(caplog):
    written = []

    async def events(request):
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"first")
        await asyncio.sleep(0.2)
        written.append("second")
        await response.write(b"second")
        return response

    assert answered(events, hangs_up=True) == 0
    assert written == ["second"]
    assert errors(caplog) == []


@pytest.mark.parametrize("error", [ClientConnectionResetError, RuntimeError])
def test_what_fails_while_the_client_waits_is_an_error(caplog, error):
    async def fails(request):
        raise error("the portal has hung up")

    assert answered(fails, hangs_up=False) == 500
    assert len(errors(caplog)) == 1
