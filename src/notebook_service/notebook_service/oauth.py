"""Sign-in through a site's accounts portal, or any provider of OpenID Connect."""

from __future__ import annotations

import asyncio
import grp
import os

from oauthenticator.generic import GenericOAuthenticator
from oauthenticator.oauth2 import OAuthCallbackHandler, OAuthLogoutHandler
from tornado.httpclient import HTTPClientError
from tornado.web import HTTPError
from traitlets import Integer, Unicode, default

from notebook_service.account import AccountError, known_account, shown
from notebook_service.admission import Admission
from notebook_service.pam import account_fault, keep_modules, unusable
from notebook_service.sign_out import EndsSessions

DIRECTORY_GROUPS = "groups_of_the_directory"


class CallbackHandler(OAuthCallbackHandler):
    """Where the provider sends people back to."""

    def check_state(self) -> None:
        """See that this browser began the sign-in; upstream's words for the opposite are no sentence."""
        try:
            super().check_state()
        except HTTPError as error:
            self.log.warning("A sign-in is refused: %s", error)
            raise HTTPError(
                400,
                "This sign-in was not begun in this browser, or too long ago. Go back to the start, and sign in again.",
            ) from error


class SignOutHandler(EndsSessions, OAuthLogoutHandler):
    """Ends the sessions here, and sends the browser to the provider to end its own."""


class NotebookOAuthenticator(Admission, GenericOAuthenticator):
    """OAuth, for users whom the site's directory knows.

    Beyond oauthenticator's own:

    - The name that the provider says must be that of an account which could sign in by its password: the
      directory knows exactly it, it is not the system's, and PAM has nothing against it.
    - Groups are those of the directory where the provider says none.
    - A provider that gives no answer is told in a sentence.
    """

    callback_handler = CallbackHandler
    logout_handler = SignOutHandler

    pam_service = Unicode(
        "jupyterhub",
        help="The PAM service that is asked whether an account may be used.",
    ).tag(config=True)

    minimum_uid = Integer(
        1000,
        help="Accounts with a smaller number are the system's and can't sign in.",
    ).tag(config=True)

    groups_claim = Unicode(
        help="The claim that names the user's groups; without one they are those of the directory.",
    ).tag(config=True)

    def __init__(self, **kwargs) -> None:
        super().__init__(**kwargs)
        self._modules = keep_modules(self.pam_service)

    @default("auth_state_groups_key")
    def _default_auth_state_groups_key(self) -> str:
        return f"{self.user_auth_state_key}.{self.groups_claim or DIRECTORY_GROUPS}"

    def normalize_username(self, username: str) -> str:
        """Leave the name as it is: in lower case, it might be somebody else's."""
        return username

    async def token_to_user(self, token_info: dict) -> dict:
        """Ask the provider whose token it is, and the host whether that can be a user."""
        user_info = await super().token_to_user(token_info)
        name = user_info.get(self.username_claim) if isinstance(user_info, dict) else None
        if not isinstance(name, str) or not name:
            self.log.error("The sign-in service says no name in the claim %s", self.username_claim)
            raise self.not_let_in(f"{self.login_service} does not say who you are (the claim {self.username_claim}).")
        try:
            # The directory may be slow to answer
            groups = await asyncio.to_thread(self._groups_of_usable, name)
        except AccountError as error:
            self.log.warning("The sign-in of %r is refused: %s", name, error)
            raise self.not_let_in(str(error)) from error
        return user_info | ({} if self.groups_claim else {DIRECTORY_GROUPS: groups})

    def _groups_of_usable(self, name: str) -> list[str]:
        account = known_account(name, self.minimum_uid)
        if not self.validate_username(name):
            raise AccountError(f"The notebook service can't have a user named {shown(name)}.")
        fault = account_fault(name, self.pam_service)
        if fault:
            raise AccountError(unusable(name, fault))
        groups = []
        for number in os.getgrouplist(name, account.pw_gid):
            try:
                groups.append(grp.getgrgid(number).gr_name)
            except KeyError:
                continue
        return groups

    async def authenticate(self, handler, data=None, **kwargs) -> dict | None:
        """Say what is wrong in a sentence, where the provider gives no answer or one that can't be read."""
        try:
            return await super().authenticate(handler, data, **kwargs)
        except HTTPError:
            raise
        except (HTTPClientError, OSError, ValueError) as error:
            self.log.error("%s gives no answer: %s", self.login_service, error)
            raise HTTPError(
                503, f"{self.login_service} gives no answer at the moment. Try again in a few minutes."
            ) from error
