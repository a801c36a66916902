"""Workers that are submitted with their scheduler, workers that hand over, and workers that are told to end."""

import json
import time

import pytest
import scenario

HEAD = """
import json, os, time, warnings
import dask_gateway

told = []
warnings.simplefilter("always")
warnings.showwarning = lambda message, *_: told.append(str(message))
gw = dask_gateway.Gateway(auth="jupyterhub")
"""


@pytest.fixture
def says(login_python, no_clusters_left):
    """``says(body)``: what alice's program printed last, as JSON."""

    def run(body: str):
        done = login_python("alice", HEAD + body)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return run


@pytest.fixture
def held_partition():
    """``release()`` lets the jobs of the partition `debug` start, which waits until then."""
    controller = scenario.host("controller")
    controller.check_output("scontrol update partitionname=debug state=down")

    def release():
        controller.check_output("scontrol update partitionname=debug state=up")

    yield release
    release()


def queue() -> list[str]:
    """Kind and state of alice's jobs, each task of an array for itself."""
    out = scenario.host("controller").check_output("squeue --noheader --array --user=alice --format='%%.11j %%T'")
    return sorted(out.split("\n")) if out else []


def test_a_busy_batch_cluster_is_queued_for_once(says, held_partition):
    says("print(json.dumps(gw.submit(workers=2, partition='debug', time_limit='10 minutes')))")
    waiting = [
        " ".join(line.split()) for line in scenario.wait_until("three jobs wait", lambda: queue()[2:] and queue())
    ]
    assert waiting == ["dask-schedu PENDING", "dask-worker PENDING", "dask-worker PENDING"]
    held_partition()
    seconds, workers, more, told = says("""
began = time.monotonic()
cluster = gw.connect(gw.list_clusters()[0].name)
client = cluster.get_client()
assert client.submit(lambda: 42).result(timeout=90) == 42
seconds = time.monotonic() - began
client.wait_for_workers(2, timeout=60)
names = {worker["name"] for worker in client.scheduler_info()["workers"].values()}
cluster.scale(3)
client.wait_for_workers(3, timeout=60)
more = {worker["name"] for worker in client.scheduler_info()["workers"].values()} - names
client.map(time.sleep, [60, 61, 62])  # what they do when they are told to end
time.sleep(0.5)
cluster.shutdown()
print(json.dumps([seconds, len(names), len(more), told]))
""")
    began = time.monotonic()
    scenario.wait_until("no job is left", lambda: not queue(), timeout=25)
    # SLURM itself would end what does not go by itself after 30 s
    assert time.monotonic() - began < 15
    assert (workers, more, told) == (2, 1, [])
    assert seconds < 25  # 2 on a machine that does nothing else
    assert scenario.staged_files_of("alice") == []


def test_a_first_worker_that_cannot_start_is_told_when_the_user_comes(says):
    told = says("""
setup = "module load jaspy; case $SLURM_JOB_NAME in dask-worker*) echo no disk; exit 4;; esac"
cluster = gw.new_cluster(workers=1, worker_setup=setup)
client = cluster.get_client()
began = time.monotonic()
while not told and time.monotonic() - began < 60:
    time.sleep(0.1)
cluster.shutdown()
print(json.dumps(told))
""")
    assert "did not come up: it ended with exit code 4." in told[0]
    assert "\n  no disk" in told[0]


def test_a_computation_outlives_its_workers_jobs(says):
    """SLURM's shortest time limit is a minute; workers hand over 25 to 40 s after their start."""
    first, moved, total, workers = says("""
cluster = gw.new_cluster(workers=2, time_limit="1 minute", scheduler_time_limit="10 minutes")
client = cluster.get_client()
client.wait_for_workers(2, timeout=60)
first = {address: client.submit(os.getenv, "SLURM_JOB_ID", workers=[address], allow_other_workers=True, pure=False)
         for address in client.scheduler_info()["workers"]}
jobs = {address: future.result(timeout=30) for address, future in first.items()}
def step(before):
    time.sleep(0.5)
    return before + 1
total, steps, began = client.submit(int, 0), 0, time.monotonic()
while set(jobs) <= set(client.scheduler_info()["workers"]) and time.monotonic() - began < 70:
    total, steps = client.submit(step, total), steps + 1
    time.sleep(0.5)
gone = set(jobs) - set(client.scheduler_info()["workers"])
assert gone, "no worker has handed over"
moved = {address: future.result(timeout=30) for address, future in first.items()}
client.wait_for_workers(2, timeout=60)
total = total.result(timeout=30) - steps
print(json.dumps([jobs, moved, total, len(client.scheduler_info()["workers"])]))
cluster.shutdown()
""")
    assert first == moved  # what a worker held did not have to be computed again, in another job
    assert (total, workers) == (0, 2)
