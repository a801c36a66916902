"""Where secrets lie, and where they must not."""

import uuid

import pytest
import scenario

# host, file: owner and mode. What stands here is every file of the service that holds a secret.
FILES = [
    *((host, "/etc/nginx/tls-frontend.key", "root:root", "600") for host in ("hub", "gateway")),
    ("hub", "/etc/jupyterhub/hub.env", "root:root", "600"),
    ("hub", "/etc/jupyterhub/proxy.env", "root:root", "600"),
    ("hub", "/var/lib/jupyterhub/jupyterhub.sqlite", "root:root", "600"),
    ("gateway", "/etc/dask-gateway/gateway.env", "root:root", "600"),
    ("gateway", "/etc/dask-gateway/proxy.env", "root:root", "600"),
    ("gateway", "/etc/dask-gateway/pages.env", "root:root", "600"),
    ("gateway", "/var/lib/dask-gateway/dask_gateway.sqlite", "dask-gateway:dask-gateway", "600"),
    ("gateway", "/etc/accounts-check/dask-gateway/client-secret", "dask-gateway:root", "600"),
    ("controller", "/etc/slurm/slurmdbd.conf", "slurm:slurm", "600"),
    ("controller", "/etc/prometheus/hub-token", "root:prometheus", "640"),
    *(
        (host, "/etc/munge/munge.key", "munge:munge", "400")
        for host in ("controller", "node1", "node2", "gateway", "login")
    ),
    *((host, "/etc/sssd/conf.d/bind.conf", "root:root", "600") for host in scenario.HOSTS if host != "site"),
]
# What somebody can read of others' processes, units and files
OTHERS_FILES = (
    "{ cat /proc/[0-9]*/environ /run/systemd/transient/*; "
    f"{scenario.EVERYWHERE} -user alice -type f -readable -exec cat {{}} +; }} 2>/dev/null | tr -c '[:print:]' '\\n'"
)
SERVICE_HOSTS = [host for host in scenario.HOSTS if host != "site"]


def secret_texts() -> dict[str, str]:
    """Every vault value by name, as the text that would be seen if it leaked."""
    texts = {}
    for name, value in scenario.secrets().items():
        for number, text in enumerate(value if isinstance(value, list) else [value]):
            # Of a private key one line of its body is enough, and is what grep can find.
            lines = text.strip().splitlines()
            texts[f"{name}[{number}]"] = lines[len(lines) // 2]
    return texts


@pytest.mark.parametrize(("host", "path", "owner", "mode"), FILES)
def test_a_secret_file_is_its_owners_alone(host, path, owner, mode):
    file = scenario.host(host).file(path)
    assert file.exists
    assert f"{file.user}:{file.group}" == owner
    assert f"{file.mode:o}" == mode


@pytest.mark.parametrize("host", SERVICE_HOSTS)
def test_no_secret_lies_in_a_file_that_everybody_can_read(host):
    """Search the whole host, not only the files that we know of; what hosts share, on one that has all of it."""
    shared = host == "login"
    folders = ("/etc", "/var/lib", "/run", "/run/lock", "/tmp", "/dev/shm", *(("/home", "/apps") if shared else ()))
    word = f"known-{uuid.uuid4().hex}"
    planted = [f"{folder}/{word}" for folder in folders]
    machine = scenario.host(host)
    try:
        for path in planted:
            machine.check_output(f"echo the {word} > {path} && chmod 644 {path}")
            machine.check_output(f"echo the {word} > {path}.closed && chmod 640 {path}.closed")
        found = scenario.world_readable_files_with(host, secret_texts() | {"known": f"the {word}"}, shared=shared)
    finally:
        for path in planted:
            machine.check_output(f"rm -f {path} {path}.closed")
    assert sorted(found) == sorted(planted)


# What is looked at, each with a word that it shows
SOURCES = {
    "ps axww -o args": "systemd-journald",
    "systemctl show '*' --all": "Id=systemd-journald.service",
    "journalctl --no-pager -q -o cat": "Started",
    "find /var/log -path /var/log/journal -prune -o -type f -exec cat {} +": "status installed",
}


@pytest.mark.parametrize("host", SERVICE_HOSTS)
@pytest.mark.parametrize("source", SOURCES)
def test_no_secret_shows_in_a_command_line_a_unit_or_a_log(host, source):
    assert scenario.secrets_in(host, secret_texts() | {"a known word": SOURCES[source]}, source) == ["a known word"]


def test_a_search_that_fails_does_not_look_like_one_that_finds_nothing():
    for command in ("cat /no/such/file", "false", "no-such-command"):
        with pytest.raises(RuntimeError, match="has failed"):
            scenario.secrets_in("hub", {"none": "nothing has this"}, command)


def test_another_users_server_token_is_not_to_be_had_on_the_hub_host(alices_server):
    """Servers of several users share a host: bob, in a shell there, looks at alice's processes."""
    token = scenario.environment_of("hub", "alice", "JUPYTERHUB_API_TOKEN")
    opened = f"/tmp/{uuid.uuid4().hex}"
    scenario.put_file("hub", "alice", opened, "what alice has opened", mode="644")
    with scenario.removed_after("hub", opened):
        seen = scenario.as_user("hub", "bob", f"systemctl show '*' --all; ps axwwe; {OTHERS_FILES}")
    assert "jupyter-alice" in seen.stdout
    assert "what alice has opened" in seen.stdout
    assert token not in seen.stdout


def test_a_jobs_secrets_are_not_to_be_had_by_another_user(new_cluster):
    folder = f"/home/users/alice/.dask-gateway/{new_cluster('alice')}"
    node = scenario.host("controller").check_output("squeue -h -u alice -t R -o %N")
    read = scenario.host("node1").check_output
    secrets = {
        "API token": read("cat %s/dask.token", folder),
        "TLS key": read("cat %s/dask.pem", folder).splitlines()[1],
        "dashboard key": read("cat %s/dask.dashboard", folder),
    }

    look = (
        "scontrol show job -d; squeue -o %all; sacct -a -o all -P; ps axwwe; "
        "cat /proc/[0-9]*/environ /home/users/alice/.dask-gateway/*/* /var/spool/slurm*/job*/* 2>/dev/null"
        " | tr '\\0' '\\n'"
    )
    for host in ("login", node):
        seen = scenario.as_user(host, "carol", look).stdout
        assert [name for name, secret in secrets.items() if secret in seen] == [], host
    hers = scenario.as_user(node, "alice", look).stdout
    assert [name for name, secret in secrets.items() if secret not in hers] == [], "the look would find them"
