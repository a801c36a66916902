"""`gateway-admin`: what operators ask and tell the running gateway, and what they read when it does not run."""

import asyncio
import json
import os
import stat
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from stand_in import free_port

from slurm_gateway import admin_cli, health
from slurm_gateway.accounts import CheckError
from slurm_gateway.backend import LauncherError
from slurm_gateway.slurm import Job, Slurm, SlurmError

from .conftest import answering, examined, gateway_config, run, until


def test_clusters_are_listed_with_what_they_have_and_wait_for(site, admin):
    async def test(site):
        waiting, running = await site.submitted(), await site.running("carol")
        await site.heartbeat(running, count=2)
        await until(lambda: len(site.workers(running, "SUBMITTED")) == 2)
        first, second = site.workers(running)
        site.batch.known[first.state["job_id"]] = Job(
            first.state["job_id"], "RUNNING", user="carol", comment="", cpus=4
        )
        await site.heartbeat(running, count=2, active=[first.name])
        job = site.cluster(waiting).state["job_id"]
        site.batch.known[job] = Job(job, "PENDING", "QOSMaxCpuPerUserLimit", user="alice", start="2030-01-02T03:04:05")
        site.cluster(waiting).start_time -= 7_260_000
        code, out, _ = await admin(site, "clusters", "--json")
        assert code == 0
        clusters = {c["cluster"]: c for c in json.loads(out)["clusters"]}
        assert set(clusters) == {waiting, running}
        c = clusters[waiting]
        assert (c["user"], c["state"], c["cores"], c["workers"]["running"]) == ("alice", "pending", 0, 0)
        assert c["waiting"] == [
            {"job": job, "reason": "QOSMaxCpuPerUserLimit", "estimated_start": "2030-01-02T03:04:05"}
        ]
        assert 7260 <= c["age"] < 7320
        c = clusters[running]
        assert (c["user"], c["state"], c["cores"]) == ("carol", "running", 4)
        assert c["workers"] == {"running": 1, "pending": 1, "wanted": 2}
        assert len(c["jobs"]) == 3
        assert second.state["job_id"] in [wait["job"] for wait in c["waiting"]]
        _, out, _ = await admin(site, "clusters", "--user=alice")
        (row,) = out.splitlines()[1:]
        assert row.split()[:7] == [waiting[:8], "alice", "pending", "2h1m", "0/0", "1", "0"]
        assert "QOSMaxCpuPerUserLimit, expected to start at 2030-01-02T03:04:05" in row

    site(test)


def test_ended_clusters_are_listed_with_why_when_asked_for(site, admin):
    async def test(site):
        name = await site.running()
        site.batch.end(site.cluster(name).state["job_id"], "OUT_OF_MEMORY")
        await until(lambda: site.cluster(name).status.name == "FAILED")
        assert (await admin(site, "clusters"))[1] == "No clusters.\n"
        out = (await admin(site, "clusters", "--ended"))[1]
        assert "failed" in out
        assert "OUT_OF_MEMORY" in out

    site(test)


def test_clusters_are_listed_also_when_slurm_gives_no_answer(site, admin):
    async def test(site):
        name = await site.running()
        site.batch.away = True
        code, out, err = await admin(site, "clusters")
        assert (code, out.splitlines()[1].split()[0]) == (0, name[:8])
        assert "Unable to contact slurm controller" in err
        code, _, err = await admin(site, "jobs")
        assert code == 2
        assert "SLURM gives no answer about jobs" in err

    site(test)


def test_jobs_are_listed_with_whether_a_cluster_knows_them(site, admin):
    async def test(site):
        name = await site.running()
        site.batch.known["7"] = orphan("7")
        site.batch.known["8"] = Job("8", "RUNNING", user="alice", comment="mine")
        jobs = json.loads((await admin(site, "jobs", "--json"))[1])["jobs"]
        assert [(job["job"], job["cluster"], job["kind"], job["known"]) for job in jobs] == [
            (site.cluster(name).state["job_id"], name, "scheduler", True),
            ("7", "f" * 32, "worker", False),
        ]
        assert "belongs to no cluster" in (await admin(site, "jobs"))[1]

    site(test, reconcile_period=1000)


def orphan(job_id, user="alice"):
    comment = f"dask-gateway:gateway:{'f' * 32}:worker:-"
    return Job(job_id, "RUNNING", user=user, comment=comment, submitted="2020-01-01T00:00:00", cpus=1)


def test_a_cluster_is_stopped_by_the_beginning_of_its_name_and_its_user_reads_why(site, admin):
    async def test(site):
        name = await site.running()
        code, out, _ = await admin(site, "stop", name[:8], "--reason", "maintenance at noon")
        assert (code, out) == (0, f"Cluster {name} of alice is being stopped.\n")
        await until(lambda: site.cluster(name).status.name == "STOPPED")
        assert site.batch.living() == []
        async with site.client() as gateway:
            with pytest.raises(Exception, match="stopped by the operators of this service: maintenance at noon"):
                await gateway.connect(name)

    site(test)


def test_all_clusters_of_a_user_are_stopped_and_no_others(site, admin):
    async def test(site):
        mine, hers = [await site.submitted(), await site.running()], await site.running("carol")
        _, out, _ = await admin(site, "stop", "--user", "alice", "--json")
        assert {c["cluster"] for c in json.loads(out)["stopped"]} == set(mine)
        await until(lambda: all(site.cluster(name).status.name == "STOPPED" for name in mine))
        assert site.cluster(hers).is_active()
        assert len(site.batch.living()) == 1

    site(test)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["stop", "f" * 32], "There is no active cluster ffff"),
        (["stop", "--user", "bob"], "bob has no cluster that could be stopped"),
        (["stop", "x; rm"], "named by its name"),
        (["stop", "abc"], "named by its name"),
    ],
)
def test_what_cannot_be_stopped_is_told_with_a_sentence(site, admin, arguments, sentence):
    async def test(site):
        await site.running()
        code, out, err = await admin(site, *arguments)
        assert (code, out) == (2, "")
        assert sentence in err
        assert len(site.batch.living()) == 1

    site(test)


def test_a_name_that_several_clusters_begin_with_stops_none(site, admin, monkeypatch):
    async def test(site):
        names = [await site.submitted() for _ in range(2)]
        for name in names:
            cluster = site.cluster(name)
            monkeypatch.setattr(cluster, "name", "abcd" + name[4:])
        assert "2 clusters begin with abcd" in (await admin(site, "stop", "abcd"))[2]
        for name in names:
            monkeypatch.setattr(site.cluster(name), "name", name)

    site(test)


def test_reconcile_says_what_it_would_do_and_then_does_it(site, admin):
    async def test(site):
        name = await site.running()
        site.batch.known["7"] = orphan("7")
        code, out, _ = await admin(site, "reconcile", "--dry-run")
        assert (code, out) == (0, "Jobs 7 of alice belong to no cluster: would be cancelled\n")
        assert "7" in site.batch.living()
        code, out, _ = await admin(site, "reconcile", "--json")
        assert json.loads(out)["orphans"] == [
            {"user": "alice", "cluster": "f" * 32, "jobs": ["7"], "cancelled": True, "said": None}
        ]
        assert site.batch.living() == [site.cluster(name).state["job_id"]]
        assert "Every job belongs to a cluster" in (await admin(site, "reconcile"))[1]

    site(test, reconcile_period=1000, running_period=1000)


def test_reconcile_tells_of_clusters_whose_job_is_gone(site, admin):
    async def test(site):
        name = await site.running()
        job = site.cluster(name).state["job_id"]
        del site.batch.known[job]
        out = (await admin(site, "reconcile", "--dry-run"))[1]
        assert out == f"Cluster {name[:8]} of alice: SLURM says of its scheduler's job {job}: unknown\n"
        assert site.cluster(name).is_active()

    site(test, reconcile_period=1000, running_period=1000)


def test_jobs_of_clusters_from_before_the_database_came_are_left_to_the_operators(site, admin):
    """A gateway that has lost its database, and is to get it back from a backup, must not end what is at work."""

    async def test(site):
        await site.kill()
        (site.path / "gateway.sqlite").unlink()
        site.born = None
        site.batch.known["7"] = orphan("7")
        await site.start()
        now = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(time.time() + 1))
        site.batch.known["8"] = replace(orphan("8"), submitted=now)
        await until(lambda: site.batch.living() == ["7"])
        await asyncio.sleep(0.3)
        assert site.batch.living() == ["7"]
        await admin(site, "reconcile")
        assert site.batch.living() == []

    site(test, orphan_age=-10)


def test_jobs_from_before_the_database_are_cancelled_when_the_time_to_restore_a_backup_is_over(site):
    async def test(site):
        await site.kill()
        (site.path / "gateway.sqlite").unlink()
        site.born = None
        site.batch.known["7"] = orphan("7")
        await site.start()
        started = time.monotonic()
        await asyncio.sleep(0.3)
        assert site.batch.living() == ["7"]
        await until(lambda: site.batch.living() == [])
        assert time.monotonic() - started > 1  # the database's time is in whole seconds

    site(test, restore_window=2)


def test_an_orphan_that_cannot_be_cancelled_is_told(site, admin):
    async def test(site):
        site.batch.known["7"] = orphan("7")
        site.batch.cancel_fails = 1
        code, out, _ = await admin(site, "reconcile")
        assert code == 1
        assert "can't be cancelled: 7: Unable to contact slurm controller" in out

    site(test, reconcile_period=1000)


def test_no_answer_of_the_gateway_holds_a_secret(site, admin):
    async def test(site):
        name = await site.running(environment_variables={"AWS_SECRET": "users-own-secret"})
        cluster = site.cluster(name)
        texts = []
        for command in (["clusters"], ["clusters", "--ended"], ["jobs"], ["reconcile"], ["health"], ["stop", name]):
            with_config = [f"--config={gateway_config(site)}"] if command == ["health"] else []
            for more in ([], ["--json"]) if command[0] != "stop" else ([],):
                texts.extend((await admin(site, *command, *with_config, *more))[1:])
        text = "\n".join(texts)
        assert name in text
        for secret in (cluster.token, cluster.tls_key.decode().splitlines()[1], "users-own-secret", "proxy-token"):
            assert secret not in text

    site(test)


def test_only_those_come_near_the_socket_whom_its_folder_lets_in(site):
    async def test(site):
        path = site.path / "admin.sock"
        assert stat.S_IMODE(path.stat().st_mode) == 0o660

    site(test)


def test_a_socket_that_cannot_be_made_does_not_keep_the_gateway_from_starting(site, tmp_path):
    async def test(site):
        await site.running()

    site(test, admin_socket=str(tmp_path / "nonexistent" / "admin.sock"))


@pytest.mark.parametrize("body", ["", "[]", '"x"', "{", '{"cluster": {"a": 1}}', '{"user": ["alice"]}'])
def test_a_request_that_is_none_is_refused_and_stops_nothing(site, body):
    async def test(site):
        await site.running()
        with pytest.raises(admin_cli.CannotAskError):
            await admin_cli.ask(str(site.path / "admin.sock"), "POST", "/stop", data=body)
        assert len(site.batch.living()) == 1

    site(test)


# -- the gateway does not run -----------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [["clusters"], ["jobs"], ["stop", "f" * 32], ["reconcile"]])
def test_each_command_says_what_to_do_when_the_gateway_is_down(tmp_path, capsys, command):
    assert run(*command, socket=tmp_path / "admin.sock") == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "The gateway does not run on this host" in err
    assert "systemctl status dask-gateway" in err
    assert run(*command, "--json", socket=tmp_path / "admin.sock") == 2
    assert "does not run" in json.loads(capsys.readouterr()[0])["error"]


@pytest.mark.skipif(os.getuid() == 0, reason="root may open every socket")
def test_who_may_not_ask_reads_that(tmp_path, capsys):
    (tmp_path / "closed").mkdir(mode=0)
    assert run("clusters", socket=tmp_path / "closed" / "admin.sock") == 2
    assert "use sudo" in capsys.readouterr()[1]


# -- health -------------------------------------------------------------------------------------------------------


def test_all_is_well(well, admin):
    async def test(site):
        code, found = await examined(site, admin)
        assert {part for part, finding in found.items() if finding["state"] != "ok"} == set(), found
        assert set(found) == {
            "gateway", "proxy", "front end", "disk", "database", "slurmctld", "slurmdbd", "hub", "accounts", "launcher",
            "maintenance",
        }  # fmt: skip
        assert code == 0

    well(test)


BROKEN = {
    "slurmctld": lambda site: setattr(site.batch, "ping", answering({"controller": False})),
    "slurmdbd": lambda site: setattr(site.batch, "rights", answering(SlurmError("Connection refused"))),
    "hub": lambda site: site.tokens.pop("services-token"),
    "accounts": lambda site: setattr(site.backend.accounts, "probe", answering(CheckError("scope", temporary=False))),
    "launcher": lambda site: setattr(
        site.backend, "do_as_user", answering(LauncherError("not allowed to execute", source="sudo"))
    ),
    "database": lambda site: (site.path / "gateway.sqlite").unlink(),
}


@pytest.mark.parametrize("part", BROKEN)
def test_a_part_that_does_not_work_is_named_and_no_other(well, admin, part):
    async def test(site):
        BROKEN[part](site)
        code, found = await examined(site, admin)
        assert {name for name, finding in found.items() if finding["state"] != "ok"} == {part}, found
        assert code == 2

    well(test)


@pytest.mark.parametrize(
    ("part", "break_it"),
    [
        ("slurmctld", lambda site: setattr(site.batch, "ping", answering({"one": False, "two": True}))),
        (
            "accounts",
            lambda site: setattr(site.backend.accounts, "probe", answering(CheckError("away", temporary=True))),
        ),
    ],
)
def test_what_is_only_in_danger_is_a_warning(well, admin, part, break_it):
    async def test(site):
        break_it(site)
        code, found = await examined(site, admin)
        assert (code, found[part]["state"]) == (1, "warning")

    well(test)


def test_a_database_that_cannot_be_written_is_critical(well, admin):
    async def test(site):
        with site.backend.db.db.connect() as connection:
            connection.exec_driver_sql("BEGIN EXCLUSIVE")
            _, found = await examined(site, admin)
            connection.rollback()
        assert found["database"]["state"] == "critical"
        assert "locked" in found["database"]["said"]

    well(test)


def test_a_disk_that_is_full_is_critical(well, admin, monkeypatch):
    async def test(site):
        for free, state in ((2**30 + 1, "ok"), (2**29, "warning"), (2**20, "critical")):
            monkeypatch.setattr(health.shutil, "disk_usage", lambda _, free=free: SimpleNamespace(free=free))
            _, found = await examined(site, admin)
            assert found["disk"]["state"] == state

    well(test)


def test_jobs_that_slurm_hides_from_the_gateway_are_critical(well, admin, batch):
    async def test(site):
        batch.rights = answering("None")
        batch.hides_jobs = answering(True)
        _, found = await examined(site, admin)
        assert found["slurmdbd"]["state"] == "critical"
        assert "adminlevel=operator" in found["slurmdbd"]["said"]
        batch.hides_jobs = answering(False)
        assert (await examined(site, admin))[0] == 0

    well(test)


def test_health_answers_also_when_the_gateway_is_down(well, admin):
    async def test(site):
        config = Path(gateway_config(site)).read_text().replace(site.url.rpartition(":")[2], str(free_port()))
        (site.path / "accounts.json").write_text('{"backend": "none", "AccountsCheck": {"service": "dask"}}')
        await site.stop()
        Path(gateway_config(site)).write_text(config)
        arguments = (f"--config={site.path}/dask_gateway_config.py", f"--accounts-config={site.path}/accounts.json")
        code, out, _ = await admin(site, "health", "--json", *arguments)
        found = {finding["part"]: finding for finding in json.loads(out)["findings"]}
        await site.start()
        assert code == 2
        assert {part: finding["state"] for part, finding in found.items()} == {
            "gateway": "critical", "proxy": "critical", "front end": "critical", "disk": "ok", "database": "ok",
            "slurmctld": "critical", "slurmdbd": "critical", "accounts": "ok", "hub": "warning", "launcher": "warning",
            "maintenance": "ok",
            "operators' socket": "critical",
        }  # fmt: skip
        assert "systemctl start dask-gateway" in found["operators' socket"]["said"]

    well(test)


def test_a_part_that_hangs_is_critical_and_holds_up_nothing():
    async def hang():
        await asyncio.sleep(60)

    began = time.monotonic()
    (finding,) = asyncio.run(health.examine({"hub": hang}, seconds=0.2))
    assert (finding.code, finding.said) == (2, "no answer in 0.2 s")
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("said", "code", "hosts"),
    [
        ("Slurmctld(primary) at one is UP\nSlurmctld(backup) at two is DOWN", 0, {"one": True, "two": False}),
        ("Slurmctld(primary) at one is DOWN\n****\n** RESTORE SLURMCTLD DAEMON TO SERVICE **", 1, {"one": False}),
    ],
)
def test_what_scontrol_says_of_the_controllers(tmp_path, said, code, hosts):
    scontrol = tmp_path / "scontrol"
    scontrol.write_text(f"#!/bin/sh\ncat <<'EOF'\n{said}\nEOF\nexit {code}\n")
    scontrol.chmod(0o755)
    assert asyncio.run(Slurm(scontrol=str(scontrol)).ping()) == hosts
