"""What signing out ends."""

from __future__ import annotations

from jupyterhub import orm
from jupyterhub.handlers.login import LogoutHandler
from jupyterhub.utils import new_token


class EndsSessions(LogoutHandler):
    """To be mixed into a handler of /hub/logout, before it: a sign-out ends every session of the user's browsers.

    Upstream takes the cookies from the browser that asks, and the session's tokens for servers and services. A copy of
    the Hub's cookie stays good for two weeks, and so does the cookie in a browser that its user left somewhere else.
    Tokens that the user made, and those of running servers, are no sessions and stay.
    """

    async def handle_logout(self) -> None:
        """End the sessions, after what upstream does."""
        await super().handle_logout()
        user = self.current_user
        if user is None:
            return
        user.orm_user.cookie_id = new_token()
        for token in self.db.query(orm.APIToken).filter(
            orm.APIToken.user_id == user.orm_user.id, orm.APIToken.session_id.is_not(None)
        ):
            self.db.delete(token)
        self.db.commit()
