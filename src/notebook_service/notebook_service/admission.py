"""Who of those that have proved who they are is let in; the same however they have proved it."""

from __future__ import annotations

from jupyterhub.apihandlers import APIHandler
from jupyterhub.auth import Authenticator
from jupyterhub.utils import maybe_future
from tornado.web import HTTPError
from traitlets import List, Unicode

from notebook_service.required_service import refusal


class Admission(Authenticator):
    """To be mixed into an authenticator, before it.

    Beyond JupyterHub's own:

    - Who has signed in and is not let in reads so, instead of "invalid username or password".
    - A service can be required that users must hold, at each sign-in and for each start of a server.
    - Passwords count on the page for signing in alone, where attempts are limited.
    - Who is no longer among the admins, or in their groups, is none from the next sign-in on.
    """

    support_address = Unicode(
        help="Where a user may write who is not let in.",
    ).tag(config=True)

    required_service_command = List(
        Unicode(),
        help="The command that says whether a user holds the required service; an empty list requires none.",
    ).tag(config=True)

    def not_let_in(self, sentence: str) -> HTTPError:
        """Make the error whose sentence the user reads, with the address to write to."""
        return HTTPError(
            403, sentence + (f" If it should, write to {self.support_address}." if self.support_address else "")
        )

    async def get_authenticated_user(self, handler, data) -> dict | None:
        """Refuse a password in a request to the API: upstream makes tokens for that, and counts no guesses.

        Source: jupyterhub.apihandlers.users, UserTokenListAPIHandler.post.
        """
        if isinstance(handler, APIHandler):
            raise HTTPError(403, "The API takes tokens alone; they are made on the page /hub/token.")
        return await super().get_authenticated_user(handler, data)

    async def check_allowed(self, username: str, authentication: dict | None = None) -> bool:
        """Let the user in, or say that the account is not among those that may."""
        if await maybe_future(super().check_allowed(username, authentication)):
            return True
        raise self.not_let_in(f"The account {username} may not use the notebook service.")

    async def run_post_auth_hook(self, handler, auth_model: dict) -> dict:
        """Ask for the required service; upstream does not call check_allowed where all are allowed."""
        sentence = await self.refusal(auth_model["name"], "sign in")
        if sentence:
            raise HTTPError(403, sentence)
        return await super().run_post_auth_hook(handler, auth_model)

    async def refusal(self, username: str, action: str) -> str:
        """Say why a user who lacks the required service is not let in; an empty string for everybody else."""
        return await refusal(self.required_service_command, username, action, self.log)

    async def is_admin(self, handler, authentication: dict) -> bool:
        """Decide it each time; upstream's None would leave an admin of earlier one for ever."""
        return bool(await maybe_future(super().is_admin(handler, authentication)))
