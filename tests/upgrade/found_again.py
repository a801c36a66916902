"""What alice runs to find the cluster that she had, with what she has kept on it."""

FIND = """
import dask_gateway
gw = dask_gateway.Gateway(auth="jupyterhub")
print([c.name for c in gw.list_clusters()])
cluster = gw.connect("{}")
client = cluster.get_client()
print(client.get_dataset("kept").result())
cluster.scale(2)
client.wait_for_workers(2, timeout=120)
cluster.shutdown()
print("shut down")
"""
