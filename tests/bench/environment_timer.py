"""Runs on a node as a user: how long a script takes, from its shell's start, as a batch job has it.

``python3 environment_timer.py SCRIPT [WORDS]`` prints seconds: until the script has ended well, or until it has written
the words to its standard error, after which it is told to end. Standard library only.
"""

import os
import pwd
import subprocess
import sys
import time


def measure(script: str, words: str = "") -> float:
    """Seconds of one run.

    Raises
    ------
    SystemExit
        When it ended otherwise; with the last of what it said.
    """
    # What a job of the gateway begins with: nothing of the shell that this is started from
    user = pwd.getpwuid(os.getuid())
    clean = {"HOME": user.pw_dir, "USER": user.pw_name, "LOGNAME": user.pw_name}
    clean |= {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}
    began = time.perf_counter()
    with subprocess.Popen(
        ["/bin/bash", "-l", script], env=clean, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        said = ""
        for line in process.stderr:
            said += line
            if words and words in line:
                seconds = time.perf_counter() - began
                process.terminate()
                process.stderr.read()
                return seconds
        code = process.wait()
        seconds = time.perf_counter() - began
    if code or words:
        sys.exit(f"code {code}: {said[-2000:]}")
    return seconds


if __name__ == "__main__":
    print(measure(*sys.argv[1:]))
