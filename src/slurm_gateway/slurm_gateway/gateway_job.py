"""Runs a cluster's scheduler or a worker in its job: `gateway_job.py scheduler|worker …arguments of dask's command…`.

It is copied into the cluster's folder and run by the Python of the user's environment, so it uses nothing but what
`dask scheduler` and `dask worker` use. It does what they do, and besides: it spares them the search for dask's other
commands; a worker may be given a file in place of the scheduler's address, and waits until the address is in it; and
a worker that is told to end has ended soon.
"""

import importlib.util
import json
import os
import sys
import threading
import time

END_WITHIN = 2.0
NO_SCHEDULER = "dask-gateway: the scheduler did not come up in"
NO_SCHEDULER_CODE = 75  # EX_TEMPFAIL


def main(kind, *arguments):
    """Run dask's own command."""
    sys.path[:1] = []  # this program's folder, which `dask` would not have either
    if kind == "scheduler":
        from distributed.cli import dask_scheduler

        dask_scheduler.main(arguments, prog_name="dask scheduler")
    else:
        run_worker(*arguments)


def run_worker(address, seconds, *arguments):
    """A worker of the scheduler at this address, or at the one that is in this file within so many seconds."""
    from distributed.cli import dask_worker  # before the wait, for it takes as long as the scheduler's own start

    if address.startswith("/"):
        address = address_in(address, float(seconds))
    if misfit():
        sys.exit(1)
    if "--no-nanny" in arguments:
        end_when_told(dask_worker)
    code = 1
    try:
        dask_worker.main([address, *arguments], prog_name="dask worker")
    except SystemExit as exc:
        code = exc.code
        raise
    finally:
        end_soon(code if isinstance(code, int) else int(code is not None))


def misfit():
    """Whether this worker does not fit its scheduler, which has told what it runs in before its address."""
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "gateway_preload.py")  # noqa: PTH100, PTH118, PTH120
    spec = importlib.util.spec_from_file_location("gateway_preload", path)
    preload = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(preload)
    except OSError:
        return False  # without a word of the scheduler's
    return preload.main() != 0


def address_in(path, seconds):
    """The scheduler's address, as soon as it stands in the file.

    The file is there from the start and is written in place: on NFS the opening of a file that exists asks the server,
    where the absence of one is remembered for up to a minute.
    """
    began = time.monotonic()
    while True:
        try:
            with open(path, encoding="utf-8") as file:  # noqa: PTH123
                return json.load(file)["address"]
        except (OSError, ValueError, KeyError):
            pass  # not written yet, or not all of it
        waited = time.monotonic() - began
        if waited >= seconds:
            print(f"{NO_SCHEDULER} {seconds:g} s, for which this worker waited. Its job ends.", file=sys.stderr)
            sys.exit(NO_SCHEDULER_CODE)
        time.sleep(min(0.01 + waited / 20, 1))


def end_when_told(dask_worker):
    """Let the process end soon after SIGTERM.

    Without a nanny, distributed only leaves its event loop, and hangs there until SLURM kills it if the worker was
    closing already, or if a task does not return.
    """
    wait_for_signals = dask_worker.wait_for_signals

    async def wait():
        signal = await wait_for_signals()
        end_soon(128 + signal)
        return signal

    dask_worker.wait_for_signals = wait


def end_soon(code):
    """End this process with this code unless it has ended in time."""

    def end():
        sys.stderr.flush()
        os._exit(code)

    timer = threading.Timer(END_WITHIN, end)
    timer.daemon = True
    timer.start()


if __name__ == "__main__":
    main(*sys.argv[1:])
