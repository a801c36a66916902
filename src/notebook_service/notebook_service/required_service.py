"""Whether a user holds the service that the site requires for the notebook service; asked of a command."""

from __future__ import annotations

import asyncio
import json
import logging

TIMEOUT = 30  # seconds; the command has a shorter one of its own
NO_ANSWER = "It can't be found out at the moment whether you may use the notebook service. Try again in a few minutes."


async def refusal(command: list[str], username: str, action: str, log: logging.Logger) -> str:
    """Ask the command about a user.

    Parameters
    ----------
    command : list of str
        ``gateway-admin accounts ask`` with its options; an empty one lets everybody in.
    username : str
        Who is asked about.
    action : str
        What the user wants, for the audit log.
    log : logging.Logger
        Where it is said that there was no answer.

    Returns
    -------
    str
        The sentence for a user who is not let in, or an empty string.
    """
    if not command:
        return ""
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            f"--action={action}",
            "--",
            username,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    except (OSError, ValueError) as error:  # a name with a NUL character is a ValueError
        log.error("The access check can't be asked: %s", error)
        return NO_ANSWER
    try:
        async with asyncio.timeout(TIMEOUT):
            output, errors = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.communicate()
        log.error("The access check gives no answer in %d s", TIMEOUT)
        return NO_ANSWER
    try:
        answer = json.loads(output)
        allowed, message = answer["decision"] == "allowed", str(answer["message"])
    except (ValueError, TypeError, KeyError):
        log.error("The access check gives no answer: %s", errors.decode(errors="replace")[-1000:])
        return NO_ANSWER
    if allowed and process.returncode == 0:
        return ""
    return message or NO_ANSWER
