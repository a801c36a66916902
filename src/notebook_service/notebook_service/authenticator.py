"""Sign-in through PAM."""

from __future__ import annotations

from jupyterhub.auth import PAMAuthenticator

from notebook_service.admission import Admission
from notebook_service.pam import keep_modules
from notebook_service.sign_out import EndsSessions


class NotebookAuthenticator(Admission, PAMAuthenticator):
    """PAM, for the users of a site's directory."""

    def __init__(self, **kwargs) -> None:
        super().__init__(**kwargs)
        self._modules = keep_modules(self.service)

    def get_handlers(self, app) -> list:
        """Add the page for signing out."""
        return [*super().get_handlers(app), ("/logout", EndsSessions)]
