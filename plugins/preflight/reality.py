"""What must be true of the hosts, beside their inventory: judged from what the module host_probe has seen on each."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from statistics import median
from typing import Any

from cryptography import x509

# munge takes credentials for five minutes; what is this far apart has nobody who sets it
CLOCKS_APART = 30
CERTIFICATE_DAYS = 14

Probes = Mapping[str, Mapping[str, Any]]


def before_findings(probes: Probes) -> list[str]:
    """What must hold before anything is installed: the ground that the site gives."""
    probes = with_nodes(probes)
    return [*_clocks(probes), *_names(probes), *_users(probes), *_homes(probes), *_pythons(probes)]


def after_findings(probes: Probes, certificates: Mapping[str, str]) -> list[str]:
    """What only a service that is installed can answer, and warnings that must not stop who is mending it."""
    found = [*_certificates(certificates)]
    if installed(probes):
        found += [*_addresses(with_nodes(probes)), *_job(probes), *_jobs(probes), *_nodes(probes)]
    return found


def with_nodes(probes: Probes) -> dict[str, Mapping[str, Any]]:
    """The hosts, and with them the nodes on which a job has looked around: all of them have to agree."""
    hosts = dict(probes)
    for probe in probes.values():
        if not probe["nodes"]:
            continue
        for node in probe["nodes"]["seen"]:
            # The job ran between two looks at the host's clock: a node's that shows a time in between agrees with it
            early = min(0.0, node["time"] - probe["nodes"]["earliest"])
            late = max(0.0, node["time"] - probe["nodes"]["latest"])
            nothing = {"job": None, "jobs": None, "nodes": None, "installed": None}
            hosts[f"{node['node']} (by a job)"] = {**node["seen"], **nothing, "clock": probe["clock"] + early + late}
    return hosts


def installed(probes: Probes) -> bool:
    """Whether any part of the service is there to be asked."""
    return any(probe["installed"] for probe in probes.values())


def _clocks(probes: Probes) -> Iterator[str]:
    """A median is no host's own: one clock that is wrong does not accuse the others."""
    clocks = {host: probe["clock"] for host, probe in probes.items()}
    usual = median(clocks.values())
    for host, clock in clocks.items():
        if abs(clock - usual) > CLOCKS_APART:
            side = "ahead of" if clock > usual else "behind"
            yield (
                f"{host}: its clock is {abs(clock - usual):.0f} s {side} those of the others; "
                "let it follow a time server (systemd-timesyncd, chrony), or munge and tokens will be refused"
            )


def _names(probes: Probes) -> Iterator[str]:
    hosts = defaultdict(list)
    for host, probe in probes.items():
        for name, addresses in probe["names"].items():
            if not addresses:
                hosts[name].append(host)
    for name, without in hosts.items():
        yield f"{', '.join(without)}: the name {name} does not resolve; give it an address in the site's DNS"


def _users(probes: Probes) -> Iterator[str]:
    """A user or group that several hosts know has the same number on all of them: SLURM and /home go by numbers."""
    numbers: dict[str, dict[int, list[str]]] = defaultdict(lambda: defaultdict(list))
    for host, probe in probes.items():
        for name, number in probe["users"].items():
            if number is not None:
                numbers[f"user {name}"][number].append(host)
        for name, group in probe["groups"].items():
            if group is None:
                continue
            numbers[f"group {name}"][group["gid"]].append(host)
            for member, number in group["members"].items():
                if number is not None:
                    numbers[f"user {member}"][number].append(host)
    for what, hosts_by_number in numbers.items():
        if len(hosts_by_number) > 1:
            said = "; ".join(
                f"{number} on {', '.join(sorted(set(h)))}" for number, h in sorted(hosts_by_number.items())
            )
            yield f"the {what} has different numbers: {said}. Give it one number everywhere, best by the directory"


def _homes(probes: Probes) -> Iterator[str]:
    asked = {host: probe["home"] for host, probe in probes.items() if probe["home_folder"]}
    folder = next((probe["home_folder"] for probe in probes.values() if probe["home_folder"]), "")
    absent = [host for host, home in asked.items() if home is None]
    if absent:
        yield f"{', '.join(absent)}: there is no folder {folder} (site_home_directory); mount the users' homes there"
    there = {host: home for host, home in asked.items() if home is not None}
    groups: list[list[str]] = []
    for host, home in there.items():
        for group in groups:
            if _same_folder(there[group[0]], home):
                group.append(host)
                break
        else:
            groups.append([host])
    if len(groups) > 1:
        parties = " / ".join(", ".join(group) for group in groups)
        yield f"{folder} is not the same file system on all hosts ({parties}): mount the one that they are to share"


def _same_folder(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Homes may come and go between two looks; what both have has the same numbers."""
    common = one["inside"].keys() & other["inside"].keys()
    same = all(one["inside"][name] == other["inside"][name] for name in common)
    return same and one["inode"] == other["inode"]


def _pythons(probes: Probes) -> Iterator[str]:
    told = set()
    for host, probe in probes.items():
        for path, fault in probe["pythons"].items():
            if fault and (path, fault) not in told:
                told.add((path, fault))
                yield f"{host}: {path}: {fault.splitlines()[-1]}"


def _certificates(certificates: Mapping[str, str]) -> Iterator[str]:
    """What the inventory would install."""
    for host, text in certificates.items():
        try:
            ends = x509.load_pem_x509_certificates(text.encode())[0].not_valid_after_utc
        except ValueError:
            continue  # told by the check of the inventory
        days = (ends - datetime.now(UTC)).days
        if days < CERTIFICATE_DAYS:
            yield (
                f"{host}: the certificate in the inventory (tls_frontend_certificate) ends in {days} days, on "
                f"{ends:%Y-%m-%d}; get a new one and run site.yml"
            )


def _addresses(probes: Probes) -> Iterator[str]:
    faults: dict[tuple[str, str], list[str]] = defaultdict(list)
    for host, probe in probes.items():
        for address, answer in probe["addresses"].items():
            fault = _address_fault(address, answer)
            if fault:
                faults[address, fault].append(host)
    for (address, fault), hosts in faults.items():
        yield f"{', '.join(hosts)}: {address} {fault}"


def _address_fault(address: str, answer: Mapping[str, Any]) -> str:
    if "certificate" in answer:
        return (
            f"shows a certificate that is not believed: {answer['certificate']}. It has to be for this name and from "
            "an authority that the hosts trust (site_ca_certificates)"
        )
    if "error" in answer:
        return f"gives no answer: {answer['error']}"
    if answer["status"] >= 500:
        return f"answers with status {answer['status']}"
    if answer["days"] < CERTIFICATE_DAYS:
        return f"shows a certificate that ends in {answer['days']:.0f} days; get a new one and run site.yml"
    # The services say what they are; the portal's own pages may be anything
    if address.endswith(("/api/health", "/hub/api/")):
        try:
            known = json.loads(answer["body"]).keys() & {"status", "version"}
        except (ValueError, AttributeError):
            known = set()
        if answer["status"] != 200 or not known:
            return f"is answered by something else than this service (status {answer['status']})"
    return ""


def _job(probes: Probes) -> Iterator[str]:
    for host, probe in probes.items():
        job = probe["job"]
        if job and not job["accepted"]:
            whose = f"a test job of {job['user']}" if job["user"] else "a test job"
            yield (
                f"{host}: the batch cluster does not accept {whose}: {job['said']}. It asks for the user's account and "
                "partition as a cluster does; another user is named by -e probes_user=<name>"
            )


def _nodes(probes: Probes) -> Iterator[str]:
    for host, probe in probes.items():
        nodes = probe["nodes"]
        if not nodes:
            continue
        if nodes["said"]:
            yield f"{host}: a job of {nodes['user']} did not tell what it sees on the nodes: {nodes['said']}"
        for node in nodes["seen"]:
            if not node["seen"]["pythons"]:
                yield (
                    f"{node['node']} (by a job): there is no environment of jaspy (site_jaspy_directory), and no "
                    "cluster starts there; mount the folder that the Hub's host has"
                )


def _jobs(probes: Probes) -> Iterator[str]:
    for host, probe in probes.items():
        jobs = probe["jobs"]
        if not jobs:
            continue
        user = jobs["user"]
        if not jobs["answers"]:
            yield f"{host}: SLURM's commands do not work for {user}: {jobs['said'] or 'they say nothing'}"
        elif jobs["hidden"] and (jobs["rights"] not in ("Operator", "Administrator") or jobs["unseen"]):
            unseen = f", such as {', '.join(jobs['unseen'])}" if jobs["unseen"] else ""
            yield (
                f"{host}: SLURM hides users' jobs from {user} (PrivateData=jobs){unseen}: give it an operator's "
                f"rights, `sacctmgr add user {user} account=root adminlevel=operator`, and the same number on the "
                "controller (dask_gateway_uid)"
            )
