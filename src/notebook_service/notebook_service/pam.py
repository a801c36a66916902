"""What the host's PAM says of accounts, beside their passwords."""

from __future__ import annotations

import pamela


def keep_modules(service: str) -> object:
    """Load a service's modules, for as long as the answer is kept.

    PAM unloads its modules after each use, and sssd's before 2.9 leaves a destructor behind that kills the
    Hub when the thread ends (SSSD/sssd#6505). This handle, never ended, keeps them loaded.
    """
    return pamela.pam_start(service, "")


def unusable(name: str, fault: str) -> str:
    """Say it to the account's owner; PAM's own words may be as little as "Authentication failure"."""
    return f"The account {name} can't be used at present ({fault}): it is locked or has expired, or the host is closed."


def account_fault(name: str, service: str) -> str:
    """Say why an account may not be used now: it is locked, or the host is closed; an empty string if it may."""
    try:
        pamela.check_account(name, service=service)
    except pamela.PAMError as error:
        return error.message
    return ""
