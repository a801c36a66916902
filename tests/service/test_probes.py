"""playbooks/probes.yml asks the hosts what is true of them. Each thing is broken in tests/unit, a few of them here."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import scenario


def probes(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["ansible-playbook", "--inventory", scenario.INVENTORY, *options, "playbooks/probes.yml"],
        cwd=scenario.REPOSITORY, env=os.environ | scenario.PLAIN_OUTPUT, capture_output=True, text=True, timeout=300,
    )  # fmt: skip


@contextmanager
def broken(host: str, breaks: str, mends: str) -> Iterator[None]:
    scenario.host(host).check_output(breaks)
    try:
        yield
    finally:
        scenario.host(host).check_output(mends)


@contextmanager
def gateway_down() -> Iterator[None]:
    with broken("gateway", "systemctl stop dask-gateway.service", "systemctl start dask-gateway.service"):
        yield
    scenario.wait_until("the gateway is back", scenario.gateway_answers)


def test_hosts_on_which_all_is_well_have_nothing_to_mend():
    done = probes()
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr
    assert "6 hosts are as they must be." in done.stdout


def test_everything_that_is_wrong_on_the_hosts_is_named_at_once():
    nsswitch, was = "/etc/nsswitch.conf", "/run/nsswitch.was"
    partition = "scontrol update PartitionName=standard State="
    with (
        gateway_down(),
        broken(
            "login", f"cp -a {nsswitch} {was} && sed -i 's/^hosts:.*/hosts: files/' {nsswitch}", f"mv {was} {nsswitch}"
        ),
        broken("node1", "mount -t tmpfs tmpfs /home/users", "umount /home/users"),
        broken("controller", "usermod --uid 641 dask-gateway", "usermod --uid 640 dask-gateway"),
        broken("controller", f"{partition}INACTIVE", f"{partition}UP"),
    ):
        done = probes()

    assert done.returncode == 2, done.stdout[-5000:]
    said = " ".join(done.stdout.split())
    for sentence in (
        "login: the name dask-gateway.lotus.test does not resolve",
        "the user dask-gateway has different numbers: 640 on gateway; 641 on controller",
        "/home/users is not the same file system on all hosts (hub, gateway, node2, login / node1)",
        "https://dask-gateway.lotus.test/api/health answers with status 502",
        "gateway: the batch cluster does not accept a test job of alice",
    ):
        assert sentence in said


NODE1_ALONE = ("scontrol update NodeName=node2 State=DRAIN Reason=test", "scontrol update NodeName=node2 State=RESUME")


def test_a_job_looks_at_nodes_as_somebody_who_is_named_for_it_and_tells_what_it_can_not_see():
    nobody = probes("-e", "probes_on_nodes=1")
    assert nobody.returncode != 0
    assert "nobody is named for it: -e probes_user=<name>" in " ".join(nobody.stdout.split())

    asked = ("-e", "probes_on_nodes=1", "-e", "probes_user=carol")
    with broken("controller", *NODE1_ALONE):
        done = probes(*asked)
        assert done.returncode == 0, done.stdout[-5000:]
        assert "7 hosts are as they must be." in done.stdout
        with broken("node1", "mount -t tmpfs tmpfs /home/users", "umount /home/users"):
            blind = probes(*asked, "--limit", "gateway,localhost")
    assert blind.returncode == 2, blind.stdout[-5000:]
    said = " ".join(blind.stdout.split())
    assert "gateway: a job of carol did not tell what it sees on the nodes: job" in said
    assert "is not to be seen here; its home has to be the same" in said
    assert scenario.left_by_probes("carol") == ""


def test_a_gateway_that_is_down_keeps_nobody_from_installing_it():
    with gateway_down():
        done = probes('--extra-vars={"probes_service": false}')
    assert done.returncode == 0, done.stdout[-5000:]
