"""What goes wrong on demand, before a request reaches the portal, and how many requests there were.

A fault is for one address (``at``: ``token`` or ``grants``), of one ``kind``, and stays until it is taken away or has
happened ``times`` times:

==================  ============================================================================
``slow``            the answer takes ``seconds`` longer
``status``          ``code`` with a JSON body, and ``retry_after`` seconds in a header where given
``html``            a page of HTML, status 200
``redirect``        to the page for signing in
``rubbish``         status 200, application/json, and it is none
``object``          a JSON object where an array (or a token) is expected
``body``            ``body`` as JSON, status 200
``huge``            an array that goes on for ``size`` bytes
``cut``             half an answer, then the connection closes
``close``           the connection closes without a byte
``drip``            an answer of which a byte comes each second
``refused_token``   a token that is then refused
==================  ============================================================================
"""

import asyncio
import json
from collections import Counter
from urllib.parse import unquote


class Faults:
    """The fault of each address, and counts of the requests."""

    ADDRESSES = ("token", "grants")

    def __init__(self) -> None:
        self.counts: Counter = Counter()
        self._faults: dict[str, dict] = {}

    def set(self, at: str, kind: str, **details) -> None:
        """Have requests at an address answered like this."""
        if at not in self.ADDRESSES or not hasattr(self, f"_{kind}"):
            raise ValueError(f"no fault {kind!r} at {at!r}")
        self._faults[at] = {"kind": kind, **details}

    def clear(self) -> None:
        """Have all requests answered as they should be."""
        self._faults.clear()

    def counted(self) -> dict:
        """Tell how many requests there were."""
        users = {key[1]: count for key, count in self.counts.items() if isinstance(key, tuple)}
        return {at: self.counts[at] for at in self.ADDRESSES} | {"users": users}

    def middleware(self, app):
        """Wrap an ASGI application."""

        async def wrapped(scope, receive, send):
            path = scope.get("raw_path", b"").decode("latin-1")
            parts = path.split("/")
            if scope["type"] != "http":
                return await app(scope, receive, send)
            if path == "/oauth/token/":
                fault = self._arrived("token")
            elif path.startswith("/api/") and path.endswith("/grants/") and len(parts) >= 4:
                fault = self._arrived("grants")
                self.counts["user", unquote(parts[-3])] += 1
            else:
                fault = None
            if fault is None:
                return await app(scope, receive, send)
            act = getattr(self, f"_{fault['kind']}")
            return await act(fault, app, scope, receive, send)

        return wrapped

    def _arrived(self, at: str) -> dict | None:
        self.counts[at] += 1
        fault = self._faults.get(at)
        if fault is not None and "times" in fault:
            fault["times"] -= 1
            if fault["times"] <= 0:
                del self._faults[at]
        return fault

    async def _slow(self, fault, app, scope, receive, send):
        await asyncio.sleep(fault["seconds"])
        return await app(scope, receive, send)

    async def _status(self, fault, app, scope, receive, send):
        headers = {"Retry-After": str(fault["retry_after"])} if "retry_after" in fault else {}
        await answer(send, fault["code"], {"detail": "This went wrong on demand."}, headers)

    async def _html(self, fault, app, scope, receive, send):
        page = b"<!DOCTYPE html><title>Maintenance</title><h1>The accounts portal is being upgraded</h1>"
        await answer(send, 200, page, {"Content-Type": "text/html; charset=utf-8"})

    async def _redirect(self, fault, app, scope, receive, send):
        await answer(send, 302, b"", {"Location": "/accounts/login/?next=/"})

    async def _rubbish(self, fault, app, scope, receive, send):
        await answer(send, 200, b'[{"id": 7, "service": {\xff', {"Content-Type": "application/json"})

    async def _object(self, fault, app, scope, receive, send):
        await answer(send, 200, {"count": 0, "results": []})

    async def _body(self, fault, app, scope, receive, send):
        await answer(send, 200, fault["body"])

    async def _huge(self, fault, app, scope, receive, send):
        await start(send, 200, {"Content-Type": "application/json"})
        chunk = b'{"id": 7, "padding": "' + b"x" * 65500 + b'"},'
        await send({"type": "http.response.body", "body": b"[", "more_body": True})
        for _ in range(fault.get("size", 100_000_000) // len(chunk)):
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"{}]"})

    async def _cut(self, fault, app, scope, receive, send):
        await start(send, 200, {"Content-Type": "application/json", "Content-Length": "4000"})
        await send({"type": "http.response.body", "body": b'[{"id": 7,', "more_body": True})
        return "cut"  # uvicorn closes the connection of an application that returns something

    async def _close(self, fault, app, scope, receive, send):
        return "closed"

    async def _drip(self, fault, app, scope, receive, send):
        await start(send, 200, {"Content-Type": "application/json", "Content-Length": "3600"})
        for _ in range(3600):
            await send({"type": "http.response.body", "body": b" ", "more_body": True})
            await asyncio.sleep(1)

    async def _refused_token(self, fault, app, scope, receive, send):
        token = {"access_token": "this-token-is-refused", "expires_in": 36000, "token_type": "Bearer"}
        await answer(send, 200, token)


async def start(send, status: int, headers: dict[str, str]) -> None:
    """Begin an answer."""
    pairs = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": pairs})


async def answer(send, status: int, body, headers: dict[str, str] | None = None) -> None:
    """Answer with bytes, or with JSON of something else."""
    if not isinstance(body, bytes):
        body, headers = json.dumps(body).encode(), {"Content-Type": "application/json"} | (headers or {})
    await start(send, status, {"Content-Length": str(len(body))} | (headers or {}))
    await send({"type": "http.response.body", "body": body})


faults = Faults()
