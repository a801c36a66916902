"""What goes wrong with jobs is told to the user, and nothing that is alive is given up or left behind."""

import json
import re

import pytest
import scenario

PROGRAM = """
import json, time, warnings
import dask_gateway

told, began = [], time.monotonic()
warnings.simplefilter("always")
warnings.showwarning = lambda message, *_: told.append([time.monotonic() - began, str(message)])
gw = dask_gateway.Gateway(auth="jupyterhub")
{body}
print(json.dumps(told), flush=True)
"""

NEW_CLUSTER = """
try:
    cluster = gw.new_cluster(**{options!r})
    told.append([0, "started"])
    cluster.shutdown()
except Exception as error:
    told.append([time.monotonic() - began, f"{{type(error).__name__}}: {{error}}"])
"""


@pytest.fixture
def told(login_python, no_clusters_left):
    """``told(body)``: what alice's program was told, as [seconds, text] pairs."""

    def run(body: str) -> list:
        done = login_python("alice", PROGRAM.format(body=body))
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return run


def squeue(*options: str) -> list[str]:
    return scenario.host("controller").check_output("squeue --noheader " + " ".join(options)).split()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"worker_setup": "echo about to leave; exit 3"},
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
    ((_, text),) = told(NEW_CLUSTER.format(options=options))
    assert re.match(sentence, text, re.DOTALL), text
    scenario.wait_until("no job is left", lambda: not scenario.jobs_of("alice"))
    assert scenario.staged_files_of("alice") == []


def test_workers_that_cannot_start_are_told_while_the_user_waits_for_them(told):
    body = """
cluster = gw.new_cluster(worker_setup="module load jaspy; case $SLURM_JOB_NAME in dask-worker*) exit 4;; esac")
client = cluster.get_client()
began = time.monotonic()
cluster.scale(2)
while not told and time.monotonic() - began < 60:
    time.sleep(0.1)
cluster.shutdown()
"""
    seconds, text = told(body)[0]
    assert "did not come up: it ended with exit code 4." in text
    assert seconds < 20  # 10 on a machine that does nothing else


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
