"""The gateway, asked with the token of the user who is there: it alone knows whose a cluster is."""

import hashlib
import json
import logging
import time

from tornado.httpclient import AsyncHTTPClient, HTTPRequest

log = logging.getLogger(__name__)


class GatewayError(Exception):
    """The gateway's no, or its silence (status 0)."""

    def __init__(self, status, text=""):
        super().__init__(text)
        self.status = status


class Gateway:
    """A client of the gateway's API."""

    def __init__(self, api, check_interval):
        self._api = api.rstrip("/")
        self._check_interval = check_interval
        self._answers = {}
        self._client = AsyncHTTPClient()

    async def clusters(self, token):
        """The user's clusters, see slurm_gateway.dashboards.summary."""
        return await self._ask("GET", "/api/v1/summaries", token)

    async def stop(self, token, name):
        """Stop a cluster."""
        await self._ask("DELETE", f"/api/v1/clusters/{name}", token)
        self._answers.clear()

    async def dashboard_key(self, token, name):
        """The key of a cluster's dashboard, which the gateway tells its owner.

        A page of a dashboard is many requests, so the answer counts for some seconds, be it yes or no.
        """
        now = time.monotonic()
        self._answers = {asked: entry for asked, entry in self._answers.items() if entry[0] > now}
        asked = hashlib.sha256(f"{token} {name}".encode()).digest()
        if asked not in self._answers:
            try:
                answer = (await self._ask("GET", f"/api/v1/dashboards/{name}", token))["key"]
            except GatewayError as exc:
                if exc.status not in (403, 404, 410, 422):
                    raise  # not an answer, or one that changes any moment
                answer = exc
            self._answers[asked] = (now + self._check_interval, answer)
        answer = self._answers[asked][1]
        if isinstance(answer, GatewayError):
            raise GatewayError(answer.status, str(answer))
        return answer

    async def _ask(self, method, path, token):
        request = HTTPRequest(
            self._api + path,
            method=method,
            headers={"Authorization": f"token {token}"},
            connect_timeout=5,
            request_timeout=30,
            follow_redirects=False,
        )
        try:
            response = await self._client.fetch(request, raise_error=False)
            if response.code < 300:
                return json.loads(response.body) if response.body else None
            status = response.code if response.code < 590 else 0  # tornado's own: nobody answered
            text = json.loads(response.body)["error"] if response.body else ""
        except (OSError, ValueError, KeyError, TypeError) as exc:
            log.error("The gateway gives no usable answer to %s %s: %r", method, path.rpartition("/")[0], exc)
            raise GatewayError(0) from None
        if status == 0 or status >= 500:
            log.error("The gateway answers %s %s with %d: %s", method, path.rpartition("/")[0], response.code, text)
        raise GatewayError(status, text)
