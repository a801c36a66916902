"""What goes wrong with jobs is told to the user, and nothing that is alive is given up or left behind."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import scenario

# Seconds that a machine which does other things as well may take longer
BUSY = 7

PROGRAM = """
import json, time, warnings
import dask_gateway

told = []
warnings.simplefilter("always")
warnings.showwarning = lambda message, *_: told.append([time.time(), str(message)])
gw = dask_gateway.Gateway(auth="jupyterhub")
{body}
print(json.dumps(told), flush=True)
"""

NEW_CLUSTER = """
told.append([time.time(), "asked"])
try:
    cluster = gw.new_cluster(**{options!r})
    told.append([0, "started"])
    cluster.shutdown()
except Exception as error:
    told.append([time.time(), f"{{type(error).__name__}}: {{error}}"])
"""

SCALE = """
client = cluster.get_client()
told.append([time.time(), "asked"])
cluster.scale(2)
while len(told) == 1 and time.time() - told[0][0] < 60:
    time.sleep(0.1)
told.append([time.time(), "and nothing else"])
cluster.shutdown()
"""


@pytest.fixture
def told(login_python, no_clusters_left):
    """``told(body)``: what alice's program was told, as [time, text] pairs."""

    def run(body: str) -> list:
        done = login_python("alice", PROGRAM.format(body=body))
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return run


def squeue(*options: str) -> list[str]:
    return scenario.host("controller").check_output("squeue --noheader " + " ".join(options)).split()


def since_slurm_knew(asked: float, when: float, text: str) -> float:
    """Seconds from the end of the job that a sentence names, or where SLURM took none, from the user's question."""
    named = re.search(r"\(job (\d+(_\d+)?),", text)
    if named is None:
        return when - asked
    ask = f"SLURM_TIME_FORMAT=%s sacct --noheader --parsable2 --allocations --format=End --jobs={named[1]}"
    end = scenario.wait_until(
        f"accounting has the end of job {named[1]}",
        lambda: re.search(r"^\d+$", scenario.host("controller").check_output(ask), re.MULTILINE),
    )
    return when - int(end[0])


@contextmanager
def alice_may_submit(count: int) -> Iterator[None]:
    """Let SLURM take no more jobs of alice's than this, by a limit that no QoS puts aside."""
    controller = scenario.host("controller")

    def limit(value: int, shown: str) -> None:
        controller.check_output(f"sacctmgr -i modify user alice where account=climate set GrpSubmitJobs={value}")
        associations = "scontrol show assoc_mgr flags=assoc users=alice"
        scenario.wait_until(
            "slurmctld knows the limit", lambda: f"GrpSubmitJobs={shown}(" in controller.check_output(associations)
        )

    try:
        limit(count, str(count))
        yield
    finally:
        limit(-1, "N")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            # Not at once, as SLURM is asked about a new job without waiting for the next round
            {"worker_setup": "echo about to leave; sleep 3; exit 3"},
            r"GatewayClusterError: The cluster's scheduler \(job \d+, FAILED\) did not come up: it ended with exit "
            r"code 3\..*worker_setup.*\.dask-gateway/logs/.*scheduler\.log:\n  about to leave",
        ),
        (
            {"worker_setup": "true"},
            r"GatewayClusterError: .* there is no `dask` command in its environment\..*install them there, or leave",
        ),
        (
            {"qos": "platinum"},
            r"GatewayClusterError: SLURM refused the scheduler's job: .*Invalid qos specification\. Choose another",
        ),
        (
            {"account": "astronomy"},
            r"ValueError: account must be one of those that you may use \(climate\), got 'astronomy'",
        ),
        (
            {"partition": "debug", "time_limit": "2 hours"},
            r"GatewayClusterError: SLURM refused the scheduler's job: .*time limit.*Ask for a shorter 'time_limit'",
        ),
        ({"worker_cores": 999}, r"ValueError: worker_cores is limited to \d+ cores here; 999 was asked for"),
    ],
    ids=["exit code", "no dask", "QoS", "account", "time limit", "site's limit"],
)
def test_a_cluster_that_cannot_start_says_why_and_what_to_do(told, options, sentence):
    (asked, _), (when, text) = told(NEW_CLUSTER.format(options=options))
    assert re.match(sentence, text, re.DOTALL), text
    assert since_slurm_knew(asked, when, text) < 5 + BUSY
    scenario.wait_until("no job is left", lambda: not scenario.jobs_of("alice"))
    assert scenario.staged_files_of("alice") == []


@pytest.mark.parametrize(
    ("of_workers", "sentence"),
    [
        ("module load jaspy; exit 4", r"did not come up: it ended with exit code 4\..*worker_setup"),
        ("true", r"did not come up: there is no `dask` command in its environment\..*install them there"),
    ],
    ids=["exit code", "no dask"],
)
def test_workers_that_cannot_start_are_told_while_the_user_waits_for_them(told, of_workers, sentence):
    setup = f"case $SLURM_JOB_NAME in dask-worker*) {of_workers};; *) module load jaspy;; esac"
    (asked, _), (when, text), *_ = told(f"cluster = gw.new_cluster(worker_setup={setup!r})\n{SCALE}")
    assert re.search(sentence, text), text
    assert since_slurm_knew(asked, when, text) < 10 + BUSY


def test_workers_that_slurm_refuses_are_told_while_the_user_waits_for_them(told):
    ((_, name),) = told("told.append([0, gw.new_cluster(shutdown_on_close=False).name])")
    with alice_may_submit(1):
        (asked, _), (when, text), *_ = told(f"cluster = gw.connect({name!r})\n{SCALE}")
    assert re.match(
        r"SLURM refused the workers' job: .*Job violates accounting/QOS policy.*"
        r"A limit of your account or QoS is reached: end other jobs",
        text,
    ), text
    assert since_slurm_knew(asked, when, text) < 10 + BUSY


@pytest.fixture
def one_job_qos() -> Iterator[str]:
    """A QoS with which alice has one job and is refused the next."""
    controller, name = scenario.host("controller"), "onejob"
    controller.check_output(f"sacctmgr -i add qos {name} set MaxSubmitJobsPerUser=1 Flags=DenyOnLimit")
    try:
        controller.check_output(f"sacctmgr -i modify user alice where account=climate set qos+={name}")
        associations = "scontrol show assoc_mgr flags=qos"
        scenario.wait_until("slurmctld knows the QoS", lambda: f"QOS={name}(" in controller.check_output(associations))
        yield name
    finally:
        controller.check_output(f"sacctmgr -i delete qos {name}")


def test_a_cluster_beyond_a_limit_of_slurms_is_refused_in_slurms_words_with_what_to_do(one_job_qos, told):
    first = f"gw.new_cluster(qos={one_job_qos!r}, shutdown_on_close=False)"
    (asked, _), (when, text) = told(first + NEW_CLUSTER.format(options={"qos": one_job_qos}))
    assert re.match(
        r"GatewayClusterError: SLURM refused the scheduler's job: .*QOSMaxSubmitJobPerUserLimit.*"
        r"A limit of your account or QoS is reached: end other jobs or clusters",
        text,
    ), text
    assert since_slurm_knew(asked, when, text) < 5 + BUSY
    assert len(scenario.jobs_of("alice")) == 1


@pytest.mark.long
def test_a_suspended_scheduler_is_not_taken_for_dead(told):
    body = """
cluster = gw.new_cluster(shutdown_on_close=False)
told.append([0, cluster.name])
"""
    ((_, name),) = told(body)
    (job,) = squeue("--user=alice", "--format=%i")
    controller = scenario.host("controller")
    controller.check_output("scontrol suspend %s", job)
    scenario.wait_until("the job is suspended", lambda: squeue(f"--jobs={job}", "--format=%T") == ["SUSPENDED"])
    (report,) = told("""
time.sleep(45)  # three heartbeats
told.append([0, str(gw.list_clusters())])
""")
    assert name in report[1]
    controller.check_output("scontrol resume %s", job)
    (answer,) = told(f"""
cluster = gw.connect({name!r})
cluster.scale(1)
told.append([0, str(cluster.get_client().submit(lambda: 20 + 22).result(timeout=90))])
cluster.shutdown()
""")
    assert answer[1] == "42"


def test_a_batch_cluster_that_is_away_for_a_while_loses_nothing(told):
    body = """
cluster = gw.new_cluster(shutdown_on_close=False)
told.append([0, cluster.name])
"""
    ((_, name),) = told(body)
    controller = scenario.host("controller")
    controller.check_output("systemctl stop slurmctld.service")
    try:
        (reports,) = told("""
second = gw.submit()
time.sleep(30)
told.append([0, sorted(f"{report.name} {report.status.name}" for report in gw.list_clusters())])
""")
    finally:
        controller.check_output("systemctl start slurmctld.service")
    assert f"{name} RUNNING" in reports[1]
    (second,) = [report.split()[0] for report in reports[1] if report.endswith(" PENDING")]
    told(f"""
for name in ({second!r}, {name!r}):
    gw.connect(name).shutdown()
""")
    scenario.wait_until("no job is left", lambda: not scenario.jobs_of("alice"))


@pytest.mark.long
def test_jobs_of_clusters_that_the_gateway_has_forgotten_wait_for_a_backup_and_are_cancelled_and_no_others(told):
    told("gw.new_cluster(shutdown_on_close=False)")
    gateway = scenario.host("gateway")
    (forgotten,) = squeue("--user=alice", "--format=%i")
    mine = scenario.as_user(
        "login", "alice", "sbatch --parsable --job-name=dask-scheduler-mine --time=5 --mem=50M --wrap='sleep 250'"
    ).stdout.strip()
    gateway.check_output("systemctl stop dask-gateway.service")
    try:
        gateway.check_output("mv /var/lib/dask-gateway/dask_gateway.sqlite /var/lib/dask-gateway/lost.sqlite")
    finally:
        gateway.check_output("systemctl start dask-gateway.service")
    # What is younger than a minute is left alone also by operators
    scenario.wait_until(
        "the forgotten cluster's job is found",
        lambda: f"Jobs {forgotten} of alice" in gateway.run("gateway-admin reconcile --dry-run").stdout,
        timeout=90,
        every=2,
    )
    scenario.wait_until(
        "the log says until when it is left alone",
        lambda: "restore a backup that knows them" in gateway.check_output("journalctl -u dask-gateway --since=-3min"),
        timeout=30,
    )
    assert set(squeue("--user=alice", "--format=%i")) == {forgotten, mine}
    gateway.check_output("gateway-admin reconcile")
    scenario.wait_until("it is cancelled", lambda: scenario.jobs_of("alice") == ["dask-scheduler-mine"], timeout=20)
    gateway.check_output("rm /var/lib/dask-gateway/lost.sqlite")
    scenario.host("controller").check_output("scancel %s", mine)


def test_a_session_that_ends_on_a_node_takes_nothing_from_the_users_jobs():
    """Batch jobs bring such sessions about: with `sbatch --export=NONE` slurmd asks for the user's environment."""
    node = scenario.host("node1")
    semaphore = "/dev/shm/sem.of-a-job"
    with scenario.removed_after("node1", semaphore):
        node.check_output("runuser -u alice -- touch %s", semaphore)
        node.check_output("su -l alice -c true")
        scenario.wait_until(
            "alice's session has ended", lambda: node.run("loginctl show-user alice").rc != 0, timeout=40
        )
        assert node.file(semaphore).exists
