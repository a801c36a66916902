"""What is read of a request before anything looks into it."""

from aiohttp import web


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
