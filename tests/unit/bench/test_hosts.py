"""What the benchmark knows of a copy of the service, and how it makes room on its batch cluster."""

import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
from bench import batch, hosts
from bench.competitors import COMPETITORS
from bench.parts import COMPETITORS as ROWS
from packaging.requirements import Requirement

REPOSITORY = Path(__file__).resolve().parents[3]


def test_processor_time_is_read_where_the_controllers_are_apart():
    text = "9:name=systemd:/docker/abc/init.scope\n2:cpuacct,cpu:/docker/abc\n0::/docker/abc/init.scope\n"
    path, second = hosts.cgroup_counter(text)
    assert str(path) == "/sys/fs/cgroup/cpuacct/docker/abc/cpuacct.usage"
    assert hosts.processor_time("2500000000\n", second) == 2.5


def test_processor_time_is_read_where_they_are_together():
    path, second = hosts.cgroup_counter("0::/system.slice/docker-abc.scope/init.scope\n")
    assert str(path) == "/sys/fs/cgroup/system.slice/docker-abc.scope/cpu.stat"
    assert hosts.processor_time("usage_usec 1500000\nuser_usec 7\nsystem_usec 8\n", second) == 1.5


def containers(monkeypatch, *names, returncode=0, queue=""):
    listed = SimpleNamespace(returncode=returncode, stdout="\n".join(names), stderr="no daemon")
    queued = SimpleNamespace(returncode=0, stdout=queue, stderr="")
    monkeypatch.setattr(subprocess, "run", lambda call, **_: listed if call[1] == "ps" else queued)
    monkeypatch.setattr(hosts.scenario, "PREFIX", "mine")


def test_without_a_running_copy_the_way_to_one_is_told(monkeypatch):
    containers(monkeypatch, "other-controller", "mine-hub")
    with pytest.raises(hosts.NotRunningError, match=r"'mine' \(missing: site, .*of those that run: other.*script/demo"):
        hosts.check_running()


def test_a_stopped_docker_engine_is_told_apart(monkeypatch):
    containers(monkeypatch, returncode=1)
    with pytest.raises(hosts.NotRunningError, match=r"no daemon.*script/bootstrap"):
        hosts.check_running()


def test_a_copy_whose_hosts_all_run_is_measured(monkeypatch):
    containers(monkeypatch, *(f"mine-{name}" for name in hosts.scenario.HOSTS))
    hosts.check_running()


def test_jobs_of_others_would_be_measured_too_and_are_named(monkeypatch):
    containers(monkeypatch, *(f"mine-{name}" for name in hosts.scenario.HOSTS), queue="17 alice dask-worker RUNNING\n")
    with pytest.raises(SystemExit, match=r"^error: .*in use.*17 alice"):
        hosts.begin()


CONFIGURATION = """SlurmctldHost=controller
NodeName=node[1-2] CPUs=8 RealMemory=64000
NodeName=small RealMemory=100
PartitionName=standard Nodes=ALL
"""


def test_nodes_get_what_they_lack_and_keep_what_they_have():
    text = batch.roomy(CONFIGURATION, cpus=24, memory_mib=12000)
    assert "NodeName=node[1-2] CPUs=24 RealMemory=64000\n" in text
    assert "NodeName=small RealMemory=12000 CPUs=24\n" in text
    assert text.startswith("SlurmctldHost=controller\n")
    assert "PartitionName=standard Nodes=ALL\n" in text
    assert "PartitionName=held Nodes=ALL" in text


def test_a_configuration_without_nodes_is_not_taken():
    with pytest.raises(ValueError, match="names no node"):
        batch.roomy("ClusterName=x\n", 1, 1)


def test_each_row_has_a_competitor_that_exists():
    assert {row.driver for row in ROWS} == set(COMPETITORS)
    assert len({row.name for row in ROWS}) == len(ROWS)


def locked(path):
    lines = (REPOSITORY / path).read_text().splitlines()
    wanted = [Requirement(line.removesuffix("\\").strip()) for line in lines if line[:1].isalnum()]
    return {requirement.name: str(requirement.specifier) for requirement in wanted}


def test_drivers_have_the_versions_that_jobs_have():
    jobs, drivers = locked("roles/jaspy/files/jaspy3.11-v20261101.txt"), locked("requirements/bench.txt")
    assert jobs == {name: version for name, version in drivers.items() if name in jobs}
    assert "dask-jobqueue" in drivers
