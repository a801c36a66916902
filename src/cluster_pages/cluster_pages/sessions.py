"""Tickets with which a scheduler asks whether the person who watches its dashboard is still signed in.

A websocket is let pass once and then lives for hours. So the front end hands a ticket to the scheduler, which asks with
it every few seconds and ends the websocket when the session has ended. A ticket holds the session's token, encrypted
for this service alone: it survives a restart, and nobody else can do anything with it.
"""

import json

from cryptography.fernet import Fernet, InvalidToken


class Sessions:
    """Makes and reads tickets."""

    def __init__(self, key):
        self._fernet = Fernet(key)

    def ticket(self, token, cluster):
        """A ticket of this session for this cluster."""
        return self._fernet.encrypt(json.dumps([token, cluster]).encode()).decode()

    def read(self, ticket):
        """Token and cluster; a ValueError if it is none of ours."""
        try:
            token, cluster = json.loads(self._fernet.decrypt(ticket.encode()))
        except InvalidToken:
            raise ValueError("not a ticket of this service") from None
        return token, cluster
