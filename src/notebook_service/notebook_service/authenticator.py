"""Sign-in through PAM."""

from __future__ import annotations

import pamela
from jupyterhub.auth import PAMAuthenticator
from tornado.web import HTTPError
from traitlets import List, Unicode

from notebook_service.required_service import refusal


class NotebookAuthenticator(PAMAuthenticator):
    """PAM, for the users of a site's directory.

    Beyond JupyterHub's own:

    - Who has the right password and is not let in reads so, instead of "invalid username or password".
    - A service can be required that users must hold, at each sign-in and for each start of a server.
    - Who is no longer among the admins, or in their groups, is none from the next sign-in on.
    """

    support_address = Unicode(
        help="Where a user may write who is not let in.",
    ).tag(config=True)

    required_service_command = List(
        Unicode(),
        help="The command that says whether a user holds the required service; an empty list requires none.",
    ).tag(config=True)

    def __init__(self, **kwargs) -> None:
        super().__init__(**kwargs)
        # PAM unloads its modules after each sign-in, and sssd's before 2.9 leaves a destructor behind that
        # kills the Hub when the thread ends (SSSD/sssd#6505). This handle, never ended, keeps them loaded.
        self._modules = pamela.pam_start(self.service, "")

    def check_allowed(self, username: str, authentication: dict | None = None) -> bool:
        """Let the user in, or say that the account is not among those that may."""
        if super().check_allowed(username, authentication):
            return True
        raise HTTPError(
            403,
            f"The account {username} may not use the notebook service."
            + (f" If it should, write to {self.support_address}." if self.support_address else ""),
        )

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
        return bool(await super().is_admin(handler, authentication))
