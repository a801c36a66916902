"""What the canary does as a client of Dask: connect to a cluster that there is, and have one task computed.

It runs in an environment of its own, with distributed and dask-gateway, as a user without rights; what it is to do
stands in its standard input, so that no token is in a command line. It prints a word for each step that it has done.
"""

import asyncio
import json
import operator
import sys


async def compute(order):
    """Connect, compute, and say so."""
    from dask_gateway import Gateway
    from dask_gateway.auth import JupyterHubAuth

    auth = JupyterHubAuth(api_token=order["token"])
    async with Gateway(order["address"], auth=auth, asynchronous=True) as gateway:
        cluster = await gateway.connect(order["cluster"])
        client = await cluster.get_client(set_as_default=False)
        try:
            print("connected", flush=True)
            # By its name only, so that it does not matter how near this Python is to the worker's
            print("result", await client.submit(operator.mul, 6, 7, pure=False), flush=True)
        finally:
            await client.close()
            await cluster.close(shutdown=False)


if __name__ == "__main__":
    asyncio.run(compute(json.load(sys.stdin)))
