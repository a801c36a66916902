"""Parts of the service are killed and restarted while alice computes."""

import time
from collections.abc import Iterator

import pytest
import scenario
from computation import Computation

COMPUTATION = """
futures = client.map(lambda x: time.sleep(0.5) or x * x, range(40))
print("result", sum(client.gather(futures)), flush=True)
cluster.shutdown()
print("shut down", flush=True)
"""
RESULT = sum(x * x for x in range(40))


@pytest.fixture
def computation(token_file, no_clusters_left) -> Iterator[Computation]:
    token_file("alice")
    running = Computation("alice", COMPUTATION, timeout=240)  # about 20 s once it computes
    yield running
    running.end()


def jobs_running_of(user: str) -> list[str]:
    return scenario.host("controller").check_output(f"squeue -h -u {user} -t R -o %i").split()


def test_a_gateway_killed_with_9_keeps_the_cluster_and_the_computation(computation):
    jobs = jobs_running_of("alice")
    scenario.host("gateway").check_output("systemctl kill --kill-whom=main --signal=KILL dask-gateway.service")
    scenario.wait_until("the gateway is back", scenario.gateway_answers)
    assert set(jobs) <= set(jobs_running_of("alice"))
    assert int(computation.line("result")) == RESULT
    computation.line("shut down")
    scenario.wait_until("no job is left", lambda: not scenario.jobs_of("alice"))


def test_a_restarted_gateway_keeps_the_cluster_and_scales_it(computation):
    scenario.host("gateway").check_output("systemctl restart dask-gateway.service")
    scenario.wait_until("the gateway is back", scenario.gateway_answers)
    assert int(computation.line("result")) == RESULT


@pytest.mark.long
def test_a_gateway_that_is_away_for_longer_than_its_heartbeats_loses_no_cluster(computation):
    gateway = scenario.host("gateway")
    gateway.check_output("systemctl stop dask-gateway.service")
    # Longer than twice upstream's heartbeat period of 15 s, after which a cluster counts as dead.
    time.sleep(45)
    gateway.check_output("systemctl start dask-gateway.service")
    scenario.wait_until("the gateway is back", scenario.gateway_answers)
    assert int(computation.line("result")) == RESULT
    computation.line("shut down")


def test_after_a_restart_of_the_gateways_proxy_a_client_reconnects_to_the_same_cluster(computation, login_python):
    scenario.host("gateway").check_output("systemctl restart dask-gateway-proxy.service")
    program = f"""
import dask_gateway
gw = dask_gateway.Gateway(auth="jupyterhub")
cluster = gw.connect("{computation.cluster}")
client = cluster.get_client()
print(client.submit(lambda: 20 + 22).result(timeout=60))
"""
    done = login_python("alice", program)
    assert done.stdout.splitlines()[-1:] == ["42"], done.stderr


def test_a_restarted_hub_keeps_the_computation_and_the_notebook_server(alices_server, computation):
    before = alices_server.server_pid()
    scenario.host("hub").check_output("systemctl restart jupyterhub.service")
    assert int(computation.line("result")) == RESULT
    assert alices_server.server_pid() == before


def test_a_restarted_hub_proxy_finds_its_routes_again(alices_server):
    scenario.host("hub").check_output("systemctl restart jupyterhub-proxy.service")
    scenario.wait_until("alice's server answers again", lambda: alices_server.server_answers(), timeout=90)
