"""Whether an account of this host can have a notebook server; if not, the sentence that its owner reads."""

from __future__ import annotations

import pwd
import stat
from pathlib import Path

from notebook_service.pam import account_fault, unusable

SHELLS_THAT_REFUSE = {"nologin", "false"}
LONGEST_NAME = 64


class AccountError(Exception):
    """The account cannot have a notebook server; the text is for its owner."""


def known_account(name: str, minimum_uid: int) -> pwd.struct_passwd:
    """Look the account up.

    Raises
    ------
    AccountError
        When there is none of exactly this name, or it is one of the system's.
    """
    try:
        account = pwd.getpwnam(name)
    except (KeyError, ValueError):  # a name with a NUL character is a ValueError
        account = None
    # A directory may find an account by another spelling of its name
    if account is None or account.pw_name != name:
        raise AccountError(f"The notebook service knows no account named {shown(name)}.")
    if account.pw_uid < minimum_uid:
        raise AccountError(f"{name} is an account of the system; it can have no notebook server.")
    return account


def shown(name: str) -> str:
    """Make a name of any origin fit for a sentence."""
    return name if name.isprintable() and len(name) <= LONGEST_NAME else repr(name[:LONGEST_NAME])


def usable_account(name: str, minimum_uid: int, pam_service: str) -> pwd.struct_passwd:
    """Look the account up, ask PAM whether it may be used, and look at its home folder.

    Raises
    ------
    AccountError
        When a server of this account could not start, or must not.
    """
    account = known_account(name, minimum_uid)
    if Path(account.pw_shell).name in SHELLS_THAT_REFUSE:
        raise AccountError(
            f"The account {name} is not for interactive use (its login shell is {account.pw_shell}), "
            "so it can have no notebook server."
        )
    fault = account_fault(name, pam_service)
    if fault:
        raise AccountError(unusable(name, fault))
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
