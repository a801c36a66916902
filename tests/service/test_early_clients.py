"""Clients that connect before the first worker exists lose nothing.

Debian 13's Python drops such connections (FutureCancelledError … scheduler-connection-lost); see docs/operators.md.
"""

import os

import scenario

CLUSTERS = int(os.environ.get("DASK_SERVICE_EARLY_CLUSTERS", "20"))

PROGRAM = """
import sys
import dask_gateway

number = int(sys.argv[1])
gateway = dask_gateway.Gateway(auth="jupyterhub")
with gateway.new_cluster(shutdown_on_close=True) as cluster:
    client = cluster.get_client()
    future = client.submit(lambda x: x + 1, number)
    cluster.scale(1)
    assert future.result(timeout=120) == number + 1
    client.close()
print("answered")
"""


def test_no_future_is_lost_by_clients_that_connect_before_the_first_worker(token_file, no_clusters_left):
    token_file("alice")
    scenario.put_file("login", "alice", "/home/users/alice/early.py", PROGRAM)
    # Each in a process of its own, as users are; three at a time is what two cores take.
    done = scenario.as_user(
        "login", "alice", f"module load jaspy && seq {CLUSTERS} | xargs -P 3 -n 1 timeout 180 python early.py", 900
    )
    assert done.stdout.count("answered") == CLUSTERS, done.stdout + done.stderr
    assert done.returncode == 0, done.stderr
