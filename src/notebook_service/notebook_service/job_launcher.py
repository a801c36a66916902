"""Submit, cancel and read about the job of one user's notebook server, as that user.

The Hub has systemd run this file as the user, as it has notebook servers run where they are units: it has no other
way to be somebody else, and needs none. One JSON object comes by standard input, so that nothing of it is seen in a
list of processes; the answer is one line of JSON. It is standard library only, and runs without site-packages.

submit  ends an earlier job of the same name, writes the server's settings into a file that is the user's alone, and
        calls sbatch
cancel  removes that file, if the job has not done so, and calls scancel
log     answers with the last line of the log of a job that has ended, and removes the file if the job has not
"""

# No pathlib: each import costs every start some milliseconds.
# ruff: noqa: PTH101, PTH103, PTH104, PTH108, PTH118, PTH119, PTH123

from __future__ import annotations

import json
import os
import pwd
import re
import stat
import subprocess
import sys

TIMEOUT = 60  # seconds for each of SLURM's commands
LOG_LIMIT = 16 * 1024
# What scancel writes about a job that has ended: nothing is left to cancel.
ENDED = re.compile(r"invalid job id|already completing or completed|job has already finished", re.IGNORECASE)
# The script holds no secret: SLURM keeps it, and shows it to its operators
SCRIPT = '#!/bin/bash\nexec "$NOTEBOOK_SERVER_PYTHON" -I -m notebook_server.job "$NOTEBOOK_SERVER_SETTINGS"\n'


class Failed(Exception):  # noqa: N818
    """The request could not be carried out; the text is SLURM's or the system's."""


def submit(request: dict, home: str) -> dict:
    """Write the settings and call sbatch."""
    run([request["scancel"], f"--user={os.getuid()}", f"--jobname={request['name']}"], home)
    folder = os.path.join(home, request["folder"])
    os.makedirs(folder, mode=0o700, exist_ok=True)
    os.chmod(folder, 0o700)
    settings = settings_file(request, home)
    write_private(settings, json.dumps(request["settings"]))
    try:
        code, out, said = run(
            [
                request["sbatch"],
                "--parsable",
                f"--job-name={request['name']}",
                # All of the few variables below: with a list of names, or none, slurmd reads the user's environment
                # from `su -l`, which takes a second and runs whatever profile there is
                "--export=ALL",
                f"--chdir={home}",
                f"--output={log_file(request, home).replace('%', '%%')}",
                "--open-mode=truncate",
                "--no-requeue",
                "--nodes=1",
                "--ntasks=1",
                *request["options"],
            ],
            home,
            text=SCRIPT,
            more={"NOTEBOOK_SERVER_PYTHON": request["python"], "NOTEBOOK_SERVER_SETTINGS": settings},
        )
        job = out.strip().split(";")[0]
        if code != 0 or not job.isdigit():
            raise Failed(said or f"sbatch ended with code {code} and said nothing")
    except BaseException:
        remove(settings)
        raise
    return {"job": job}


def cancel(request: dict, home: str) -> dict:
    """Remove the settings and call scancel."""
    remove(settings_file(request, home))
    code, _, said = run([request["scancel"], request["job"]], home)
    if code != 0 and not ENDED.search(said):
        raise Failed(said or f"scancel ended with code {code} and said nothing")
    return {}


def log(request: dict, home: str) -> dict:
    """Answer with the last line of the log that says something."""
    remove(settings_file(request, home))
    try:
        # Anything but a file (a link, a pipe that would never end) is not read
        descriptor = os.open(log_file(request, home), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return {"line": ""}
    with open(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            return {"line": ""}
        file.seek(max(0, found.st_size - LOG_LIMIT))
        lines = file.read(LOG_LIMIT).decode("utf-8", "replace").splitlines()
    return {"line": next((line.strip()[:1000] for line in reversed(lines) if line.strip()), "")}


def settings_file(request: dict, home: str) -> str:
    """Where the job finds its settings."""
    return os.path.join(home, request["folder"], f"{request['name']}.json")


def log_file(request: dict, home: str) -> str:
    """Where SLURM writes what the job prints."""
    return os.path.join(home, request["folder"], f"{request['name']}.log")


def write_private(path: str, text: str) -> None:
    """Write a file that others can't read, not even for a moment."""
    temporary = f"{path}.new"
    remove(temporary)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(descriptor)  # says so if there is no space, also on network file systems
        os.rename(temporary, path)
    except BaseException:
        remove(temporary)
        raise


def remove(path: str) -> None:
    """Remove a file that may not be there."""
    try:  # noqa: SIM105
        os.unlink(path)
    except FileNotFoundError:
        pass


def run(command: list[str], home: str, text: str = "", more: dict[str, str] | None = None) -> tuple[int, str, str]:
    """Call one of SLURM's commands; its code, its output, and what it said without its own name before each line."""
    user = pwd.getpwuid(os.getuid())
    environment = {"HOME": home, "USER": user.pw_name, "LOGNAME": user.pw_name, "SHELL": user.pw_shell or "/bin/bash"}
    environment |= {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"} | (more or {})
    try:
        done = subprocess.run(
            command, input=text, env=environment, capture_output=True, text=True, timeout=TIMEOUT, check=False
        )
    except subprocess.TimeoutExpired:
        raise Failed(f"{os.path.basename(command[0])} gave no answer in {TIMEOUT} s") from None
    name = re.escape(os.path.basename(command[0]))
    lines = (re.sub(rf"^{name}: (error: |fatal: )?", "", line).strip() for line in done.stderr.splitlines())
    return done.returncode, done.stdout, "; ".join(line for line in lines if line)[:1000]


ACTIONS = {"submit": submit, "cancel": cancel, "log": log}


def answer(request: dict) -> dict:
    """Carry a request out."""
    try:
        os.umask(0o077)
        home = pwd.getpwuid(os.getuid()).pw_dir
        if not os.getuid():
            raise Failed("notebook servers are not root's")
        return ACTIONS[request["action"]](request, home)
    except Failed as failure:
        return {"error": str(failure)}
    except OSError as error:
        return {"error": f"{error.strerror}: {error.filename or ''}".rstrip(": ")}


if __name__ == "__main__":
    os.chdir("/")
    print(json.dumps(answer(json.load(sys.stdin))))
