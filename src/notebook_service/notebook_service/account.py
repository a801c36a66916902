"""Whether an account of this host can have a notebook server; if not, the sentence that its owner reads."""

from __future__ import annotations

import pwd
import stat
from pathlib import Path

SHELLS_THAT_REFUSE = {"nologin", "false"}


class AccountError(Exception):
    """The account cannot have a notebook server; the text is for its owner."""


def usable_account(name: str, minimum_uid: int) -> pwd.struct_passwd:
    """Look the account up, and its home folder.

    Raises
    ------
    AccountError
        When a server of this account could not start, or must not.
    """
    try:
        account = pwd.getpwnam(name)
    except KeyError:
        raise AccountError(f"The notebook service knows no account named {name}.") from None
    if account.pw_uid < minimum_uid:
        raise AccountError(f"{name} is an account of the system; it can have no notebook server.")
    if Path(account.pw_shell).name in SHELLS_THAT_REFUSE:
        raise AccountError(
            f"The account {name} is not for interactive use (its login shell is {account.pw_shell}), "
            "so it can have no notebook server."
        )
    check_home(Path(account.pw_dir), account.pw_uid)
    return account


def check_home(home: Path, uid: int) -> None:
    """See that the home folder is there and its user's."""
    try:
        found = home.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise AccountError(f"Your home folder {home} does not exist on the notebook service.") from None
    except OSError as error:
        raise AccountError(
            f"Your home folder {home} cannot be reached from the notebook service ({error.strerror})."
        ) from error
    if not stat.S_ISDIR(found.st_mode):
        raise AccountError(f"Your home folder {home} is no folder on the notebook service.")
    if found.st_uid != uid:
        raise AccountError(f"Your home folder {home} belongs to somebody else on the notebook service.")
