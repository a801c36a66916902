"""What users' notebook servers have in common, whatever starts them."""

from __future__ import annotations

import asyncio
import pwd
import re

from jupyterhub.spawner import SpawnException
from tornado.web import HTTPError
from traitlets import Dict, Integer, List, Unicode, default
from traitlets.config import LoggingConfigurable

from notebook_service import profiles
from notebook_service.account import AccountError, usable_account

NO_SPACE = re.compile("No space left on device|Disk quota exceeded")


class NotebookServer(LoggingConfigurable):
    """To be mixed into a spawner, before it.

    - Who cannot have a server is told why before anything is started.
    - A site can offer servers of several sizes; what users ask for, in the form or by the API, is one of them.
    """

    support_address = Unicode(
        help="Where a user may write whose server cannot be started.",
    ).tag(config=True)

    minimum_uid = Integer(
        1000,
        help="Accounts with a smaller number are the system's and get no server.",
    ).tag(config=True)

    pam_service = Unicode(
        "jupyterhub",
        help="The PAM service that is asked whether an account may be used; sessions and tokens outlive a lock.",
    ).tag(config=True)

    profiles = List(
        Dict(),
        help="""
        The sizes of server that users choose from, the first one if they don't say: each a name, memory
        (2G) and cores (1.5), and of servers that are batch jobs a time. Without any, a server has the limits
        of the other options.
        """,
    ).tag(config=True)

    async def get_options_form(self) -> str:
        """Let the user choose, where there is a choice."""
        if not self.profiles:
            return await super().get_options_form()
        try:
            selected = profiles.chosen(self.profiles, self.user_options or {})["name"]
        except profiles.ProfileError:  # the last server's is offered no more
            selected = self.profiles[0]["name"]
        return profiles.form(self.profiles, selected)

    @default("options_from_form")
    def _default_options_from_form(self):
        return profiles.options_from_form

    @default("apply_user_options")
    def _default_apply_user_options(self):
        return _apply_profile

    def profile_asked_for(self, user_options: dict) -> dict:
        """Find the profile; what comes by the API may ask for anything."""
        try:
            return profiles.chosen(self.profiles, user_options)
        except profiles.ProfileError as error:
            raise HTTPError(400, str(error)) from error

    def apply_profile(self, profile: dict) -> None:
        """Take the limits of a profile."""
        self.mem_limit, self.cpu_limit = profile["memory"], profile["cores"]

    async def admitted(self) -> pwd.struct_passwd:
        """Look the user's account up.

        Raises
        ------
        SpawnException
            For a user who can have no server now; its text is for them.
        """
        try:
            # Directory and home may be on the network and slow to answer
            account = await asyncio.to_thread(usable_account, self.user.name, self.minimum_uid, self.pam_service)
        except AccountError as error:
            raise self.refusal(str(error), "account") from error
        sentence = await self.authenticator.refusal(self.user.name, "start a server")
        if sentence:
            raise shown(SpawnException(sentence, reason="service"))
        return account

    def refusal(self, sentence: str, reason: str) -> SpawnException:
        """Make the error whose sentence the user reads, with the address to write to."""
        if self.support_address:
            sentence += f" If you need help, write to {self.support_address}."
        return shown(SpawnException(sentence, reason=reason))

    def no_space(self, words: str) -> SpawnException:
        """Make the error for a home folder that is full."""
        return self.refusal(
            f"Your notebook server found no space to write to: {words.rstrip('.')}. Delete what you no "
            "longer need from your home folder, on a login host for example, and start your server again.",
            "no space",
        )


def _apply_profile(spawner: NotebookServer, user_options: dict) -> None:
    if spawner.profiles:
        spawner.apply_profile(spawner.profile_asked_for(user_options))


def shown(refusal: SpawnException) -> SpawnException:
    """Have the page that follows a server's start show the sentence; else it names the class and more."""
    refusal.jupyterhub_message = refusal.message
    return refusal
