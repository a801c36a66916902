"""Who is asking: the notebook service's token of a request, turned into a user."""

import asyncio
import logging
import os
import re
import secrets
import ssl
import time

import aiohttp
from aiohttp import web
from dask_gateway_server.auth import JupyterHubAuthenticator, unauthorized
from dask_gateway_server.models import User
from traitlets import Float, Unicode, default

from .messages import one_line

# The client shows the text of a 422 (ValueError) and of a 500 (GatewayServerError), and drops that of a 401, 403,
# 502 and 503. It sends its token only in answer to a 401.


def refused(sentence):
    """The answer to a request that is the user's to mend."""
    return web.HTTPUnprocessableEntity(reason=one_line(sentence))


def unavailable(sentence):
    """The answer to a request that the service can't judge at the moment."""
    return web.HTTPInternalServerError(reason=one_line(sentence))


class SiteAuthenticator(JupyterHubAuthenticator):
    """Hub token → user, and nothing more: whether the user may have a cluster is the access check's question."""

    @default("jupyterhub_service_name")
    def _default_jupyterhub_service_name(self):
        return "dask-gateway"  # upstream's default is no name, and then every token of the Hub makes clusters

    token_url = Unicode(
        help="The address of the page on which a user makes a token: https://<notebook host>/hub/token.", config=True
    )

    @default("token_url")
    def _default_token_url(self):
        return re.sub(r"/api/?$", "/token", self.jupyterhub_api_url)

    user_pattern = Unicode(
        "[a-z0-9_][a-z0-9_.-]{0,63}",
        help="A regular expression for the whole of a user name; a user with another one is refused.",
        config=True,
    )

    request_max_age = Float(
        30,
        help="""
        Seconds for which requests that only read go on without their token being checked again.

        A request that changes something is always checked with the Hub.
        """,
        config=True,
    )

    hub_token = Unicode(
        help="""
        The gateway's own token as a service of the Hub; from JUPYTERHUB_API_TOKEN by default.

        It is used once, to find out at the start whether the Hub knows this service.
        """,
        config=True,
    )

    @default("hub_token")
    def _default_hub_token(self):
        return os.environ.get("JUPYTERHUB_API_TOKEN", "")

    hub_timeout = Float(10, help="Seconds to wait for the Hub's answer.", config=True)

    async def setup(self, app):
        self.ssl_context = ssl.create_default_context(cafile=self.tls_ca or None)
        if self.tls_cert and self.tls_key:
            self.ssl_context.load_cert_chain(self.tls_cert, keyfile=self.tls_key)
        self.session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=self.hub_timeout),
            connector=aiohttp.TCPConnector(ssl=self.ssl_context),
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        self._sessions = {}
        self._introduction = asyncio.ensure_future(self._introduce()) if self.hub_token else None

    async def cleanup(self):
        if self._introduction:
            self._introduction.cancel()
        await super().cleanup()

    async def introduced(self):
        """Whether the Hub knows this service, and a sentence about that; (None, …) where it gives no answer."""
        if not self.hub_token:
            return None, "The gateway has no token of its own at the Hub"
        try:
            data = await self._ask_hub(self.hub_token)
        except web.HTTPUnprocessableEntity:
            return False, "The Hub does not know the token of this service: see its c.JupyterHub.services"
        except web.HTTPException:
            return None, f"The Hub at {self.jupyterhub_api_url} gives no answer"
        known = (data.get("kind"), data.get("name")) if isinstance(data, dict) else None
        if known != ("service", self.jupyterhub_service_name):
            return False, f"The Hub knows this service as {known}, not as {self.jupyterhub_service_name}"
        return True, f"The Hub knows this service as {self.jupyterhub_service_name}"

    async def _introduce(self):
        """Tell the operators if the Hub does not know this service: then no user's token has its scope."""
        while True:
            known, sentence = await self.introduced()
            if known is not None:
                self.log.log(logging.INFO if known else logging.ERROR, "%s", sentence)
                return
            await asyncio.sleep(30)  # it is away, which is logged

    async def authenticate_and_handle(self, request, handler):
        reads = request.method in ("GET", "HEAD")
        if reads and self.get_token(request) is None:
            user, until = self._sessions.get(request.cookies.get(self.cookie_name), (None, 0))
            if user is not None and time.monotonic() < until:
                request["user"] = user
                return await handler(request)

        request["user"] = user = await self.authenticate(request)
        response = await handler(request)
        if reads and not response.prepared:
            self._remember(user, response)
        return response

    def _remember(self, user, response):
        now = time.monotonic()
        self._sessions = {cookie: entry for cookie, entry in self._sessions.items() if entry[1] > now}
        cookie = secrets.token_urlsafe(32)
        self._sessions[cookie] = (user, now + self.request_max_age)
        response.set_cookie(
            self.cookie_name,
            cookie,
            max_age=int(self.request_max_age),
            path="/api/",
            secure=True,
            httponly=True,
            samesite="Strict",
        )

    def get_token(self, request):
        header = request.headers.get("Authorization")
        if not header:
            return None
        kind, _, token = header.partition(" ")
        if kind.lower() not in ("jupyterhub", "token", "bearer"):
            raise refused(
                "This service wants a token of the notebook service: Gateway(…, auth='jupyterhub'). "
                + self.how_to_get_a_token
            )
        return token.strip()

    @property
    def how_to_get_a_token(self):
        return (
            f"Make a new one at {self.token_url} and put it into ~/.config/dask/gateway.yaml "
            "(gateway: auth: kwargs: api_token), readable by you alone; in a notebook, restart your server."
        )

    async def authenticate(self, request):
        token = self.get_token(request)
        if token is None:
            raise unauthorized("jupyterhub")
        if not re.fullmatch(r"[A-Za-z0-9_.~+/=-]{8,512}", token):
            raise refused(f"What was sent is not a token of the notebook service. {self.how_to_get_a_token}")
        return self._user(await self._ask_hub(token))

    async def _ask_hub(self, token):
        away = "The notebook service can't be reached to check your token. Try again in a minute."
        try:
            async with self.session.get(
                f"{self.jupyterhub_api_url.rstrip('/')}/user",
                headers={"Authorization": f"token {token}"},
                allow_redirects=False,
            ) as response:
                if response.status == 200:
                    return await response.json()
                status = response.status
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as exc:
            self.log.error("The Hub did not answer: %s: %s", type(exc).__name__, exc)
            raise unavailable(away) from None
        if status in (401, 403, 404):
            raise refused(f"Your token is wrong, has expired or was revoked. {self.how_to_get_a_token}")
        self.log.error("The Hub answered a question for a token's user with status %s", status)
        raise unavailable(away)

    def _user(self, data):
        name = data.get("name") if isinstance(data, dict) else None
        if not isinstance(name, str):
            self.log.error("The Hub's answer names no user")
            raise unavailable("The notebook service gave no usable answer about your token. Try again in a minute.")
        if data.get("kind") != "user":
            raise refused(f"This token belongs to a service and not to a person. {self.how_to_get_a_token}")
        if not re.fullmatch(self.user_pattern, name):
            raise refused(f"The user name {name[:40]!r} is not one that can have clusters here.")
        scopes = {"access:services", f"access:services!service={self.jupyterhub_service_name}"}
        if self.use_service_access_scopes and not scopes.intersection(data.get("scopes") or ()):
            raise refused(
                f"Your token does not allow the use of this service (it lacks the scope access:services!service="
                f"{self.jupyterhub_service_name}). {self.how_to_get_a_token}"
            )
        return User(name, groups=[g for g in data.get("groups") or () if isinstance(g, str)])
