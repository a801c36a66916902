"""A preload of Dask clients: say once, and in a few words, that a cluster has other versions than this kernel.

The environments' own configuration (etc/dask/dask_user_tools.yaml) loads it. What switches it off is
`dask-user-tools.version-warning: false` in a user's configuration, or DASK_DASK_USER_TOOLS__VERSION_WARNING=False
in the environment; distributed's own table is shown then.
"""

import asyncio
import warnings

import dask.config

from dask_user_tools import versions

WORST_SHOWN = 3
told = set()


class VersionWarning(UserWarning):
    """A cluster's versions differ from this environment's."""


def is_wanted() -> bool:
    """Whether the user wants to be told; a cluster's jobs are no users."""
    return bool(dask.config.get("dask-user-tools.version-warning", True)) and not versions.in_a_job()


def sentence(found: list[versions.Difference]) -> str:
    """The warning, for what matters."""
    shown = ", ".join(f"{d.package} {d.client or 'missing'} here and {d.scheduler or 'missing'} there" for d in found)
    return f"The cluster has other versions than this environment: {shown}. {versions.mend(found)}"


async def dask_setup(client) -> None:
    """Compare, when a client has connected; nothing that fails here may disturb it."""
    if not is_wanted():
        return
    try:
        from distributed.versions import get_versions

        theirs = await asyncio.wait_for(client.scheduler.versions(), 5)
        found = versions.differences(get_versions()["packages"], theirs["packages"])
    except Exception:
        return
    serious = [difference for difference in found if difference.rank < 2][:WORST_SHOWN]
    text = sentence(serious) if serious else ""
    if text and text not in told:
        told.add(text)
        warnings.warn(text, VersionWarning, stacklevel=2)


if is_wanted():
    # distributed warns of the same with a table, at each connection. This is imported before the first.
    warnings.filterwarnings("ignore", message=r"Mismatched versions found")
