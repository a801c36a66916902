"""Which portal the contract is tested on: the one that the environment names, or else the stand-in."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote_plus

import pytest
import requests
from stand_in import CLIENT, SCOPE, StandIn


@dataclass
class Portal:
    """A portal, what this service is there, and who is known there."""

    url: str
    ca: str | bool
    client_id: str
    client_secret: str
    scope: str
    category: str
    service: str
    holder: str

    def token(self, **changes: str) -> requests.Response:
        """Ask for a token; `changes`: another client_id, client_secret or scope."""
        values = {"client_id": self.client_id, "client_secret": self.client_secret, "scope": self.scope} | changes
        return requests.post(
            f"{self.url}/oauth/token/",
            data={"grant_type": "client_credentials", "scope": values["scope"]},
            # RFC 6749, 2.3.1: each is encoded as in a form before it goes into the header
            auth=(quote_plus(values["client_id"]), quote_plus(values["client_secret"])),
            verify=self.ca,
            timeout=30,
            allow_redirects=False,
        )

    def grants(self, user: str, token: str | None, **query: str) -> requests.Response:
        """Ask for a user's grants; `user` is put into the address as it is."""
        return requests.get(
            f"{self.url}/api/v1/users/{user}/grants/",
            params=query,
            headers={"Authorization": f"Bearer {token}"} if token else {},
            verify=self.ca,
            timeout=30,
            allow_redirects=False,
        )


@pytest.fixture(scope="session")
def portal(tmp_path_factory) -> Iterator[Portal]:
    environment = {
        name.removeprefix("ACCOUNTS_PORTAL_"): value
        for name, value in os.environ.items()
        if name.startswith("ACCOUNTS_PORTAL_")
    }
    if "URL" in environment:
        yield Portal(
            url=environment["URL"].rstrip("/"),
            ca=environment.get("CA", True),
            client_id=environment["CLIENT_ID"],
            client_secret=Path(environment["CLIENT_SECRET_FILE"]).read_text().strip(),
            scope=environment.get("SCOPE", SCOPE),
            category=environment.get("CATEGORY", "additional_services"),
            service=environment.get("SERVICE", "dask"),
            holder=environment["HOLDER"],
        )
        return
    stand_in = StandIn(tmp_path_factory.mktemp("portal"))
    stand_in.start()
    try:
        yield Portal(
            url=stand_in.url,
            ca=stand_in.ca,
            client_id=CLIENT["id"],
            client_secret=CLIENT["secret"],
            scope=SCOPE,
            category="additional_services",
            service="dask",
            holder="alice",
        )
    finally:
        stand_in.stop()


@pytest.fixture(scope="session")
def token(portal) -> str:
    return portal.token().json()["access_token"]
