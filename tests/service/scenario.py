"""The running copy of the service: where its hosts, addresses and secrets are.

``DASK_SERVICE_PREFIX`` tells which copy; the rest is asked of Docker and of the scenario's inventory.
"""

import http.client
import json
import os
import re
import shlex
import ssl
import subprocess
import time
from collections.abc import Callable
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import jinja2
import requests
import testinfra
from hub_client import trusting

REPOSITORY = Path(__file__).resolve().parents[2]
INVENTORY = REPOSITORY / "molecule/shared/inventory"
PREFIX = os.environ.get("DASK_SERVICE_PREFIX") or "dgs"
STATE = REPOSITORY / ".state" / PREFIX
HOSTS = ("site", "controller", "node1", "node2", "gateway", "hub", "login")


# Molecule's verifier asks Ansible for colours, which nothing here could read.
PLAIN_OUTPUT = {"ANSIBLE_NOCOLOR": "1", "ANSIBLE_FORCE_COLOR": "0"}
# For playbooks of another copy of the repository: molecule's configuration would lead to the roles of this one
OF_A_COPY = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")} | PLAIN_OUTPUT

NAMES = (
    "site_name",
    "site_support_address",
    "site_domain",
    "site_notebook_host",
    "site_gateway_host",
    "site_home_directory",
    "site_software_directory",
    "site_accounts_apply_url",
    "site_directory_users",
    "site_jaspy_releases",
    "common_timezone",
    "scenario_accounts_portal",
    "accounts_check_allowed_max_age",
    "accounts_check_refused_max_age",
    "dask_gateway_revocation_time",
)


@cache
def site() -> dict:
    """The site's values that tests and examples need, as the scenario's inventory resolves them."""
    return _inventory_values(NAMES)


@cache
def secrets() -> dict:
    """Every ``vault_*`` value of the scenario, by name."""
    names = (INVENTORY / "group_vars/all/secrets.yml").read_text().splitlines()
    return _inventory_values([name.partition(":")[0] for name in names if name.startswith("vault_")])


def _inventory_values(names) -> dict:
    template = "{{ {" + ", ".join(f"'{name}': {name}" for name in names) + "} | to_json }}"
    out = subprocess.run(
        ["ansible", "hub", "-i", INVENTORY, "-m", "ansible.builtin.debug", "-a", json.dumps({"msg": template})],
        cwd=REPOSITORY,
        env=os.environ | PLAIN_OUTPUT | {"ANSIBLE_CALLBACK_RESULT_FORMAT": "json"},
        capture_output=True,
        text=True,
    )
    if out.returncode:
        raise RuntimeError(f"the scenario's inventory does not resolve:\n{out.stdout}{out.stderr}")
    message = json.loads(out.stdout.partition("=>")[2])["msg"]
    return json.loads(message) if isinstance(message, str) else message


def published_url(host: str) -> str:
    """Address on this machine's loopback under which a host's https port is published."""
    out = subprocess.run(
        ["docker", "port", f"{PREFIX}-{host}", "443/tcp"], capture_output=True, text=True, check=True
    ).stdout
    return f"https://localhost:{out.splitlines()[0].rpartition(':')[2]}"


def address(host: str) -> str:
    """Address of a host in the copy's network."""
    template = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
    inspect = ["docker", "inspect", "--format", template, f"{PREFIX}-{host}"]
    return subprocess.run(inspect, capture_output=True, text=True, check=True).stdout.strip()


def ca() -> str:
    """Path of the scenario's certificate authority."""
    return str(STATE / "ca/ca.crt")


def host(name: str):
    """A testinfra host, as root."""
    return testinfra.get_host(f"docker://{PREFIX}-{name}")


def as_user(
    name: str, user: str, command: str, timeout: float = 180, given: str | None = None
) -> subprocess.CompletedProcess:
    """Run `command` in a login shell of `user` on host `name`.

    Parameters
    ----------
    name : str
        A host of the scenario.
    user : str
        A user of the site's directory.
    command : str
        Text for bash.
    timeout : float
        Seconds.
    given : str, optional
        What it reads from its standard input.

    Raises
    ------
    AssertionError
        When it was not done in time; with what it had printed.
    """
    call = ["docker", "exec", "-i", f"{PREFIX}-{name}", "runuser", "-l", user, "-c", command]
    try:
        return subprocess.run(call, input=given, capture_output=True, text=True, timeout=timeout)
    except subprocess.TimeoutExpired as late:
        raise AssertionError(
            f"not done after {timeout} s on {name} as {user}: {command}\n"
            f"stdout:\n{_text(late.stdout)}\nstderr:\n{_text(late.stderr)}"
        ) from None


def _text(data: bytes | str | None) -> str:
    return data.decode(errors="replace") if isinstance(data, bytes) else data or ""


def exposure(name: str, unit: str) -> float:
    """What ``systemd-analyze security`` thinks of a unit of host `name`, from 0 (locked up) to 10 (free)."""
    told = host(name).check_output("systemd-analyze security --no-pager %s | tail -1", unit)
    return float(re.search(r"Overall exposure level for \S+: ([0-9.]+)", told)[1])


def put_file(name: str, user: str, path: str, text: str, mode: str = "600") -> None:
    """Write a file as `user` on host `name`, with its folder."""
    quoted = shlex.quote(path)
    call = f"mkdir -p $(dirname {quoted}) && rm -f {quoted} && (umask 077; cat > {quoted}) && chmod {mode} {quoted}"
    subprocess.run(
        ["docker", "exec", "-i", f"{PREFIX}-{name}", "runuser", "-l", user, "-c", call],
        input=text, text=True, check=True, capture_output=True, timeout=60,
    )  # fmt: skip


def wait_until(what: str, holds: Callable[[], object], timeout: float = 60, every: float = 0.5):
    """Wait for a state and return what `holds` answered.

    Raises
    ------
    AssertionError
        Naming `what` was waited for and the last answer.
    """
    deadline = time.monotonic() + timeout
    while True:
        answer = holds()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"after {timeout} s still not: {what} (last answer: {answer!r})")
        time.sleep(every)


def render_example(name: str) -> str:
    """Text of one of ``examples/*.j2`` with the scenario's addresses."""
    source = (REPOSITORY / "examples" / f"{name}.j2").read_text()
    return jinja2.Environment(undefined=jinja2.StrictUndefined).from_string(source).render(site())  # noqa: S701


def left_by_probes(user: str) -> str:
    """The files in a user's home, and the jobs, that `probes.yml` has left there."""
    return as_user("login", user, "ls -A | grep dask-service-probe; squeue --noheader --name=dask-service-probe").stdout


def jobs_of(user: str) -> list[str]:
    """Names of the user's jobs in SLURM's queue, as the controller tells it."""
    out = host("controller").check_output("squeue --noheader --user %s --format %%j", user)
    return out.split()


def offered_releases() -> list[str]:
    """Names of the jaspy releases that users can load and clusters can have, the default one first."""
    newest_first = sorted(site()["site_jaspy_releases"], key=lambda release: release["name"], reverse=True)
    return [
        release["name"] for state in ("current", "supported") for release in newest_first if release["state"] == state
    ]


def jaspy_module(release: str) -> str:
    """The module of a release: jaspy/3.11/v20261101 of jaspy3.11-v20261101."""
    return release.replace("jaspy", "jaspy/").replace("-", "/")


def passwords() -> dict[str, str]:
    """Passwords of the scenario's users."""
    return {user["name"]: user["password"] for user in site()["site_directory_users"]}


def staged_files_of(user: str) -> list[str]:
    """What clusters have left below the user's ``~/.dask-gateway``, other than logs, which are kept."""
    home = f"{site()['site_home_directory']}/{user}/.dask-gateway"
    return host("node1").run("find %s -type f ! -name '*.log'", home).stdout.split()


def get(host_name: str, path: str, **kwargs) -> requests.Response:
    """GET a path of a host's published https address, without any credentials."""
    return trusting(ca()).get(published_url(host_name) + path, timeout=30, allow_redirects=False, **kwargs)


def get_as_written(host_name: str, path: str, **headers: str) -> tuple[int, str, str]:
    """GET a path as it stands here, which `get` would make tidy first; status, address to go to, and text."""
    port = int(published_url(host_name).rpartition(":")[2])
    connection = http.client.HTTPSConnection(
        "localhost", port, timeout=30, context=ssl.create_default_context(cafile=ca())
    )
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    return answer.status, answer.headers["Location"] or "", answer.read().decode(errors="replace")


def gateway_answers() -> bool:
    """Whether the gateway does, through its front end."""
    return get("gateway", "/api/health").status_code == 200


def playbook(name: str, *arguments: str) -> subprocess.CompletedProcess:
    """Run one of the operators' playbooks on this copy of the service."""
    return subprocess.run(
        ["ansible-playbook", "--inventory", INVENTORY, f"playbooks/{name}.yml", *arguments],
        cwd=REPOSITORY, env=os.environ | PLAIN_OUTPUT, capture_output=True, text=True, timeout=900,
    )  # fmt: skip


@contextmanager
def removed_after(name: str, path: str):
    """Remove a file of host `name` on leaving the block."""
    try:
        yield
    finally:
        host(name).run("rm -f %s", path)


# Every file system of a host, with the words of find that begin an expression
EVERYWHERE = r"find / \( -path /proc -o -path /sys \) -prune -o"
ITS_OWN = r"find / \( -path /proc -o -path /sys -o -path /home -o -path /apps \) -prune -o"


def secrets_in(name: str, secrets_by_name: dict[str, str], command: str) -> list[str]:
    """Names of the secrets that stand in what the shell `command` prints on host `name`.

    Raises
    ------
    RuntimeError
        When the command fails, and so shows nothing that could be searched.
    """
    found = _with_patterns(
        name,
        secrets_by_name,
        f"( {command} ) | grep -aoF -f $patterns; ended=(${{PIPESTATUS[@]}})\n"
        "[ ${ended[1]} -le 1 ] && exit ${ended[0]}; exit ${ended[1]}",
    ).stdout.splitlines()
    return sorted({key for key, value in secrets_by_name.items() if value in found})


def world_readable_files_with(name: str, secrets_by_name: dict[str, str], shared: bool = True) -> list[str]:
    """Files of host `name` that everybody can read and that hold one of the secrets.

    Parameters
    ----------
    name : str
        A host of the scenario.
    secrets_by_name : dict
        What is searched for.
    shared : bool
        Whether the file systems that hosts share are searched too.

    Raises
    ------
    RuntimeError
        When the search itself fails.
    """
    done = _with_patterns(
        name,
        secrets_by_name,
        f"{EVERYWHERE if shared else ITS_OWN} -ignore_readdir_race -type f -perm -o=r -size -4M -print0"
        " | xargs -0 -r grep -lF -f $patterns --; ended=(${PIPESTATUS[@]})\n"
        # xargs says 123 when grep has ended with 1 or 2
        "[ ${ended[1]} = 123 ] && ended[1]=0; [ -s $patterns ] && exit $((ended[0] + ended[1]))",
    )
    # Other than of a file that is gone meanwhile, grep complains of what it did not search
    if [line for line in done.stderr.splitlines() if not line.endswith(": No such file or directory")]:
        raise RuntimeError(f"the search on {name} left something out:\n{done.stderr}")
    return done.stdout.splitlines()


def _with_patterns(name: str, secrets_by_name: dict[str, str], search: str) -> subprocess.CompletedProcess:
    # The patterns go in by standard input: on a command line they would be found by the search for them.
    call = f"umask 077; patterns=$(mktemp -p /run) || exit; trap 'rm -f $patterns' EXIT; cat > $patterns\n{search}"
    done = subprocess.run(
        ["docker", "exec", "-i", f"{PREFIX}-{name}", "bash", "-c", call],
        input="\n".join(secrets_by_name.values()),
        capture_output=True,
        text=True,
        errors="replace",
        timeout=120,
    )
    if done.returncode:
        raise RuntimeError(f"the search on {name} has failed ({done.returncode}):\n{search}\n{done.stderr}")
    return done


def environment_of(name: str, user: str, variable: str) -> str:
    """Value of an environment variable in a process of `user` on host `name`, as root reads it."""
    out = host(name).check_output(
        "for p in $(pgrep -u %s); do tr '\\0' '\\n' < /proc/$p/environ; done | sed -n 's/^%s=//p' | sort -u",
        user,
        variable,
    )
    return out.splitlines()[0]


def launcher() -> str:
    """Path of the only command that sudo lets the gateway run as a user."""
    out = host("gateway").check_output("grep -hoE '/[^ ]*launcher[^ ,\"]*' /etc/sudoers.d/*")
    return out.split()[0]


def backup_keys(folder: Path) -> dict:
    """Variables of the role backup with a new pair of keys, whose private half is also in ``folder/key``."""
    key = folder / "key"
    subprocess.run(["age-keygen", "-o", key], check=True, capture_output=True)
    public = subprocess.run(["age-keygen", "-y", key], check=True, capture_output=True, text=True).stdout.strip()
    return {"backup_recipients": [public], "backup_identity": key.read_text()}
