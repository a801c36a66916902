"""What script/demo shows once the service is up: alice's way through it, step by step, and how to look around."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import scenario
from hub_client import HubUser


@contextmanager
def step(text: str) -> Iterator[None]:
    print(f"  {text} … ", end="", flush=True)
    started = time.monotonic()
    yield
    print(f"{time.monotonic() - started:.1f} s")


def main() -> int:
    hub, gateway = scenario.published_url("hub"), scenario.published_url("gateway")
    site, passwords = scenario.site(), scenario.passwords()
    alice = HubUser(hub, scenario.ca(), "alice", passwords["alice"])
    snippet = scenario.render_example("first_cluster.py")

    with step("alice signs in to the Hub"):
        alice.sign_in()
    with step("her notebook server starts"):
        alice.start_server()
    with alice.kernel("jaspy") as kernel:
        with step("a kernel of it starts"):
            kernel.run("1 + 1")
        with step("the snippet runs in the kernel: cluster, adaptive workers, computation, shutdown"):
            printed = kernel.run(snippet, timeout=300)
    print(f"  result: {printed}")

    users = "\n".join(f"    {name:8} {password}" for name, password in passwords.items())
    print(f"""
The service is running.
  Hub        {hub}   (users know it as https://{site["site_notebook_host"]})
  gateway    {gateway}   (users know it as https://{site["site_gateway_host"]})
  authority  {scenario.ca()}
             the scenario's own; a browser warns until it trusts this certificate
  users      name     password
{users}
             alice and carol hold the service 'dask' at the accounts portal; bob does not, and reads where to apply

Look around
  a login host, as alice      docker exec -it {scenario.PREFIX}-login runuser -l alice
  the batch cluster's queue   docker exec {scenario.PREFIX}-controller squeue
  the gateway's journal       docker exec {scenario.PREFIX}-gateway journalctl -fu dask-gateway
  may bob, and why not        docker exec {scenario.PREFIX}-gateway gateway-admin accounts check bob
  the snippet                 examples/first_cluster.py.j2
  remove all of it            script/demo --down""")
    return 0


if __name__ == "__main__":
    sys.exit(main())
