"""What is read of a request before anything looks into it, and what becomes of one whose client has gone."""

from aiohttp import ClientConnectionResetError, web


@web.middleware
async def clients_that_hang_up(request, handler):
    """Let a client hang up while it is answered, which aiohttp logs as an error with a traceback.

    So does the proxy with each restart: it waits in ``/api/v1/routes`` for what comes, and the next thing that does is
    written to a connection that has ended. What the gateway itself asks of others is not meant, and raises as before.

    Source: aiohttp.http_writer.StreamWriter, which raises ClientConnectionResetError.
    """
    try:
        return await handler(request)
    except ClientConnectionResetError:
        if request.transport is not None and not request.transport.is_closing():
            raise
        return web.Response()


@web.middleware
async def json_objects(request, handler):
    """Refuse a body that is not one JSON object, with the status whose text a client shows.

    Upstream's routes take it for granted, and answer anything else with a traceback in the log and a text for nobody.
    """
    if request.method == "POST":
        try:
            body = await request.json()
        except web.HTTPRequestEntityTooLarge:
            return refused(f"The request is longer than {request.client_max_size} bytes.")
        except (ValueError, RecursionError):
            return refused("The request is not JSON.")
        if not isinstance(body, dict):
            return refused("The request is not a JSON object.")
    return await handler(request)


def refused(sentence):
    """The answer to a request that nothing can be done with."""
    return web.json_response({"error": sentence}, status=422)
