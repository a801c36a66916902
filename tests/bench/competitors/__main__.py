"""Carries out requests, one line of JSON each, and answers each with a line of JSON.

The first line holds the competitor's name and the settings. Whatever happens, the cluster is ended at the end.
"""

import contextlib
import json
import os
import sys

from . import load, timing


def main() -> None:
    # Whatever libraries print must not get between the answers.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    if os.getpgid(0) != os.getpid():
        os.setsid()  # what was started from here can be ended together

    first = json.loads(sys.stdin.readline())
    settings, timeout = first["settings"], first["settings"]["timeout"]
    kind = load(first["competitor"])  # before anything is timed

    def make():
        return kind(settings)

    competitor = None

    def carry_out(request: dict):
        nonlocal competitor
        what = request["do"]
        if what == "crowd":
            return timing.crowd(make, request["clusters"], request["together"], timeout)
        if competitor is None:
            competitor = make()
        if what == "prepare":
            return os.getpid()
        if what == "can-submit-together":
            return competitor.can_submit_together()
        if what == "first-result":
            return timing.first_result(competitor, request["together"], timeout)
        if what == "scale":
            return timing.scaled(competitor, request["workers"], timeout)
        if what == "close":
            done, competitor = competitor, None
            return timing.closed(done, timeout) if request["wait"] else done.close()
        if what == "sweep":
            return competitor.sweep()
        raise ValueError(f"unknown request {what!r}")

    print(json.dumps({"answer": os.getpid()}), file=answers)
    try:
        for line in sys.stdin:
            try:
                answer = {"answer": carry_out(json.loads(line))}
            except Exception as error:
                answer = {"error": f"{type(error).__name__}: {error}"}
            print(json.dumps(answer), file=answers)
    finally:
        if competitor is not None:
            with contextlib.suppress(Exception):
                competitor.close()
    answers.flush()
    os._exit(0)  # no waiting for threads of libraries


if __name__ == "__main__":
    main()
