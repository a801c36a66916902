"""A user's program on the login host that says, line by line, how far its computation is."""

import subprocess

import scenario

ONE_WORKER = """
import time
import dask_gateway

gw = dask_gateway.Gateway(auth="jupyterhub")
cluster = gw.new_cluster(shutdown_on_close=False)
cluster.scale(1)
client = cluster.get_client()
client.wait_for_workers(1)
print("computing", cluster.name, flush=True)
"""
# One result a second, until it is ended
ENDLESS = """
while True:
    print("result", client.submit(lambda: time.sleep(1) or 6 * 7, pure=False).result(), flush=True)
"""


class Computation:
    """A program that runs, with a cluster of one worker that outlives it.

    Parameters
    ----------
    user : str
        A user of the site's directory, with a token file on the login host.
    code : str
        Python, run with jaspy, that goes on with `time`, `gw`, `cluster` and `client`; `print` with ``flush``.
    timeout : int
        Seconds after which it is ended.
    """

    def __init__(self, user: str, code: str, timeout: int):
        path = f"{scenario.site()['site_home_directory']}/{user}/computation.py"
        scenario.put_file("login", user, path, ONE_WORKER + code)
        self.process = subprocess.Popen(
            ["docker", "exec", f"{scenario.PREFIX}-login", "runuser", "-l", user, "-c",
             f"module load jaspy && timeout {timeout} python {path}"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.cluster = self.line("computing")

    def line(self, first_word: str) -> str:
        """The rest of the next line that the program prints; it must begin with `first_word`."""
        line = self.process.stdout.readline()
        if not line.startswith(first_word):
            out, err = self.process.communicate()
            raise AssertionError(f"expected a line {first_word!r}, the program printed: {line}{out}\n{err}")
        return line.removeprefix(first_word).strip()

    def rest(self) -> list[str]:
        """The lines that are left, up to its end."""
        out, _ = self.process.communicate(timeout=400)
        return out.splitlines()

    def end(self) -> None:
        """End the program; its cluster goes on."""
        self.process.kill()
        self.process.communicate()
