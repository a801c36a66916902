"""A token for the gateway in a file that others can read is no secret any more: say so, and what to do."""

import os
import re
import warnings
from collections.abc import Iterator
from pathlib import Path

# A token or password with a value. A name in braces is none: dask-gateway replaces {NAME} by that environment variable.
SECRET = re.compile(r"""(?:api[-_]token|password)["']?\s*:\s*["']?(?!null\b|~)[^\s"'{},#]""")

# Folders of configuration may hold other things; a file with a token is small.
LARGEST = 1_000_000


class ReadableTokenWarning(UserWarning):
    """A file with a token for the gateway can be read by others."""


def configuration_files() -> Iterator[Path]:
    """Yield the files where dask looks for a user's configuration, and what editors leave beside them."""
    places = [Path.home() / ".config" / "dask"]
    if os.environ.get("DASK_CONFIG"):
        places.append(Path(os.environ["DASK_CONFIG"]))
    for place in places:
        try:
            yield from sorted(path for path in place.iterdir() if path.is_file())
        except NotADirectoryError:
            yield place
        except OSError:
            continue  # it is not there, or not ours to read


def readable() -> list[tuple[Path, int]]:
    """Return this user's files with a token that others may read or change, each with its mode.

    Whether the folders above happen to be closed doesn't count, as it doesn't for ssh's keys: they are opened one day.
    """
    found = []
    for path in configuration_files():
        try:
            status = path.stat()
            if (
                status.st_mode & 0o066
                and status.st_uid == os.getuid()
                and status.st_size <= LARGEST
                and SECRET.search(path.read_text(errors="replace"))
            ):
                found.append((path, status.st_mode & 0o777))
        except OSError:
            continue
    return found


def sentence(path: Path, mode: int, token_page: str | None) -> str:
    """Tell a user what is wrong with a file and what to do."""
    where = f" at {token_page}" if token_page else ""
    return (
        f"{path} holds a token for the Dask Gateway service, and with mode {mode:04o} it is open to others. "
        f"Close it with: chmod 600 {path} - and as others may have read the token, revoke it{where} and make a new one."
    )


def warn_of_readable() -> None:
    """Warn of each such file, except in the jobs of a cluster, whose user was warned where the cluster was made."""
    if "DASK_GATEWAY_CLUSTER_NAME" in os.environ:
        return
    files = readable()
    if not files:
        return
    import dask.config  # dask_gateway imports it next, and only here it is worth its time

    token_page = dask.config.get("dask-user-tools.token-page", None)
    for path, mode in files:
        warnings.warn(sentence(path, mode, token_page), ReadableTokenWarning, stacklevel=3)  # whoever imports
