"""`gateway-admin clusters`, `jobs`, `stop`, `reconcile`, `maintenance`, `health`: what operators ask and tell."""

import asyncio
import json
import os
import pwd
import sys
from pathlib import Path

import aiohttp
from traitlets.config.loader import ConfigFileNotFound, PyFileConfigLoader

from . import canary, health
from .accounts import from_file
from .accounts_cli import CONFIG as ACCOUNTS
from .accounts_cli import quiet_log, without_a_trace
from .messages import one_line
from .slurm import Slurm

SOCKET = "/run/dask-gateway/admin.sock"
CONFIG = "/etc/dask-gateway/dask_gateway_config.py"
CANARY = "/etc/dask-gateway/canary.json"
CANARY_TOKEN = "/etc/dask-gateway/canary-token"  # noqa: S105
DOWN = (
    "The gateway does not run on this host, so nobody knows its clusters at the moment (their jobs go on). "
    "`systemctl status dask-gateway` and `journalctl -u dask-gateway -n 50` say why; `systemctl start dask-gateway` "
    "starts it."
)


class CannotAskError(Exception):
    """The gateway can't be asked, or does not do what it is asked; the text says why and what to do."""


def add_commands(commands):
    """Add the commands to those of a parser."""
    clusters = commands.add_parser(
        "clusters",
        help="whose clusters there are, and what they wait for",
        description="The clusters: whose they are, their state, jobs, workers, age and cores, and what they wait for.",
    )
    clusters.add_argument("--user", help="of this user alone")
    clusters.add_argument("--ended", action="store_true", help="those of the last day that have ended, too, and why")
    clusters.set_defaults(ask=_clusters)
    jobs = commands.add_parser(
        "jobs",
        help="the jobs of clusters, as SLURM has them",
        description="The jobs of this gateway's clusters that SLURM has, and whether a cluster knows them.",
    )
    jobs.add_argument("--user", help="of this user alone")
    jobs.set_defaults(ask=_jobs)
    stop = commands.add_parser(
        "stop",
        help="stop a cluster, or all of a user",
        description="Stop a cluster, or all clusters of a user: their jobs are cancelled, their users read why.",
    )
    which = stop.add_mutually_exclusive_group(required=True)
    which.add_argument("cluster", nargs="?", help="its name, or the first characters of it")
    which.add_argument("--user", help="all clusters of this user")
    stop.add_argument("--reason", default="", help="what the users read")
    stop.set_defaults(ask=_stop)
    reconcile = commands.add_parser(
        "reconcile",
        help="compare the clusters with SLURM's jobs now",
        description="Compare clusters with SLURM's jobs: cancel jobs without a cluster, see to clusters without a job.",
    )
    reconcile.add_argument("--dry-run", action="store_true", help="only say what would be done")
    reconcile.set_defaults(ask=_reconcile)
    pause = commands.add_parser(
        "maintenance",
        help="let nobody make new clusters for a time",
        description="Maintenance: no new clusters, with a sentence to who asks for one; clusters that run go on.",
    )
    pause.add_argument("state", nargs="?", choices=["on", "off"], help="without it, say whether there is one")
    pause.add_argument("--until", help="when it is expected to end, such as 2026-12-24T18:00; needed with 'on'")
    pause.add_argument("--message", default="", help="a sentence more for the users")
    pause.add_argument("--except-user", action="append", default=[], help="a user who gets clusters all the same")
    pause.set_defaults(ask=_maintenance)
    examine = commands.add_parser(
        "health",
        help="whether every part that a cluster needs does its work",
        description="Whether each part that a cluster needs works. Exit code 0: all is well, 1: warnings, 2: critical.",
    )
    examine.add_argument("--config", default=CONFIG, help="the gateway's configuration (%(default)s)")
    examine.add_argument("--accounts-config", default=ACCOUNTS, help="the access check's (%(default)s)")
    examine.add_argument(
        "--canary", action="store_true", help="also go the whole way as a user: token, cluster, one task, shutdown"
    )
    examine.add_argument(
        "--seconds", type=float, default=0, help="within which the canary has its result (see --canary-config)"
    )
    examine.add_argument("--canary-config", default=CANARY, help="the canary's configuration (%(default)s)")
    examine.add_argument("--token-file", default=CANARY_TOKEN, help="with its token; - is standard input (%(default)s)")
    examine.set_defaults(ask=_health)
    for command in (clusters, jobs, stop, reconcile, pause, examine):
        command.add_argument("--json", action="store_true", help="print one JSON object")
        command.add_argument("--socket", default=SOCKET, help="the gateway's socket (%(default)s)")
        command.set_defaults(run=_run)


def _run(options):
    try:
        return asyncio.run(options.ask(options))
    except CannotAskError as exc:
        if options.json:
            print(json.dumps({"error": str(exc)}))
        else:
            print(exc, file=sys.stderr)
        return 2


async def ask(path, method, url, timeout=300, **kwargs):
    """One question to the running gateway, and its answer."""
    try:
        async with (
            aiohttp.ClientSession(
                connector=aiohttp.UnixConnector(path), timeout=aiohttp.ClientTimeout(total=timeout)
            ) as session,
            session.request(method, f"http://gateway{url}", **kwargs) as response,
        ):
            answer = await response.json()
    except aiohttp.ClientConnectorError as exc:
        if isinstance(exc.os_error, PermissionError):
            raise CannotAskError("Only root and the operators may ask the gateway: use sudo.") from None
        raise CannotAskError(DOWN) from None
    except TimeoutError:
        raise CannotAskError(
            f"The gateway runs but does not answer in {timeout} s. `journalctl -u dask-gateway -n 50` may say why; "
            "`systemctl restart dask-gateway` loses no cluster."
        ) from None
    except (aiohttp.ClientError, OSError, ValueError) as exc:
        raise CannotAskError(f"The gateway gives no answer: {exc!r}. {DOWN}") from None
    if response.status != 200:
        raise CannotAskError(str(answer.get("error")))
    return answer


def _asker():
    return os.environ.get("SUDO_USER") or pwd.getpwuid(os.getuid()).pw_name


# -- the commands ---------------------------------------------------------------------------------------------


async def _clusters(options):
    query = {**({"user": options.user} if options.user else {}), **({"ended": "1"} if options.ended else {})}
    answer = await ask(options.socket, "GET", "/clusters", params=query)
    if options.json:
        print(json.dumps(answer))
        return 0
    rows = [
        (
            c["cluster"][:8],
            c["user"],
            c["state"],
            age(c["age"]),
            f"{c['workers']['running']}/{max(c['workers']['wanted'], c['workers']['running'])}",
            str(len(c["jobs"])),
            "?" if c["cores"] is None else str(c["cores"]),
            _remarks(c),
        )
        for c in sorted(answer["clusters"], key=lambda c: (c["user"], c["created"]))
    ]
    print(table(("CLUSTER", "USER", "STATE", "AGE", "WORKERS", "JOBS", "CORES", "REMARKS"), rows) or "No clusters.")
    if answer["slurm"]:
        print(f"SLURM gives no answer, so cores and reasons are missing: {answer['slurm']}", file=sys.stderr)
    return 0


def _remarks(cluster):
    remarks = []
    reasons = {}
    for wait in cluster["waiting"]:
        reasons.setdefault((wait["reason"], wait["estimated_start"]), []).append(wait["job"])
    for (reason, start), ids in reasons.items():
        what = f"job {ids[0]}" if len(ids) == 1 and ids[0] else f"{len(ids)} jobs" if ids[0] else "the scheduler"
        remarks.append(f"{what}: {reason}{', expected to start at ' + start if start else ''}")
    if cluster["problem"]:
        remarks.append(one_line(cluster["problem"], 160))
    return "; ".join(remarks)


async def _jobs(options):
    answer = await ask(options.socket, "GET", "/jobs", params={"user": options.user} if options.user else {})
    if options.json:
        print(json.dumps(answer))
        return 0
    rows = [
        (
            job["job"],
            job["user"],
            job["cluster"][:8],
            job["kind"],
            job["state"],
            str(job["cores"]),
            job["submitted"],
            "; ".join(
                text
                for text in (
                    job["reason"],
                    job["estimated_start"] and f"expected to start at {job['estimated_start']}",
                    "" if job["known"] else "belongs to no cluster",
                )
                if text
            ),
        )
        for job in answer["jobs"]
    ]
    print(table(("JOB", "USER", "CLUSTER", "KIND", "STATE", "CORES", "SUBMITTED", "REMARKS"), rows) or "No jobs.")
    return 0


async def _stop(options):
    data = {"cluster": options.cluster, "user": options.user, "reason": options.reason, "by": _asker()}
    answer = await ask(options.socket, "POST", "/stop", json=data)
    if options.json:
        print(json.dumps(answer))
    else:
        for cluster in answer["stopped"]:
            print(f"Cluster {cluster['cluster']} of {cluster['user']} is being stopped.")
    return 0


async def _reconcile(options):
    answer = await ask(options.socket, "POST", "/reconcile", json={"dry_run": options.dry_run, "by": _asker()})
    failed = [orphan for orphan in answer["orphans"] if orphan["said"]]
    if options.json:
        print(json.dumps(answer))
        return 1 if failed else 0
    for orphan in answer["orphans"]:
        done = "would be cancelled" if answer["dry_run"] else "cancelled"
        done = f"can't be cancelled: {orphan['said']}" if orphan["said"] else done
        print(f"Jobs {', '.join(orphan['jobs'])} of {orphan['user']} belong to no cluster: {done}")
    for cluster in answer["vanished"]:
        print(
            f"Cluster {cluster['cluster'][:8]} of {cluster['user']}: "
            f"SLURM says of its scheduler's job {cluster['job']}: {cluster['slurm']}"
        )
    if not answer["orphans"] and not answer["vanished"]:
        print("Every job belongs to a cluster, and every cluster has its job.")
    return 1 if failed else 0


async def _maintenance(options):
    if options.state is None:
        answer = await ask(options.socket, "GET", "/maintenance")
    else:
        if options.state == "on" and not options.until:
            raise CannotAskError("Say with --until when it is expected to end, such as --until 2026-12-24T18:00.")
        data = {"on": options.state == "on", "until": options.until, "message": options.message, "by": _asker()}
        answer = await ask(options.socket, "POST", "/maintenance", json={**data, "excepted": options.except_user})
    if options.json:
        print(json.dumps(answer))
    elif answer["on"]:
        past = " (which is over)" if answer["late"] else ""
        but = f", but for {', '.join(answer['excepted'])}" if answer["excepted"] else ""
        print(f"Nobody gets new clusters{but}, until {answer['until']}{past}; by {answer['by']}. {answer['message']}")
    else:
        print("There is no maintenance; users get new clusters.")
    return 0


async def _health(options):
    config = _gateway_config(options.config)
    backend = config.SlurmGatewayBackend
    state = Path(str(backend.get("db_url", "")).removeprefix("sqlite:///") or "/var/lib/dask-gateway/x")
    checks = {
        "gateway": lambda: health.answers(f"http://{config.DaskGateway.address}/api/health", "the gateway's API"),
        "proxy": lambda: health.answers(f"http://{config.Proxy.address}/api/health", "the gateway's proxy"),
        "front end": lambda: health.answers(f"{backend.api_url}/health", "the front end"),
        "disk": lambda: health.disk(state.parent),
    }
    seconds = 20
    try:
        inside, problem = (await ask(options.socket, "GET", "/health", timeout=seconds + 10))["findings"], None
        findings = await health.examine(checks, seconds)
    except CannotAskError as exc:
        inside, problem = [], str(exc)
        slurm = Slurm(config=config)
        checks |= {
            "database": lambda: health.database_at_rest(state),
            "slurmctld": lambda: health.slurmctld(slurm),
            "slurmdbd": lambda: health.slurmdbd(slurm, "dask-gateway"),
            "accounts": lambda: _accounts(options.accounts_config),
            "maintenance": lambda: health.maintenance(str(backend.get("maintenance_file", ""))),
        }
        findings = await health.examine(checks, seconds)
        unknown = "only the running gateway can tell"
        inside = [health.Finding(part, health.WARNING, unknown).to_dict() for part in ("hub", "launcher")]
        inside.append(health.Finding("operators' socket", health.CRITICAL, problem).to_dict())
    found = [finding.to_dict() for finding in findings] + inside
    if options.canary:
        found += [finding.to_dict() for finding in await _canary(options, config)]
    code = max(finding["code"] for finding in found)
    if options.json:
        print(json.dumps({"state": health.WORDS[code], "code": code, "findings": found}))
        return code
    print(table(("PART", "STATE", "FOUND"), [(f["part"], f["state"], f["said"]) for f in found]))
    return code


async def _canary(options, config):
    """The findings of a canary's flight, or of why it can't start."""
    try:
        settings = json.loads(Path(options.canary_config).read_text(encoding="utf-8"))
        from_input = options.token_file == "-"  # noqa: S105
        token = (sys.stdin.read() if from_input else Path(options.token_file).read_text()).strip()
    except FileNotFoundError as exc:
        said = f"{exc.filename} is not there: dask_gateway_canary_token is not set, so there is no canary"
        return [health.Finding("canary", health.CRITICAL, said)]
    except PermissionError as exc:
        raise CannotAskError(f"{exc.filename} can't be read: only root has the canary's token. Use sudo.") from None

    async def waiting(cluster):
        clusters = (await ask(options.socket, "GET", "/clusters", timeout=10))["clusters"]
        return "; ".join(sorted({w["reason"] for c in clusters if c["cluster"] == cluster for w in c["waiting"]}))

    async def jobs(cluster):
        return [j for j in (await ask(options.socket, "GET", "/jobs", timeout=30))["jobs"] if j["cluster"] == cluster]

    flight = canary.Canary(
        hub_api=config.SiteAuthenticator.jupyterhub_api_url,
        address=str(config.SlurmGatewayBackend.api_url).removesuffix("/api"),
        token=token,
        options=settings["options"],
        python=settings["python"],
        user=settings.get("user", ""),
        waiting=without_failing(waiting, ""),
        jobs=without_failing(jobs, []),
        as_user=canary.NOBODY if os.getuid() == 0 else {},
    )
    return await flight.fly(options.seconds or settings["seconds"])


def without_failing(question, otherwise):
    """A question to the gateway that has an answer also where it gives none."""

    async def answer(*arguments):
        try:
            return await question(*arguments)
        except CannotAskError:
            return otherwise

    return answer


async def _accounts(path):
    check = without_a_trace(from_file(path, log=quiet_log()))
    try:
        return await health.accounts(check)
    finally:
        await check.close()


def _gateway_config(path):
    try:
        return PyFileConfigLoader(Path(path).name, path=str(Path(path).parent)).load_config()
    except (OSError, ConfigFileNotFound):
        raise CannotAskError(f"The gateway's configuration {path} can't be read. Are you root, on its host?") from None


# -- for people -----------------------------------------------------------------------------------------------


def age(seconds):
    """A time for people, in two units at most."""
    units = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))
    for index, (letter, size) in enumerate(units):
        if seconds >= size:
            rest = seconds % size // units[index + 1][1] if index < 3 else 0
            return f"{seconds // size}{letter}" + (f"{rest}{units[index + 1][0]}" if rest else "")
    return "0s"


def table(head, rows):
    """Columns of text; an empty string where there are no rows."""
    if not rows:
        return ""
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head) - 1)]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]).rstrip()
        for row in (head, *rows)
    )
