"""What another cookie secret ends.

With the secret the Hub signs the cookie of its own pages, and that ends by itself. The sessions of browsers at users'
servers and at services are OAuth tokens in the Hub's database, which the secret has no part in: they would go on for
as long as they were made for.
"""

from __future__ import annotations

import hashlib
import sqlite3
from contextlib import closing
from pathlib import Path

LOCK_TIMEOUT = 30  # seconds for which a backup may keep the database busy


def end_sessions_of_another_secret(secret: str | None, remembered: str | Path, database: str | Path) -> int:
    """End the sessions of all browsers at servers and services, if the cookie secret is another than at the last start.

    To be called before the Hub opens its database. At the first start there is nothing to compare with, and the secret
    is only remembered, by its digest. It is remembered last: what fails before is done again at the next start.

    Parameters
    ----------
    secret : str or None
        The cookie secret. Without one nothing is done: it is not the Hub that reads the configuration.
    remembered : str or Path
        The file with the digest of the secret of the last start.
    database : str or Path
        The Hub's sqlite database, which need not be there yet.

    Returns
    -------
    int
        How many sessions have ended.

    Raises
    ------
    OSError
        When the digest can't be read or written.
    sqlite3.Error
        When the database can't be changed. The Hub does not start then, rather than with sessions that were to end.
    """
    if not secret:
        return 0
    remembered = Path(remembered)
    digest = hashlib.sha256(secret.encode()).hexdigest()
    earlier = remembered.read_text().strip() if remembered.exists() else None
    if earlier == digest:
        return 0
    ended = 0
    if earlier is not None:
        ended = _end_sessions(Path(database))
        # Flushed: a log that is a pipe would have it much later than the Hub's own lines
        print(f"Another cookie secret: {ended} sessions of browsers at servers and services have ended", flush=True)
    draft = remembered.with_name(f"{remembered.name}.new")
    draft.touch(mode=0o600)
    draft.write_text(f"{digest}\n")
    draft.replace(remembered)
    return ended


def _end_sessions(database: Path) -> int:
    """Delete the tokens of sessions: users' own and those of running servers have no session_id.

    Source: JupyterHub's orm.APIToken.session_id, "the browser session id associated with a given token".
    """
    if not database.exists():
        return 0
    with closing(sqlite3.connect(database, timeout=LOCK_TIMEOUT)) as connection, connection:
        if not connection.execute(
            "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'api_tokens'"
        ).fetchone():
            return 0
        return connection.execute("DELETE FROM api_tokens WHERE session_id IS NOT NULL AND session_id != ''").rowcount
