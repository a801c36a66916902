"""What tests do to the stand-in portal, however its control is reached."""

import json
from collections.abc import Callable
from datetime import date
from typing import Any

CATEGORY = "additional_services"
SERVICE = "dask"


class PortalControl:
    """The control of the stand-in portal (molecule/shared/portal/accounts_portal/control.py).

    Parameters
    ----------
    call : callable
        Sends a method and a path below /control/ with a JSON text, and returns the answer's text.
    """

    def __init__(self, call: Callable[[str, str, str], str]):
        self._call = call

    def _do(self, method: str, path: str, **values: Any) -> dict:
        answer = json.loads(self._call(method, path, json.dumps(values, default=str)))
        if "error" in answer:
            raise ValueError(answer["error"])
        return answer

    def reset(self) -> None:
        """Back to what the site's file says."""
        self._do("POST", "reset/")

    def grant(self, user: str, category: str = CATEGORY, service: str = SERVICE, **values: Any) -> int:
        """Grant; `values`: role, expires, granted_at, supersede."""
        return self._do("POST", "grants/", user=user, category=category, service=service, **values)["id"]

    def revoke(self, user: str, **which: str) -> None:
        """Revoke the user's grants."""
        self._do("PATCH", "grants/", user=user, revoked=True, **which)

    def expire(self, user: str, on: date, **which: str) -> None:
        """Let the user's grants end with that day."""
        self._do("PATCH", "grants/", user=user, expires=on, **which)

    def forget(self, user: str, **which: str) -> None:
        """As if the user had never been granted anything."""
        self._do("DELETE", "grants/", user=user, **which)

    def add_service(self, category: str, name: str) -> None:
        """Have another service."""
        self._do("POST", "services/", category=category, name=name)

    def fault(self, at: str, kind: str, **details: Any) -> None:
        """Have requests for a ``token`` or for ``grants`` answered wrongly; see faults.py."""
        self._do("PUT", "faults/", at=at, kind=kind, **details)

    def behave(self) -> None:
        """End all faults."""
        self._do("DELETE", "faults/")

    def forget_tokens(self) -> None:
        """Refuse every token of before."""
        self._do("DELETE", "tokens/")

    def client(self, **values: Any) -> None:
        """Change the client: id, secret, scopes; token_lifetime."""
        self._do("PUT", "client/", **values)

    def claim(self, user: str, **claims: Any) -> None:
        """Say this of a user to services that sign people in."""
        self._do("PUT", "claims/", user=user, claims=claims)

    def requests(self) -> dict:
        """How many requests there were, by address and user."""
        return self._do("GET", "requests/")

    def count_from_zero(self) -> None:
        """Forget the requests of before."""
        self._do("DELETE", "requests/")
