"""The site's list of jaspy releases, as modules, notebooks and the gateway need it: one definition for all of them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import date
from typing import Any

from ansible.errors import AnsibleFilterError

NAME = re.compile(r"jaspy([0-9]+)\.([0-9]+)-v([0-9]{8})")
STATES = ("current", "supported", "retired")


def catalogue(releases: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Check the list and answer it newest first, each release with what follows from its name and state.

    Added are `python` (3.11), `version` (v20261101), `module`, `default` (the newest current one), `default_of_python`,
    `replaced_by` (of a retired one: the one that is named, or the default), and what users are told: `warning` of a
    release that is to be retired, `refusal` of one that is.
    """
    known = [dict(release) for release in releases]
    names = [str(release.get("name")) for release in known]
    for name in names:
        if not NAME.fullmatch(name):
            raise AnsibleFilterError(f"site_jaspy_releases: {name!r} is no name such as jaspy3.11-v20261101")
        if names.count(name) > 1:
            raise AnsibleFilterError(f"site_jaspy_releases: {name} is listed twice")
    for release in known:
        complete(release)
    known.sort(key=age, reverse=True)

    default = next((release for release in known if release["state"] == "current"), None)
    if default is None:
        raise AnsibleFilterError("site_jaspy_releases: no release is current; the newest current one is the default")
    for release in known:
        release["default"] = release is default
        release["default_of_python"] = release is preferred(r for r in known if r["python"] == release["python"])
        release["replaced_by"] = release.get("replaced_by") or default["name"]
        check_replacement(release, known)
    modules = {release["name"]: release["module"] for release in known}
    for release in known:
        tell(release, modules[release["replaced_by"]])
    return known


def age(release: dict[str, Any]) -> tuple[str, int, int]:
    """Return what releases are sorted by: the date, then the Python. Names don't sort: 3.9 would come after 3.11."""
    major, minor, day = NAME.fullmatch(release["name"]).groups()
    return day, int(major), int(minor)


def complete(release: dict[str, Any]) -> None:
    """Add what follows from a release's own entry, or say what is wrong with it."""
    name = release["name"]
    major, minor, day = NAME.fullmatch(name).groups()
    release["python"] = f"{major}.{minor}"
    release["version"] = f"v{day}"
    release["module"] = f"jaspy/{major}.{minor}/v{day}"
    release["state"] = release.get("state") or "current"
    if release["state"] not in STATES:
        raise AnsibleFilterError(f"site_jaspy_releases: the state of {name} is one of {', '.join(STATES)}")
    for key in ("retires", "remove_after"):
        release[key] = day_of(release, key)
    if release["state"] == "retired" and release["retires"]:
        raise AnsibleFilterError(
            f"site_jaspy_releases: {name} is retired; 'retires' announces that of the others, and 'remove_after' says "
            "until when its files are kept"
        )
    if release["state"] != "retired" and release["remove_after"]:
        raise AnsibleFilterError(
            f"site_jaspy_releases: {name} is {release['state']}, and only a retired release is removed; "
            "'retires' announces the date"
        )
    if release["state"] != "retired" and not release.get("lock"):
        raise AnsibleFilterError(f"site_jaspy_releases: {name} has no lock to be built from")


def day_of(release: dict[str, Any], key: str) -> str:
    """Return a date as text, whichever way YAML read it; empty if there is none."""
    value = release.get(key) or ""
    try:
        return str(value) and date.fromisoformat(str(value)).isoformat()
    except ValueError:
        raise AnsibleFilterError(
            f"site_jaspy_releases: '{key}' of {release['name']} is {value!s}; write a date such as 2027-01-31"
        ) from None


def preferred(releases: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Choose the newest of the best state; a stable sort keeps the order of those that are alike."""
    return min(releases, key=lambda release: STATES.index(release["state"]))


def check_replacement(release: dict[str, Any], known: list[dict[str, Any]]) -> None:
    """A release is replaced by one that users can load."""
    other = next((r for r in known if r["name"] == release["replaced_by"]), None)
    if other is None:
        raise AnsibleFilterError(
            f"site_jaspy_releases: {release['name']} is replaced by {release['replaced_by']}, which is not listed"
        )
    if release["state"] == "retired" and other["state"] == "retired":
        raise AnsibleFilterError(
            f"site_jaspy_releases: {release['name']} is replaced by {other['name']}, which is retired too"
        )


def tell(release: dict[str, Any], successor: str) -> None:
    """What a user reads who loads a release that will go, or that has gone."""
    name, warning, refusal = release["name"], "", ""
    if release["retires"]:
        warning = f"{name} will be retired on {release['retires']}."
        if release["replaced_by"] != name:
            warning += f" Change to {release['replaced_by']} before then: module load {successor}"
    if release["state"] == "retired":
        refusal = f"{name} is retired; {release['replaced_by']} has replaced it: module load {successor}"
    release.update(warning=warning, refusal=refusal)


def kernels(releases: list[dict[str, Any]], directory: str) -> list[dict[str, str]]:
    """The kernels of notebooks: the default release under a name that stays, and each release under its own."""
    offered = [release for release in catalogue(releases) if release["state"] != "retired"]

    def kernel(name: str, shown: str, release: dict[str, Any]) -> dict[str, str]:
        return {"name": name, "display_name": shown, "python": f"{directory}/envs/{release['name']}/bin/python"}

    default = next(release for release in offered if release["default"])
    return [
        kernel("jaspy", "Jaspy", default),
        *(kernel(r["name"], f"Jaspy {r['python']} {r['version']}", r) for r in offered),
    ]


def choices(releases: list[dict[str, Any]], setup: str) -> dict[str, Any]:
    """The gateway's option: {name: lines of bash} with the default first, and what is said of the retired names."""
    if "{module}" not in setup:
        raise AnsibleFilterError(
            "dask_gateway_jaspy_setup holds no {module}, in whose place the module of the chosen release is put; "
            "write 'module load {module}', for example"
        )
    known = sorted(catalogue(releases), key=lambda release: not release["default"])
    return {
        "releases": {r["name"]: setup.replace("{module}", r["module"]) for r in known if r["state"] != "retired"},
        "retired_releases": {
            r["name"]: f"{r['name']} is retired; {r['replaced_by']} has replaced it" for r in known if r["refusal"]
        },
    }


def contents(lock: str, packages: list[str]) -> list[str]:
    """The packages with their versions in a lock, of requirements or of conda packages; what it lacks is left out."""
    found = []
    for package in packages:
        name = re.escape(package)
        match = re.search(rf"(?m)^{name}==([^\s;\\]+)|/{name}-([^-/\s]+)-[^-/\s]+\.(?:conda|tar\.bz2)#", lock)
        found += [f"{package} {match[1] or match[2]}"] if match else []
    return found


class FilterModule:
    """The filters as Ansible finds them."""

    def filters(self):
        """Return each by its name in templates."""
        return {
            "jaspy_catalogue": catalogue,
            "jaspy_choices": choices,
            "jaspy_contents": contents,
            "jaspy_kernels": kernels,
        }
