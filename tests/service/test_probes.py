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


def test_a_gateway_that_is_down_keeps_nobody_from_installing_it():
    with gateway_down():
        done = probes('--extra-vars={"probes_service": false}')
    assert done.returncode == 0, done.stdout[-5000:]
