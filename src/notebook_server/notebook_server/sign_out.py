"""Signing out of the Hub ends open websockets, such as those to kernels and terminals, within half a minute.

JupyterHub looks at the session when a websocket is opened, and never again (JupyterHubIdentityProvider.get_user in
jupyterhub/singleuser/extension.py): one that is open would outlive its session for as long as its browser likes. So
the token that let it in is remembered, and the Hub is asked for it again. What runs in kernels and terminals goes on.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any
from weakref import WeakKeyDictionary

from tornado.ioloop import PeriodicCallback
from tornado.web import HTTPError, RequestHandler
from tornado.websocket import WebSocketHandler
from traitlets import Instance, Integer
from traitlets.config import LoggingConfigurable

POLICY_VIOLATION = 1008


class OpenWebsockets(LoggingConfigurable):
    """Closes websockets whose session or token has ended."""

    interval = Integer(
        10,
        help="Seconds between two looks; an answer of the Hub counts for HubOAuth.cache_max_age.",
    ).tag(config=True)

    hub_auth: Any = None  # jupyterhub.services.auth.HubOAuth

    _let_in = Instance(WeakKeyDictionary, ())

    def follow(self, identity_provider: Any) -> None:
        """Look from now on at whatever websocket this provider lets in; one that asks no Hub has none to look at."""
        self.hub_auth = getattr(identity_provider, "hub_auth", None)
        if self.hub_auth is None:
            return
        # The provider's class is JupyterHub's choice, over any configuration; its instance is asked for each request
        get_user = identity_provider.get_user

        async def get_user_and_remember(handler: RequestHandler) -> Any:
            user = await get_user(handler)
            if user is not None and isinstance(handler, WebSocketHandler):
                self.remember(handler)
            return user

        identity_provider.get_user = get_user_and_remember
        PeriodicCallback(self.look, self.interval * 1000).start()

    def remember(self, handler: WebSocketHandler) -> None:
        """Remember by which token a websocket is let in: that of its request, or that of the browser's session."""
        if getattr(handler, "_token_authenticated", False):
            token = self.hub_auth.get_token(handler, in_cookie=False)
        else:
            token = self.hub_auth._get_token_cookie(handler)
        self._let_in[handler] = (token, self.hub_auth.get_session_id(handler))

    async def look(self) -> None:
        """Close what the Hub would not let in again."""
        sessions = defaultdict(list)
        for handler, session in list(self._let_in.items()):
            if handler.ws_connection is not None:
                sessions[session].append(handler)
        for (token, session_id), handlers in sessions.items():
            if not await self._ended(token, session_id):
                continue
            self.log.info("Closing %d websockets of a session or token that has ended", len(handlers))
            for handler in handlers:
                handler.close(POLICY_VIOLATION, "signed out")

    async def _ended(self, token: str, session_id: str) -> bool:
        try:
            user = await self.hub_auth.user_for_token(token, session_id=session_id, sync=False)
        except HTTPError:
            return False  # a Hub that is away has signed nobody out
        return user is None or not self.hub_auth.check_scopes(self.hub_auth.access_scopes, user)
