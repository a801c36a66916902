"""Whether the keys that a gateway is to get open everything that its database holds.

The first key encrypts what is new, and nothing that is there is encrypted anew: a key can go when the last cluster from
its time has ended and been forgotten. A gateway that lacks one does not start. The role that writes keys asks first:

    python -m slurm_gateway.database_keys DATABASE < keys, one in each line
"""

import sqlite3
import sys
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from dask_gateway_server.backends.db_base import _normalize_encrypt_key


def locked_clusters(database, keys):
    """The names of the clusters in a database that none of the keys opens."""
    fernet = MultiFernet([Fernet(_normalize_encrypt_key(key)) for key in keys])
    connection = sqlite3.connect(f"{Path(database).absolute().as_uri()}?mode=ro", uri=True, timeout=10)
    try:
        rows = connection.execute("select name, token, tls_credentials from clusters").fetchall()
    finally:
        connection.close()
    locked = []
    for name, *secrets in rows:
        try:
            for secret in secrets:
                fernet.decrypt(secret)
        except InvalidToken:
            locked.append(name)
    return locked


def main():
    """Say whether nothing would be lost. Exit code 1: something would."""
    database = Path(sys.argv[1])
    keys = sys.stdin.read().split()
    if not database.exists():
        print(f"{database} is not there yet.")
        return 0
    locked = locked_clusters(database, keys)
    if locked:
        print(
            f"{len(locked)} clusters in {database} were encrypted with a key that is no longer among "
            f"dask_gateway_database_keys: {', '.join(name[:8] for name in locked)}. Put that key back below the first "
            "one, and take it out again a day after these clusters have ended."
        )
        return 1
    print(f"The keys open everything in {database}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
