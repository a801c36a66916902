"""Sign-in through PAM."""

from __future__ import annotations

import pamela
from jupyterhub.auth import PAMAuthenticator
from tornado.web import HTTPError
from traitlets import Unicode


class NotebookAuthenticator(PAMAuthenticator):
    """PAM, for the users of a site's directory.

    Beyond JupyterHub's own:

    - Who has the right password and is not let in reads so, instead of "invalid username or password".
    - Who is no longer among the admins, or in their groups, is none from the next sign-in on.
    """

    support_address = Unicode(
        help="Where a user may write who is not let in.",
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

    async def is_admin(self, handler, authentication: dict) -> bool:
        """Decide it each time; upstream's None would leave an admin of earlier one for ever."""
        return bool(await super().is_admin(handler, authentication))
