"""The service as its operators see it: gateway-admin, the metrics and the log, while alice has clusters."""

import json
import re
from types import SimpleNamespace

import guide
import pytest
import scenario
from prometheus_client.parser import text_string_to_metric_families

CLUSTER = """
import dask_gateway

gw = dask_gateway.Gateway(auth="jupyterhub")
cluster = gw.new_cluster(shutdown_on_close=False)
cluster.scale(1)
print(cluster.get_client().submit(lambda: 20 + 22).result(timeout=90), cluster.name)
"""


def admin(arguments: str):
    return scenario.host("gateway").run(f"gateway-admin {arguments}")


def metrics() -> dict:
    """The gateway's metrics as a monitoring system reads them: {(name, label values…): value}."""
    ask = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:8002/metrics').read().decode())"
    text = scenario.host("gateway").check_output("python3 -c %s", ask)
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_members_of_the_operators_group_ask_as_root_does_and_others_do_not():
    gateway = scenario.host("gateway")
    nobody = "setpriv --reuid nobody --regid nogroup --no-new-privs"

    def asked(groups: str):
        return gateway.run(f"{nobody} {groups} gateway-admin stop --user bob --reason test")

    def members_are_let_in_and_nobody_else() -> bool:
        other = asked("--clear-groups")
        assert other.rc == 2
        assert "Only root and the operators may ask the gateway" in other.stderr
        return "bob has no cluster that could be stopped" in asked("--groups adm").stderr

    assert members_are_let_in_and_nobody_else()
    # Nor does a restart hand it to others, or take it from the group
    gateway.check_output("systemctl restart dask-gateway.service")
    scenario.wait_until("the gateway answers", scenario.gateway_answers)
    scenario.wait_until("members are let in", members_are_let_in_and_nobody_else, timeout=10)


@pytest.fixture(scope="module")
def lived(hub_user):
    """A cluster of alice's that computed and was stopped: its name, as it was shown, and the metrics around it."""
    before = metrics()
    token = hub_user("alice").new_token(note="operators' view")
    home = f"{scenario.site()['site_home_directory']}/alice"
    scenario.put_file("login", "alice", f"{home}/.config/dask/gateway.yaml", guide.gateway_yaml(token))
    scenario.put_file("login", "alice", f"{home}/lived.py", CLUSTER)
    done = scenario.as_user("login", "alice", "module load jaspy && python lived.py")
    assert done.returncode == 0, done.stderr
    result, name = done.stdout.split()[-2:]
    assert result == "42"
    (shown,) = scenario.wait_until(
        "the gateway knows of the worker",
        lambda: [
            cluster
            for cluster in json.loads(admin("clusters --user alice --json").stdout)["clusters"]
            if cluster["workers"]["running"] == 1
        ],
        timeout=10,
    )
    during = metrics()
    assert admin(f"stop {name[:8]}").stdout == f"Cluster {name} of alice is being stopped.\n"
    scenario.wait_until("no job of alice is left", lambda: not scenario.jobs_of("alice"))
    return SimpleNamespace(name=name, shown=shown, before=before, during=during, after=metrics())


def test_a_cluster_is_shown_with_its_user_jobs_workers_and_cores(lived):
    shown = lived.shown
    assert (shown["cluster"], shown["user"], shown["state"]) == (lived.name, "alice", "running")
    assert (len(shown["jobs"]), shown["cores"], shown["workers"]) == (2, 2, {"running": 1, "pending": 0, "wanted": 1})
    assert 0 < shown["age"] < 120
    for what in ("clusters", "workers"):
        assert lived.during[f"dask_gateway_{what}", "running"] == 1


@pytest.mark.parametrize(
    "series",
    [
        ("dask_gateway_cluster_start_seconds_count",),
        ("dask_gateway_worker_start_seconds_count",),
        ("dask_gateway_launcher_seconds_count", "done", "submit"),
        ("dask_gateway_launcher_seconds_count", "cancel", "done"),
        ("dask_gateway_slurm_command_seconds_count", "squeue"),
    ],
    ids=" ".join,
)
def test_a_cluster_that_lived_has_left_its_marks_in_the_metrics(lived, series):
    assert lived.after[series] > lived.before.get(series, 0)


def test_no_cluster_that_ended_is_counted(lived):
    counts = scenario.wait_until(
        "no cluster and no worker is counted",
        lambda: (
            (now := metrics())
            and not any(v for k, v in now.items() if k[0] in ("dask_gateway_clusters", "dask_gateway_workers"))
            and now
        ),
    )
    assert ("dask_gateway_clusters", "running") in counts


def test_all_that_happened_to_a_cluster_is_found_in_the_journal_by_its_fields(lived):
    lines = scenario.host("gateway").check_output(
        "journalctl -u dask-gateway --since -15min -o cat --no-pager | grep 'cluster=%s'", lived.name
    )
    for text in ("Created cluster", "submitted for the scheduler", "is running", "stopped"):
        line = next((line for line in lines.splitlines() if text in line), "")
        assert "user=alice" in line, f"{text}: {line}"
    assert re.search(r"msg=\"Job (\d+) submitted for 1 workers.* job=\1\b", lines)


def test_a_failure_has_a_priority_in_the_journal():
    """Journald takes the priority from the line: `journalctl -p warning` shows what went wrong and nothing else."""
    gateway = scenario.host("gateway")
    gateway.check_output("systemctl restart dask-gateway.service")
    scenario.wait_until("the gateway answers", scenario.gateway_answers)
    scenario.get("gateway", "/api/v1/clusters/")  # without a token
    lines = scenario.wait_until(
        "the refusal is in the journal",
        lambda: [
            line
            for line in gateway.check_output(
                "journalctl -u dask-gateway -p warning --since -1min -o cat --no-pager"
            ).splitlines()
            if "401 GET" in line
        ],
        timeout=10,
    )
    assert all(line.startswith("level=warning ") for line in lines)


def test_the_reason_and_the_estimated_start_of_a_waiting_cluster_are_shown_and_it_is_stopped(login_python):
    controller = scenario.host("controller")
    controller.check_output("scontrol update partitionname=debug state=down")
    try:
        done = login_python(
            "alice",
            "import dask_gateway\n"
            "gw = dask_gateway.Gateway(auth='jupyterhub')\n"
            "print(gw.submit(partition='debug', time_limit='10 minutes'))",
        )
        assert done.returncode == 0, done.stderr
        name = done.stdout.split()[-1]
        (job,) = scenario.wait_until(
            "the job waits", lambda: controller.check_output("squeue -h -u alice -t PD -o %%i").split()
        )
        controller.check_output("scontrol update jobid=%s StartTime=2033-03-03T03:03:03", job)
        controller.check_output("scontrol update partitionname=debug state=up")
        waiting = scenario.wait_until(
            "the reason is shown",
            lambda: [
                wait
                for cluster in json.loads(admin("clusters --json").stdout)["clusters"]
                for wait in cluster["waiting"]
                if wait["reason"] == "BeginTime"
            ],
            timeout=30,
        )
    finally:
        controller.check_output("scontrol update partitionname=debug state=up")
    assert waiting == [{"job": job, "reason": "BeginTime", "estimated_start": "2033-03-03T03:03:03"}]
    shown = admin("clusters").stdout
    assert re.search(rf"^{name[:8]} +alice +pending .*BeginTime, expected to start at 2033-03-03", shown, re.MULTILINE)
    assert admin(f"stop {name[:8]} --reason 'a test'").stdout == f"Cluster {name} of alice is being stopped.\n"
    scenario.wait_until("no job of alice is left", lambda: not scenario.jobs_of("alice"))
    assert "a test" in admin("clusters --ended").stdout


def test_health_names_the_part_that_is_away_and_answers_also_without_the_gateway():
    def states():
        done = admin("health --json")
        answer = json.loads(done.stdout)
        assert done.rc == answer["code"]
        return {f["part"]: f["state"] for f in answer["findings"] if f["state"] != "ok"}

    scenario.wait_until("all is well", lambda: not states(), timeout=30, every=1)
    controller, gateway = scenario.host("controller"), scenario.host("gateway")
    controller.check_output("systemctl stop slurmctld.service")
    try:
        assert states() == {"slurmctld": "critical"}
    finally:
        controller.check_output("systemctl start slurmctld.service")
    scenario.wait_until("slurmctld is up", lambda: not states(), timeout=60, every=1)
    gateway.check_output("systemctl stop dask-gateway.service")
    try:
        found = states()
        assert found["gateway"] == "critical"
        assert not {"slurmctld", "slurmdbd", "accounts", "database", "disk"} & set(found)
        told = admin("clusters")
        assert (told.rc, told.stdout) == (2, "")
        assert "systemctl start dask-gateway" in told.stderr
    finally:
        gateway.check_output("systemctl start dask-gateway.service")
    scenario.wait_until("all is well again", lambda: not states(), timeout=60, every=1)


def test_who_is_no_operator_is_let_in_by_no_command():
    done = scenario.host("gateway").run("runuser -u daemon -- gateway-admin clusters")
    assert (done.rc, done.stdout) == (2, "")
    assert "use sudo" in done.stderr
