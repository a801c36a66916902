"""Notebook servers that are jobs: what is asked of SLURM, what its answers mean, and what users read."""

import asyncio
import json
import os
import pwd
import stat
from types import SimpleNamespace

import pytest
from batchspawner.batchspawner import JobStatus
from cryptography import x509
from jupyterhub.apihandlers import default_handlers
from jupyterhub.spawner import SpawnException

from notebook_server import job
from notebook_service import batch, certificates, job_launcher
from notebook_service.batch import BatchNotebookSpawner
from notebook_service.job_launcher import Failed

NODE_1 = "RUNNING node1 None"


@pytest.fixture
def spawner():
    made = BatchNotebookSpawner(
        user=SimpleNamespace(name="alice", host=""),
        support_address="help@site.test",
        public_hosts=["notebooks.site.test"],
    )
    made.api_token = "the server's token"
    return made


@pytest.fixture
def answers(monkeypatch):
    """``answers((code, output, errors))``: what every command of the Hub answers; the list of them that it returns."""
    called = []

    def say(answer):
        async def run(command, data=None):
            called.append((command, data))
            return answer

        monkeypatch.setattr(batch, "_run", run)
        account = pwd.struct_passwd(("alice", "x", 26001, 27000, "", "/home/alice", "/bin/bash"))
        monkeypatch.setattr(batch, "known_account", lambda name, minimum_uid: account)
        return called

    return say


# -- SLURM's answers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        ((0, "PENDING n/a Resources\n", ""), JobStatus.PENDING),
        ((0, "CONFIGURING node1 None\n", ""), JobStatus.PENDING),
        ((0, f"{NODE_1}\n", ""), JobStatus.RUNNING),
        ((0, "SUSPENDED node1 None\n", ""), JobStatus.RUNNING),
        ((0, "A_STATE_OF_TOMORROW node1 None\n", ""), JobStatus.RUNNING),
        ((0, "COMPLETING node1 None\n", ""), JobStatus.NOTFOUND),
        ((0, "TIMEOUT node1 TimeLimit\n", ""), JobStatus.NOTFOUND),
        ((1, "", "slurm_load_jobs error: Invalid job id specified\n"), JobStatus.NOTFOUND),
        # No answer, or one that says nothing, ends nobody's server
        ((0, "", ""), JobStatus.UNKNOWN),
        ((1, "", "slurm_load_jobs error: Unable to contact slurm controller (connect failure)\n"), JobStatus.UNKNOWN),
        ((1, "", "squeue: error: Munge encode failed: Failed to access socket\n"), JobStatus.UNKNOWN),
    ],
)
def test_only_a_clear_answer_means_that_a_server_has_ended(spawner, answers, answer, status):
    answers(answer)
    spawner.load_state({"job_id": "7", "listens": True})
    assert asyncio.run(spawner.query_job_status()) == status
    assert asyncio.run(spawner.poll()) == (1 if status == JobStatus.NOTFOUND else None)


@pytest.mark.parametrize("answer", [(0, "{}", ""), (0, '{"error": "Unable to contact slurm controller"}', "")])
def test_a_job_for_which_a_hub_waited_that_is_gone_is_cancelled_and_no_server(spawner, answers, answer):
    called = answers(answer)
    waiting = BatchNotebookSpawner()
    waiting.job_id, waiting.job_status = "7", "PENDING n/a Resources"
    spawner.load_state(waiting.get_state())
    assert asyncio.run(spawner.poll()) == 1
    assert [json.loads(data)["action"] for _, data in called] == ["cancel"]
    assert spawner.job_id == ""


def test_while_a_start_waits_its_job_is_left_alone(spawner, answers):
    called = answers((0, "PENDING n/a Resources\n", ""))

    async def ask():
        spawner.job_id, spawner._report = "7", asyncio.get_running_loop().create_future()
        return await spawner.poll()

    assert asyncio.run(ask()) is None
    assert [command[0] for command, _ in called] == [spawner.squeue]


@pytest.mark.parametrize(
    ("status", "sentence"),
    [
        ("PENDING n/a Resources", "Your server is job 7 and waits in the batch cluster's queue for free nodes."),
        ("PENDING n/a None", "Your server is job 7 and waits in the batch cluster's queue."),
        ("PENDING n/a QOSMaxJobsPerUserLimit", "waits in the batch cluster's queue (QOSMaxJobsPerUserLimit)."),
        (NODE_1, "Job 7 runs on node1.batch.site.test; your server is starting there."),
    ],
)
def test_the_page_says_how_far_a_start_is(spawner, status, sentence):
    spawner.node_domain = "batch.site.test"
    assert spawner.how_far()[1] == "Your server is being submitted to the batch cluster."
    spawner.job_id, spawner.job_status = "7", status
    assert spawner.how_far()[1].endswith(sentence)


def test_a_profile_becomes_what_the_job_asks_for(spawner):
    spawner.req_partition, spawner.req_runtime, spawner.sbatch_options = "standard", "12:00:00", ["--qos=interactive"]
    spawner.mem_limit = "2G"
    assert spawner.resources() == ["--partition=standard", "--time=12:00:00", "--mem=2048M", "--qos=interactive"]
    spawner.apply_profile({"name": "x", "memory": "1.5M", "cores": 1.5, "time": "1-00", "partition": "long"})
    assert spawner.resources() == [
        "--partition=long", "--time=1-00", "--mem=2M", "--cpus-per-task=2", "--qos=interactive",
    ]  # fmt: skip
    # A later start of the same user's
    spawner.apply_profile({"name": "y", "memory": "2G", "cores": 0.5})
    assert spawner.resources() == [
        "--partition=standard", "--time=12:00:00", "--mem=2048M", "--cpus-per-task=1", "--qos=interactive",
    ]  # fmt: skip


# -- the launcher, as the Hub calls it -----------------------------------------------------------------------------


def test_the_token_goes_by_standard_input_and_the_user_by_number(spawner, answers):
    called = answers((0, '{"job": "7"}', ""))
    asyncio.run(spawner._launch(action="submit", settings={"environment": {"TOKEN": spawner.api_token}}))
    ((command, data),) = called
    assert "--uid=26001" in command
    assert spawner.api_token not in " ".join(command)
    assert json.loads(data)["settings"]["environment"]["TOKEN"] == spawner.api_token


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (
            {"error": "invalid partition specified: nowhere"},
            r"refuses the job .*: invalid partition specified: nowhere\.",
        ),
        (
            {"error": "Unable to contact slurm controller (connect failure)"},
            "gives no answer at the moment .* Try again",
        ),
        ({"error": "Disk quota exceeded: /home/alice/x"}, "found no space to write to: Disk quota exceeded"),
        (None, "can't be submitted to the batch cluster now"),
    ],
)
def test_a_job_that_is_not_submitted_is_told_in_a_sentence_with_the_address_to_write_to(
    spawner, answers, answer, sentence
):
    answers((0 if answer else 1, json.dumps(answer) if answer else "", "Traceback"))
    with pytest.raises(SpawnException, match=f"{sentence}.*") as refusal:
        asyncio.run(spawner._launch(action="submit"))
    assert refusal.value.jupyterhub_message.endswith("write to help@site.test.")


# -- what a server may say to the Hub --------------------------------------------------------------------------------


def test_batchspawners_own_handler_which_sets_any_attribute_is_not_there():
    assert [pattern for pattern, *_ in default_handlers if "batchspawner" in pattern] == []


def test_only_the_server_that_a_start_waits_for_is_heard_and_only_once(spawner):
    async def tell():
        assert not spawner.awaits(spawner.api_token)  # no start waits
        spawner._report = asyncio.get_running_loop().create_future()
        assert spawner.awaits("the server's token")
        for other in ("", None, "another's token", "the server's tokeñ"):
            assert not spawner.awaits(other)
        spawner._report.set_result(40000)
        assert not spawner.awaits("the server's token")

    asyncio.run(tell())


@pytest.mark.parametrize(
    ("host", "names"),
    [
        ("", ["node1", "notebooks.site.test"]),
        ("https://alice.notebooks.site.test", ["node1", "notebooks.site.test", "alice.notebooks.site.test"]),
    ],
)
def test_a_servers_certificate_is_for_the_names_by_which_it_is_reached(spawner, answers, tmp_path, host, names):
    answers((0, f"{NODE_1}\n", ""))
    certificates.make(tmp_path)
    spawner.user.host, spawner.job_id, spawner.authority = host, "7", str(tmp_path)

    async def tell():
        spawner._report = asyncio.get_running_loop().create_future()
        return await spawner.reported(40000, job.make_key(tmp_path / "server.key"))

    signed = x509.load_pem_x509_certificate(asyncio.run(tell()).encode())
    extension = signed.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert extension.value.get_values_for_type(x509.DNSName) == names


# -- the launcher itself -----------------------------------------------------------------------------------------------


@pytest.fixture
def slurm(tmp_path):
    """A request to the launcher, whose sbatch and scancel note how they were called."""
    for name, answer in {"sbatch": "echo 7", "scancel": "true"}.items():
        program = tmp_path / name
        noting = f'env > {program}.env; cat > {program}.in; echo "$@" >> {program}.called'
        program.write_text(f"#!/bin/sh\n{noting}; {answer}\n")
        program.chmod(0o755)
    home = tmp_path / "home"
    home.mkdir()
    return SimpleNamespace(
        tmp=tmp_path,
        home=str(home),
        settings=home / ".notebook-server/notebook-server-1.json",
        request={
            "sbatch": str(tmp_path / "sbatch"),
            "scancel": str(tmp_path / "scancel"),
            "name": "notebook-server-1",
            "folder": ".notebook-server",
            "python": "/apps/python",
            "options": ["--mem=2048M"],
            "settings": {"environment": {"JUPYTERHUB_API_TOKEN": "secret token"}, "arguments": []},
        },
    )


def test_the_token_is_in_a_file_of_the_users_alone_and_in_nothing_that_slurm_gets(slurm, monkeypatch):
    monkeypatch.setenv("SBATCH_PARTITION", "the caller's")
    assert job_launcher.submit(slurm.request, slurm.home) == {"job": "7"}
    assert stat.S_IMODE(slurm.settings.stat().st_mode) == 0o600
    assert stat.S_IMODE(slurm.settings.parent.stat().st_mode) == 0o700
    assert json.loads(slurm.settings.read_text()) == slurm.request["settings"]
    given = {kind: (slurm.tmp / f"sbatch.{kind}").read_text() for kind in ("env", "in", "called")}
    assert "secret token" not in "".join(given.values())
    assert "SBATCH_PARTITION" not in given["env"]
    assert "--mem=2048M" in given["called"]
    assert given["in"].startswith("#!/bin/bash\n")


def test_a_job_of_before_is_ended_first_and_by_name_so_also_one_that_the_hub_has_forgotten(slurm):
    job_launcher.submit(slurm.request, slurm.home)
    assert (slurm.tmp / "scancel.called").read_text() == f"--user={os.getuid()} --jobname=notebook-server-1\n"


def test_a_link_in_place_of_the_settings_is_not_followed(slurm, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("kept")
    slurm.settings.parent.mkdir()
    for name in (slurm.settings, slurm.settings.with_name(f"{slurm.settings.name}.new")):
        name.symlink_to(elsewhere)
    job_launcher.submit(slurm.request, slurm.home)
    assert elsewhere.read_text() == "kept"
    assert not slurm.settings.is_symlink()


def test_a_job_that_is_refused_leaves_no_token_and_slurms_words(slurm):
    (slurm.tmp / "sbatch").write_text("#!/bin/sh\necho 'sbatch: error: invalid partition: nowhere' >&2\nexit 1\n")
    with pytest.raises(Failed, match=r"^invalid partition: nowhere$"):
        job_launcher.submit(slurm.request, slurm.home)
    assert list(slurm.settings.parent.iterdir()) == []


def test_a_job_that_is_cancelled_before_it_ran_leaves_no_token(slurm):
    job_launcher.submit(slurm.request, slurm.home)
    assert job_launcher.cancel(slurm.request | {"job": "7"}, slurm.home) == {}
    assert not slurm.settings.exists()
    assert (slurm.tmp / "scancel.called").read_text().splitlines()[-1] == "7"


def test_a_job_that_has_ended_by_itself_is_cancelled_and_one_that_cannot_be_says_why(slurm):
    scancel = slurm.tmp / "scancel"
    scancel.write_text("#!/bin/sh\necho 'scancel: error: Kill job error on job id 7: Invalid job id' >&2\nexit 1\n")
    assert job_launcher.cancel(slurm.request | {"job": "7"}, slurm.home) == {}
    scancel.write_text("#!/bin/sh\necho 'scancel: error: Unable to contact slurm controller' >&2\nexit 1\n")
    with pytest.raises(Failed, match=r"^Unable to contact slurm controller$"):
        job_launcher.cancel(slurm.request | {"job": "7"}, slurm.home)


def test_the_last_line_of_the_log_is_read_of_a_file_and_of_nothing_else(slurm):
    log = slurm.settings.with_suffix(".log")
    log.parent.mkdir()
    assert job_launcher.log(slurm.request, slurm.home) == {"line": ""}
    log.write_text("first\nModuleNotFoundError: no x\n\n")
    assert job_launcher.log(slurm.request, slurm.home) == {"line": "ModuleNotFoundError: no x"}
    log.unlink()
    os.mkfifo(log)
    assert job_launcher.log(slurm.request, slurm.home) == {"line": ""}
