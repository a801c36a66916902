"""What has to be known of a site, and what an answer must look like."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from preflight import formats
from preflight.formats import HOST_NAME

OURS, SITES = "own", "existing"
Check = Callable[[Any], "str | None"]


@dataclass(frozen=True)
class Question:
    """One thing to ask; the key is also its name in an answers file."""

    key: str
    text: str
    check: Check
    default: Any = None
    # Several, separated by spaces where a person types them
    several: bool = False
    # Only where the batch cluster is ours, or is the site's
    only: str = ""

    def fault(self, answer: Any) -> str | None:
        """What is wrong with an answer."""
        if self.several:
            if not isinstance(answer, list):
                return "must be a list"
            return next((wrong for part in answer if (wrong := self.check(part))), None)
        return self.check(answer)


def _text(answer: Any) -> str | None:
    return None if isinstance(answer, str) and answer.strip() else "must be a text that is not empty"


def _matching(pattern: str, sentence: str) -> Check:
    return lambda answer: None if isinstance(answer, str) and re.fullmatch(pattern, answer) else sentence


def _format(check: Callable[[str], str | None]) -> Check:
    return lambda answer: check(answer) if isinstance(answer, str) else "must be a text"


def number(answer: Any) -> str | None:
    """A count of something."""
    return (
        None if isinstance(answer, int) and not isinstance(answer, bool) and answer > 0 else "must be a number above 0"
    )


def _optional(check: Check) -> Check:
    return lambda answer: None if answer == "" else check(answer)


def _file(answer: Any) -> str | None:
    if not isinstance(answer, str) or not Path(answer).is_absolute():
        return "must be the absolute path of a file on this machine"
    return None if Path(answer).is_file() else f"is {answer}, which is no file on this machine"


def _pem(check: Callable[[str], str | None]) -> Check:
    def checked(answer: Any) -> str | None:
        wrong = _file(answer)
        if not wrong:
            wrong = check(Path(answer).read_text(errors="replace"))
            wrong = f"{answer} {wrong}" if wrong else None
        return wrong

    return checked


def _authority(answer: Any) -> str | None:
    wrong = _file(answer)
    return wrong or formats.authorities(Path(answer).read_bytes())


_ours = _matching(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", "must be the name of a host without its domain, in lower case")
_host = _matching(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9-]+)*", "must be the name of a host, in lower case")
_domain = _matching(HOST_NAME.pattern, "must be a domain such as example.org, in lower case")
_address = _matching(r"https://[^/\s]+\S*", "must be an address that begins with https://")
_folder = _matching(r"/\S+", "must be an absolute path")
_name = _matching(r"[A-Za-z_][A-Za-z0-9_.-]*", "must be a name of letters, digits, _, . and -")
_cluster = _matching(r"[a-z][a-z0-9_-]*", "must be a name in lower case")
_later = "; empty: later, by script/secrets"

QUESTIONS = [
    Question("site_name", "The site's name as people know it", _text),
    Question("site_domain", "The domain that the service's addresses end in", _domain),
    Question("site_support_address", "Mail address for users, or a page", _format(formats.support_address)),
    Question("site_accounts_apply_url", "Address at which users apply for access", _address),
    Question("site_home_directory", "Folder of the users' homes, shared by the hosts", _folder, "/home/users"),
    Question("site_software_directory", "Folder for the software environments", _folder, "/apps/jasmin"),
    Question("site_ca_certificates", "PEM files of authorities that hosts must trust", _authority, [], several=True),
    Question("ansible_user", "User that Ansible signs in as on the hosts, with sudo", _name, "admin"),
    Question("hub_host", "Host of the notebook service (its name without the domain)", _ours),
    Question("gateway_host", "Host of the gateway", _ours),
    Question("login_hosts", "Login hosts", _ours, [], several=True),
    Question("directory_client_uri", "The directory", _matching(r"ldaps?://\S+", "must begin with ldaps:// or ldap://")),
    Question("directory_client_search_base", "Where users and groups are in it, such as dc=example,dc=org", _text),
    Question("directory_client_bind_dn", "As whom it is read", _text),
    Question("users_group", "Group of the directory that may use the service", _format(formats.group_name), "dask"),
    Question("accounts_check_portal_url", "Accounts portal; empty: the group decides alone", _optional(_address), ""),
    Question("accounts_check_client_id", "This service's OAuth2 client at the portal", _name, "dask-gateway"),
    Question("batch_cluster", f"The batch cluster: {OURS} (to be installed) or {SITES}",
             _matching(f"{OURS}|{SITES}", f"must be {OURS} or {SITES}")),
    Question("slurm_cluster_name", "ClusterName of the batch cluster", _cluster),
    Question("slurm_controller_host", "Its controller", _host),
    Question("node_hosts", "Its nodes", _ours, several=True, only=OURS),
    Question("node_cpus", "Processors of one node", number, only=OURS),
    Question("node_memory", "Memory of one node in MiB", number, only=OURS),
    Question("slurm_account", "Account that users' jobs are charged to", _name, only=OURS),
    Question("slurm_account_users", "Users of that account", _name, [], several=True, only=OURS),
    Question("slurm_conf", "Its slurm.conf, on this machine", _file, only=SITES),
    Question("gateway_uid", "Number of the user dask-gateway, free on the gateway and the controller", number, 640),
    Question("notebook_certificate", "PEM file of the notebook service's certificate; empty: later",
             _optional(_pem(formats.certificate)), ""),
    Question("gateway_certificate", "PEM file of the gateway's certificate; empty: later",
             _optional(_pem(formats.certificate)), ""),
    Question("notebook_private_key", f"PEM file of the notebook service's key{_later}",
             _optional(_pem(formats.private_key)), ""),
    Question("gateway_private_key", f"PEM file of the gateway's key{_later}", _optional(_pem(formats.private_key)), ""),
    Question("directory_bind_password_file", f"File with the directory's password{_later}", _optional(_file), ""),
    Question("accounts_client_secret_file", f"File with the portal client's secret{_later}", _optional(_file), ""),
    Question("munge_key_file", f"File with the batch cluster's munge.key{_later}", _optional(_file), "", only=SITES),
]  # fmt: skip


def wanted(answers: Mapping[str, Any]) -> list[Question]:
    """The questions that these answers leave to be asked of."""
    return [question for question in QUESTIONS if question.only in ("", answers.get("batch_cluster"))]


def complete(answers: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The answers with defaults, and everything that is wrong with them, as sentences."""
    keys = {question.key for question in QUESTIONS}
    faults = [f"{key}: is no question; there are {', '.join(sorted(keys))}" for key in answers if key not in keys]
    full = {}
    for question in wanted(answers):
        answer = answers.get(question.key, question.default)
        if answer is None:
            faults.append(f"{question.key}: is not answered. {question.text}")
            continue
        wrong = question.fault(answer)
        if wrong:
            faults.append(f"{question.key}: {wrong}")
        full[question.key] = answer
    hosts = [full.get("hub_host"), full.get("gateway_host")]
    if hosts[0] and hosts[0] == hosts[1]:
        faults.append("gateway_host: is the host of the notebook service too; both need port 443")
    return full, faults
