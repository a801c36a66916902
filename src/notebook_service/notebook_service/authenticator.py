"""Sign-in through PAM."""

from __future__ import annotations

import pamela
from jupyterhub.auth import PAMAuthenticator
from tornado.concurrent import run_on_executor

from notebook_service.account import shown
from notebook_service.admission import Admission
from notebook_service.pam import account_fault, keep_modules, unusable
from notebook_service.sign_out import EndsSessions


class NotebookAuthenticator(Admission, PAMAuthenticator):
    """PAM, for the users of a site's directory."""

    def __init__(self, **kwargs) -> None:
        super().__init__(**kwargs)
        self._modules = keep_modules(self.service)

    @run_on_executor
    def authenticate(self, handler, data: dict) -> str | None:
        """Ask PAM for the password first, and only then whether the account may be used.

        Upstream takes an account that is locked or has expired for a wrong password, and its owner, who alone is told
        otherwise here, would go and have another one made.

        Raises
        ------
        HTTPError
            403, with the sentence, where the password is right and the account may not be used now.
        """
        name, address = data["username"], handler.request.remote_ip
        try:
            pamela.authenticate(name, data["password"], service=self.service, encoding=self.encoding, check=False)
        except pamela.PAMError as error:
            self.log.warning("The sign-in of %s from %s is refused: %s", shown(name), address, error)
            return None
        fault = account_fault(name, self.service)
        if fault:
            self.log.warning("The sign-in of %s from %s is refused: %s", shown(name), address, fault)
            raise self.not_let_in(unusable(name, fault))
        return name

    def get_handlers(self, app) -> list:
        """Add the page for signing out."""
        return [*super().get_handlers(app), ("/logout", EndsSessions)]
