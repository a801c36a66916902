"""The accounts portal, asked over HTTPS for a user's grants."""

import asyncio
import json
import random
import ssl
import time
from base64 import b64encode
from pathlib import Path
from urllib.parse import quote, quote_plus

import aiohttp
from traitlets import Float, Integer, Unicode
from traitlets.config import LoggingConfigurable
from yarl import URL

from . import metrics
from .messages import one_line


class PortalError(Exception):
    """The portal gave no answer that could be used. `kind` is one word for it."""

    def __init__(self, kind, message):
        super().__init__(one_line(message, 300))
        self.kind = kind


class PortalAwayError(PortalError):
    """It may answer the next time: refused, timed out, broken off, busy, or not the portal that answered."""

    def __init__(self, kind, message, retry_after=None):
        super().__init__(kind, message)
        self.retry_after = retry_after


class PortalRefusalError(PortalError):
    """It answered that it does not answer us: somebody must mend something, here or there."""


class Portal(LoggingConfigurable):
    """Questions to the accounts portal, with an OAuth2 token that is had with the client's id and secret.

    Neither the secret nor a token is ever part of a message.
    """

    url = Unicode(help="The portal's address, such as https://accounts.example.org.", config=True)
    client_id = Unicode(help="The id of this service's OAuth2 client at the portal.", config=True)
    client_secret_file = Unicode(
        help="The file with the client's secret; read again for every token, so that it can be changed.", config=True
    )
    scope = Unicode(
        "jasmin.services.userservices.all:read",
        help="The scope that the portal's address of grants wants.",
        config=True,
    )
    ca_file = Unicode(
        help="A file of certificate authorities by which the portal is known; empty for the system's.", config=True
    )
    connect_timeout = Float(3, help="Seconds for a connection to come about.", config=True)
    max_size = Integer(1_000_000, help="The bytes of the longest answer that is read.", config=True)
    max_connections = Integer(20, help="The most connections to the portal at a time.", config=True)
    renewal_margin = Float(
        60,
        help="Seconds before a token expires from which on a new one is used; a tenth of its life at most.",
        config=True,
    )

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self._session = None
        self._token = None
        self._token_renewal = self._token_end = 0
        self._token_refusal = (0, None)
        self._token_lock = asyncio.Lock()

    async def close(self):
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def grants(self, user, seconds):
        """The user's grants as the portal lists them, judged by nobody yet.

        Raises
        ------
        PortalError
            When there is no answer in this time, for whatever reason.
        """
        path = f"/api/v1/users/{quote(user, safe='')}/grants/"
        return await self._again_and_again(lambda: self._get(path), seconds)

    async def token(self, seconds):
        """A token, asked for now."""
        return await self._again_and_again(lambda: self._good_token(instead_of=self._token), seconds)

    async def filtered(self, user, seconds, **query):
        """The answer to a question with a filter: its status and body."""
        path = f"/api/v1/users/{quote(user, safe='')}/grants/?" + "&".join(
            f"{name}={quote_plus(value)}" for name, value in query.items()
        )
        return await self._again_and_again(lambda: self._get(path, also=(400,)), seconds)

    # -- how it is asked --------------------------------------------------------------------------------------

    async def _again_and_again(self, ask, seconds):
        """Ask until there is an answer or the time is over, with pauses that grow."""
        deadline = time.monotonic() + seconds
        pause = 0.2
        last = None
        while True:
            try:
                async with asyncio.timeout(deadline - time.monotonic()):
                    return await ask()
            except TimeoutError:
                metrics.PORTAL_ERRORS.labels("timeout").inc()
                raise last or PortalAwayError("timeout", f"no answer from {self.url} in {seconds:g} s") from None
            except PortalRefusalError as exc:
                metrics.PORTAL_ERRORS.labels(exc.kind).inc()
                raise
            except PortalAwayError as exc:
                metrics.PORTAL_ERRORS.labels(exc.kind).inc()
                last = exc
                wait = max(pause * random.uniform(0.7, 1.3), exc.retry_after or 0)  # noqa: S311  not for secrets
                if time.monotonic() + wait >= deadline:
                    raise
            await asyncio.sleep(wait)
            pause = min(pause * 2, 3)

    async def _get(self, path, also=()):
        token = await self._good_token()
        status, body = await self._request("GET", path, {"Authorization": f"Bearer {token}"})
        if status == 401:
            token = await self._good_token(instead_of=token)
            status, body = await self._request("GET", path, {"Authorization": f"Bearer {token}"})
        if status == 401:
            raise PortalRefusalError(
                "token", f"{self.url} refuses the token that it has just issued (401{_detail(body)})"
            )
        if status == 403:
            raise PortalRefusalError(
                "scope", f"{self.url} does not let this client ask (403{_detail(body)}): its scope is {self.scope}"
            )
        if status not in (200, *also):
            raise PortalRefusalError(
                f"status_{status}", f"{self.url} does not take the question ({status}{_detail(body)})"
            )
        return body if not also else (status, body)

    async def _good_token(self, instead_of=None):
        """The token, or a new one before the old one expires; `instead_of` is one that was refused."""
        async with self._token_lock:  # of many who need a new one, one fetches it
            now = time.monotonic()
            refused_until, refusal = self._token_refusal
            if self._token is not None and self._token != instead_of and now < self._token_renewal:
                return self._token
            if now < refused_until:
                raise PortalRefusalError(refusal.kind, str(refusal))
            old_is_good = self._token not in (None, instead_of) and now < self._token_end
            try:
                async with asyncio.timeout(self.connect_timeout if old_is_good else None):
                    self._token, life = await self._new_token()
            except PortalRefusalError as exc:
                self._token_refusal = (now + 10, exc)  # or each user's question would knock with a wrong secret
                raise
            except (PortalAwayError, TimeoutError):
                if old_is_good:
                    return self._token
                raise
            self._token_end = now + life
            self._token_renewal = self._token_end - min(self.renewal_margin, life / 10)
            self._token_refusal = (0, None)
            return self._token

    async def _new_token(self):
        try:
            secret = Path(self.client_secret_file).read_text().strip()
        except (OSError, ValueError) as exc:
            raise PortalRefusalError(
                "secret", f"the client's secret {self.client_secret_file} can't be read: {type(exc).__name__}"
            ) from None
        # RFC 6749, 2.3.1: id and secret are each encoded as in a form before they go into the header
        basic = "Basic " + b64encode(f"{quote_plus(self.client_id)}:{quote_plus(secret)}".encode()).decode()
        form = {"grant_type": "client_credentials", "scope": self.scope}
        status, body = await self._request("POST", "/oauth/token/", {"Authorization": basic}, form)
        error = body.get("error") if isinstance(body, dict) else None
        if error == "invalid_scope":
            raise PortalRefusalError(
                "scope", f"{self.url} does not give the client {self.client_id} the scope {self.scope} (invalid_scope)"
            )
        if error == "invalid_client" or status == 401:
            raise PortalRefusalError(
                "credentials",
                f"{self.url} knows no client {self.client_id} with the secret of {self.client_secret_file} "
                f"({error or status})",
            )
        if status != 200:
            raise PortalRefusalError(
                f"status_{status}", f"{self.url} gives the client {self.client_id} no token ({error or status})"
            )
        try:
            token, life = body["access_token"], float(body.get("expires_in", 300))
            if not (isinstance(token, str) and 0 < len(token) < 10000 and token.isascii() and token.isprintable()):
                raise ValueError
        except (AttributeError, KeyError, TypeError, ValueError):
            raise PortalAwayError("rubbish", f"what {self.url} gives for a token is none") from None
        return token, max(0, min(life, 86400))

    async def _request(self, method, path, headers, form=None):
        """One request: its status and what the JSON of its body says; None where an error has no JSON."""
        metrics.PORTAL_REQUESTS.labels("token" if form else "grants").inc()
        try:
            async with self._client().request(
                method,
                URL(self.url.rstrip("/") + path, encoded=True),
                headers=headers,
                data=form,
                allow_redirects=False,
            ) as response:
                return await self._read(response)
        except aiohttp.ClientConnectorCertificateError as exc:
            raise PortalAwayError(
                "certificate",
                f"the certificate of {self.url} can't be trusted ({exc.certificate_error}); the authorities are "
                f"those of {self.ca_file or 'the system'}",
            ) from None
        except aiohttp.ClientConnectorDNSError:
            raise PortalAwayError("name", f"the name in {self.url} is not known") from None
        except aiohttp.ServerTimeoutError:
            raise PortalAwayError("timeout", f"no connection to {self.url} in {self.connect_timeout:g} s") from None
        except (aiohttp.ClientError, OSError) as exc:  # ssl.SSLError is an OSError
            raise PortalAwayError("connection", f"{self.url}: {type(exc).__name__}: {exc}") from None

    async def _read(self, response):
        status, where = response.status, self.url
        if status == 429 or status >= 500:
            retry_after = response.headers.get("Retry-After", "")
            seconds = float(retry_after) if retry_after.isdecimal() and len(retry_after) < 6 else None
            raise PortalAwayError(f"status_{status}", f"{where} answered with status {status}", seconds)
        if 300 <= status < 400:
            target = response.headers.get("Location", "nowhere")
            raise PortalAwayError(
                "redirect", f"{where} sends to {target} instead of answering: is it the right address?"
            )
        content = bytearray()
        async for chunk in response.content.iter_any():
            content += chunk
            if len(content) > self.max_size:
                response.close()
                raise PortalAwayError("size", f"{where} answered with more than {self.max_size} bytes")
        try:
            return status, json.loads(content)
        except (ValueError, RecursionError):
            if status >= 400:
                return status, None
            kind = "a page of HTML" if response.content_type == "text/html" else "something that is no JSON"
            raise PortalAwayError("rubbish", f"{where} answered with {kind}") from None

    def _client(self):
        if self._session is None:
            try:
                context = ssl.create_default_context(cafile=self.ca_file or None)
            except OSError as exc:
                raise PortalRefusalError(
                    "authorities", f"the authorities in {self.ca_file} can't be read: {exc}"
                ) from None
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=context, limit=self.max_connections),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=self.connect_timeout),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"Accept": "application/json", "Accept-Encoding": "identity"},
            )
        return self._session


def _detail(body):
    detail = body.get("detail") if isinstance(body, dict) else None
    return f": {one_line(detail, 100)}" if detail else ""
