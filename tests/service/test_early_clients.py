"""Clients that connect before the first worker exists lose nothing.

Debian 13's Python drops such connections (FutureCancelledError … scheduler-connection-lost); see docs/operators.md.
"""

import os

import scenario

CLUSTERS = int(os.environ.get("DASK_SERVICE_EARLY_CLUSTERS", "20"))

PROGRAM = """
import concurrent.futures
import sys
import dask_gateway

gw = dask_gateway.Gateway(auth="jupyterhub")

def one(number):
    cluster = gw.new_cluster(shutdown_on_close=True)
    try:
        client = cluster.get_client()
        future = client.submit(lambda x: x + 1, number)
        cluster.scale(1)
        return future.result(timeout=120)
    finally:
        cluster.close()

with concurrent.futures.ThreadPoolExecutor(4) as pool:
    lost = 0
    for number, answer in zip(range({clusters}), [pool.submit(one, n) for n in range({clusters})]):
        try:
            assert answer.result() == number + 1
        except Exception as error:
            lost += 1
            print(f"cluster {{number}}: {{type(error).__name__}}: {{error}}")
print("lost", lost)
"""


def test_no_future_is_lost_by_clients_that_connect_before_the_first_worker(login_python, no_clusters_left):
    done = login_python("alice", PROGRAM.format(clusters=CLUSTERS), timeout=600)
    assert done.stdout.splitlines()[-1:] == ["lost 0"], done.stdout + done.stderr
    scenario.wait_until("no job is left", lambda: not scenario.jobs_of("alice"), timeout=60)
