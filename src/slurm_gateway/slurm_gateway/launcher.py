#!/usr/bin/python3 -IS
"""Submit, cancel and tidy one user's Dask jobs, as that user.

sudo lets the gateway run this file, and nothing else, as the members of one group. It reads one JSON object
from standard input, does one of three things, and answers one line of JSON on standard output:

submit  writes the cluster's keys into the user's staging folder, then calls sbatch with the job's script, and once
        more if the first workers are submitted together with their scheduler
cancel  calls scancel, then answers with the last lines of a log, to which it may add one that the user is to
        read, then removes the staging folder if asked to
tidy    removes the logs and staging folders that nobody needs any more

The gateway sends data, never a command: every field is checked here against a pattern, the calls of sbatch and
scancel are built here from a configuration file that belongs to root, and nothing of the caller's environment
is passed on. It is standard library only and runs without site-packages, because it is started for each job.
"""

# No pathlib, which has no dir_fd, and no contextlib: each import costs every job some milliseconds.
# ruff: noqa: N818, PTH117, PTH123, PTH208, SIM105

import errno
import json
import os
import pwd
import re
import select
import signal
import stat
import sys
import time

CONFIG = "/etc/dask-gateway/launcher.json"
CONFIG_OWNER = 0

REQUEST_LIMIT = 4 * 1024 * 1024
SCRIPT_LIMIT = 2 * 1024 * 1024
FILE_LIMIT = 64 * 1024
LOG_LIMIT = 16 * 1024
OUTPUT_LIMIT = 64 * 1024
COMMAND_TIMEOUT = 120
REMOVAL_TIME = 20
TIME = 150  # for all of it, less than the gateway waits
CLOSING_TIME = 1.0
DEPTH = 40

CLUSTER = re.compile(r"[0-9a-f]{32}")
JOB = re.compile(r"[1-9][0-9]{0,9}(_[0-9]{1,7})?")
BATCH = re.compile(r"[0-9a-f]{16}")
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@+-]{0,63}")
KINDS = ("scheduler", "worker")
FILES = (
    "dask.crt", "dask.pem", "dask.token", "dask.dashboard", "gateway_job.py", "gateway_preload.py",
    "dashboard_preload.py", "scheduler.json",
)  # fmt: skip

# What sbatch and scancel write when slurmctld does not answer: worth another try later.
AWAY = re.compile(
    r"unable to contact slurm controller|connection refused|socket timed out|zero bytes were transmitted"
    r"|communication connection failure|unexpected message received|slurm backup controller in standby"
    r"|invalid authentication credential|munge|temporarily unable to accept job",
    re.IGNORECASE,
)
# What scancel writes about a job that has ended: nothing is left to cancel.
ENDED = re.compile(r"invalid job id|already completing or completed|job has already finished", re.IGNORECASE)


class Refused(Exception):
    """The request is not one that this program carries out."""


class Failed(Exception):
    """The request is fine, and could not be carried out."""

    def __init__(self, message, **details):
        super().__init__(message)
        self.details = details


# -- the configuration and the user ---------------------------------------------------------------------------


def read_config():
    """The site's settings. Nobody but root may be able to write them, as they name the programs to run."""
    descriptor = os.open(CONFIG, os.O_RDONLY | os.O_CLOEXEC)
    with open(descriptor, encoding="utf-8") as file:
        status = os.fstat(descriptor)
        if status.st_uid != CONFIG_OWNER or status.st_mode & 0o022:
            raise Failed(f"{CONFIG} can be written by others than root; the launcher does not use it")
        config = json.load(file)
    for key in ("sbatch", "scancel"):
        if not os.path.isabs(config[key]):
            raise Failed(f"{CONFIG}: '{key}' must be an absolute path")
    return config


def current_user(config):
    """The passwd entry of the user we run as; never root, never a system user."""
    uid = os.getuid()
    if uid != os.geteuid() or uid < max(1, int(config["minimum_uid"])):
        raise Refused(f"jobs are not submitted for user id {uid}")
    user = pwd.getpwuid(uid)
    if not os.path.isabs(user.pw_dir) or re.search(r"[\x00-\x1f\\]", user.pw_dir):
        raise Failed(f"the home folder of {user.pw_name} has an unusable name")
    return user


def environment(config, user):
    """The whole environment of sbatch and scancel; it goes on into the job, and nothing else does.

    sbatch is told to export all of it, since with a list of names, or none, it has slurmd read the user's environment
    from `su -l` first: that takes up to a second for each job (src/common/env.c of SLURM, `env_array_user`: it sleeps
    for one when `su` is not gone at once), and a profile that does not end holds the job. The script is run by a login
    shell instead.
    """
    result = {
        "HOME": user.pw_dir,
        "USER": user.pw_name,
        "LOGNAME": user.pw_name,
        "SHELL": user.pw_shell or "/bin/bash",
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "LANG": "C.UTF-8",
    }
    if config.get("slurm_conf"):
        result["SLURM_CONF"] = config["slurm_conf"]
    return result


# -- the checks -----------------------------------------------------------------------------------------------


def text(request, key, limit):
    """A field that is text."""
    value = request.get(key)
    if not isinstance(value, str):
        raise Refused(f"'{key}' must be a string")
    if "\0" in value:
        raise Refused(f"'{key}' contains a NUL character")
    try:
        data = value.encode("utf-8")
    except UnicodeEncodeError:
        raise Refused(f"'{key}' is not valid text") from None
    if len(data) > limit:
        raise Refused(f"'{key}' is longer than {limit} bytes")
    return value


def matching(request, key, pattern, default=None):
    """A field that has the form of the pattern; with a default, it may be missing or empty."""
    if default is not None and request.get(key) in (None, ""):
        return default
    value = request.get(key)
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise Refused(f"'{key}' has a form that is not accepted")
    return value


def number(request, key, low, high, default=None):
    """A field that is a whole number, or missing where there is a default."""
    value = request.get(key)
    if value is None and default is not None:
        return default or None
    if type(value) is not int or not low <= value <= high:
        raise Refused(f"'{key}' must be a whole number from {low} to {high}")
    return value


def listed(request, key, pattern, limit):
    """A field that is a list of texts of one form."""
    value = request.get(key, [])
    if not isinstance(value, list) or len(value) > limit:
        raise Refused(f"'{key}' must be a list of at most {limit} values")
    if not all(isinstance(item, str) and pattern.fullmatch(item) for item in value):
        raise Refused(f"'{key}' holds a value in a form that is not accepted")
    return value


def only(request, *keys):
    """Refuse a request with any other field."""
    unknown = sorted(set(request) - {"action", *keys})
    if unknown:
        raise Refused(f"unknown field '{unknown[0][:40]}'")


# -- folders, opened one by one and without following links ---------------------------------------------------


def open_folder(name, parent=None, create=False):
    """A descriptor of a folder that is the user's own: not a link, not somebody else's.

    Without a parent, the name is the user's home folder, whose path the site chose: links in it are followed.
    """
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | (0 if parent is None else os.O_NOFOLLOW)
    if create:
        try:
            os.mkdir(name, 0o700, dir_fd=parent)
        except FileExistsError:
            pass
    descriptor = os.open(name, flags, dir_fd=parent)
    status = os.fstat(descriptor)
    if parent is not None and status.st_uid != os.getuid():
        os.close(descriptor)
        raise Failed(f"the folder '{name}' belongs to somebody else")
    if create and stat.S_IMODE(status.st_mode) & 0o077:
        os.fchmod(descriptor, 0o700)
    return descriptor


def write_file(folder, name, content):
    """Write a file that is never readable by others, not even for a moment, and never through a link."""
    temporary = f".{name}.{os.getpid()}"
    descriptor = os.open(
        temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder
    )
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        try:
            os.unlink(temporary, dir_fd=folder)
        except OSError:
            pass
        raise


def open_own_folder(name, parent):
    """A descriptor of a folder in which everything can be read and removed, whatever its owner has closed."""
    handle = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        status = os.fstat(handle)
        if status.st_uid == os.getuid() and status.st_mode & 0o700 != 0o700:
            os.chmod(f"/proc/self/fd/{handle}", 0o700)  # noqa: PTH101
    finally:
        os.close(handle)
    return open_folder(name, parent)


def remove_folder(name, parent, deadline, depth=0):
    """Remove a folder with what is in it, or as much of it as can be: keys do not stay because something else does.

    A link in its place is removed as a link. The user may have put anything there: folders that nobody can read, or
    that are in each other thousands of times, or with more files than can be removed in a while.
    """
    try:
        descriptor = open_own_folder(name, parent)
    except FileNotFoundError:
        return
    except OSError as exc:
        if exc.errno not in (errno.ELOOP, errno.ENOTDIR):
            raise
        os.unlink(name, dir_fd=parent)
        return
    problems = {}
    try:
        if depth > DEPTH:
            raise Failed(f"'{name}' is more than {DEPTH} folders deep")
        while True:
            # Some at a time: there may be millions
            with os.scandir(descriptor) as found:
                some = (entry.name for _, entry in zip(range(1000 + len(problems)), found, strict=False))
                entries = [entry for entry in some if entry not in problems]
            if not entries:
                break
            for entry in entries:
                if time.monotonic() > deadline:
                    raise Failed(f"'{name}' holds more than can be removed at once")
                try:
                    if stat.S_ISDIR(os.stat(entry, dir_fd=descriptor, follow_symlinks=False).st_mode):
                        remove_folder(entry, descriptor, deadline, depth + 1)
                    else:
                        os.unlink(entry, dir_fd=descriptor)
                except FileNotFoundError:
                    continue
                except (OSError, Failed) as exc:
                    problems[entry] = exc
    finally:
        os.close(descriptor)
    for problem in problems.values():
        raise problem
    os.rmdir(name, dir_fd=parent)


def last_lines(folder, name, lines):
    """The end of a log. Anything but a regular file (a link, a pipe that would never end) is not read."""
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return []
        file.seek(max(0, status.st_size - LOG_LIMIT))
        data = file.read(LOG_LIMIT)
    return data.decode("utf-8", "replace").replace("\0", "").splitlines()[-lines:]


def add_line(folder, name, line):
    """Add a line to a log that is there and is a regular file."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(name, flags, dir_fd=folder)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise Failed(f"'{name}' is not a file")
        os.write(descriptor, f"{line}\n".encode())
    finally:
        os.close(descriptor)


# -- the three actions ----------------------------------------------------------------------------------------


def run(command, config, user, stdin=b""):
    """Run sbatch or scancel; its code, output and errors. The module subprocess would cost as much as sbatch itself."""
    streams = [os.memfd_create(name, os.MFD_CLOEXEC) for name in ("stdin", "stdout", "stderr")]
    old_umask = os.umask(int(str(config.get("umask", "022")), 8))  # SLURM hands it on to the job
    try:
        with open(streams[0], "wb", closefd=False) as file:
            file.write(stdin)
        os.lseek(streams[0], 0, os.SEEK_SET)
        code = wait_for(
            os.posix_spawn(
                command[0],
                command,
                environment(config, user),
                file_actions=[(os.POSIX_SPAWN_DUP2, stream, number) for number, stream in enumerate(streams)],
                setsigdef=[signal.SIGPIPE],  # which Python ignores
            )
        )
        if code is None:
            raise Failed(f"{command[0]} did not answer in {COMMAND_TIMEOUT} s", temporary=True)
        stdout, stderr = (os.pread(stream, OUTPUT_LIMIT, 0).decode("utf-8", "replace") for stream in streams[1:])
    except OSError as exc:
        raise Failed(f"{command[0]} can't be run: {exc.strerror}", temporary=True) from None
    finally:
        os.umask(old_umask)
        for stream in streams:
            os.close(stream)
    return code, stdout, stderr


def wait_for(pid):
    """The exit code of a child, negative for a signal; None if it had to be killed because it took too long."""
    ended = None
    try:
        descriptor = os.pidfd_open(pid)
        ended = select.select([descriptor], [], [], COMMAND_TIMEOUT)[0]
        os.close(descriptor)
    finally:
        if not ended:
            os.kill(pid, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return code if ended else None


def spoken(stderr):
    """What sbatch or scancel said, without its own name before each line."""
    lines = (re.sub(r"^(sbatch|scancel): (error: |fatal: )?", "", line).strip() for line in stderr.splitlines())
    return "; ".join(line for line in lines if line)[:1000]


def job_name(kind, cluster):
    """A name that tells kind and cluster, and is short enough for squeue."""
    return f"dask-{kind}-{cluster[:8]}"


JOB_FIELDS = ("script", "cpus", "memory", "time", "partition", "account", "qos", "array", "batch")


def submit(request, config, user):
    """Write the keys into the staging folder and call sbatch; for the first workers, too, if they come along."""
    only(request, "cluster", "kind", "files", "workers", *JOB_FIELDS)
    cluster = matching(request, "cluster", CLUSTER)
    kind = request.get("kind")
    if kind not in KINDS:
        raise Refused("'kind' must be scheduler or worker")
    files = request.get("files", {})
    if not isinstance(files, dict) or not all(name in FILES for name in files):
        raise Refused("'files' holds a name that is not accepted")
    files = {name: text(files, name, FILE_LIMIT) for name in files}
    job = job_of(request, cluster, kind, config, user)
    workers = request.get("workers")
    if workers is not None:
        if not isinstance(workers, dict) or kind != "scheduler":
            raise Refused("'workers' must be an object, and come with a scheduler")
        only(workers, *JOB_FIELDS)
        workers = job_of(workers, cluster, "worker", config, user)

    # The folders and keys come first: a job that starts at once must find them.
    folder = open_folder(config["folder"], open_folder(user.pw_dir), create=True)
    open_folder(cluster, open_folder("logs", folder, create=True), create=True)
    if files:
        staging = open_folder(cluster, folder, create=True)
        for name, content in files.items():
            write_file(staging, name, content)

    answer = {"job": sbatch(*job, config, user)}
    if workers is not None:
        try:
            answer["workers"] = {"job": sbatch(*workers, config, user)}
        except Failed as exc:
            answer["workers"] = {"source": "launcher", "error": str(exc), **exc.details}
    return answer


def job_of(request, cluster, kind, config, user):
    """The call of sbatch for one job, and its script."""
    script = text(request, "script", SCRIPT_LIMIT)
    if not script.startswith("#!/bin/bash -l\n"):
        raise Refused("'script' must be a bash script")
    array = number(request, "array", 1, 100_000, default=0)
    batch = matching(request, "batch", BATCH, default="-")
    home = user.pw_dir.replace("%", "%%")
    log = {"scheduler": "scheduler.log", "worker": "worker-%A_%a.log" if array else "worker-%j.log"}[kind]
    command = [
        config["sbatch"],
        "--parsable",
        f"--job-name={job_name(kind, cluster)}",
        f"--comment=dask-gateway:{config['instance']}:{cluster}:{kind}:{batch}",
        "--export=ALL",
        f"--chdir={user.pw_dir}",
        f"--output={home}/{config['folder']}/logs/{cluster}/{log}",
        "--open-mode=append",
        "--no-requeue",
        "--nodes=1",
        "--ntasks=1",
        f"--cpus-per-task={number(request, 'cpus', 1, 100_000)}",
        f"--mem={number(request, 'memory', 1, 1_000_000_000)}M",
    ]
    minutes = number(request, "time", 1, 10_000_000, default=0)
    if minutes:
        command.append(f"--time={minutes}")
    for key in ("partition", "account", "qos"):
        value = matching(request, key, NAME, default="")
        if value:
            command.append(f"--{key}={value}")
    if array:
        command.append(f"--array=0-{array - 1}")
    command.extend(config.get("directives", []))
    return command, script


def sbatch(command, script, config, user):
    """Submit a job; its id."""
    code, stdout, stderr = run(command, config, user, script.encode("utf-8"))
    job = stdout.strip().split(";")[0]
    if code != 0 or not JOB.fullmatch(job):
        said = spoken(stderr) or f"sbatch ended with code {code} and said nothing"
        raise Failed(said, source="sbatch", temporary=bool(AWAY.search(said)))
    return job


def cancel(request, config, user):
    """Call scancel, then add to a log and read its end, then remove the staging folder."""
    only(request, "cluster", "jobs", "last", "log", "lines", "note", "remove")
    cluster = matching(request, "cluster", CLUSTER)
    jobs = listed(request, "jobs", JOB, 100_000)
    last = matching(request, "last", JOB, default="")
    log = matching(request, "log", re.compile(r"scheduler|worker-[1-9][0-9]{0,9}(_[0-9]{1,7})?"), default="")
    lines = number(request, "lines", 1, 200, default=20)
    note = matching(request, "note", re.compile(r"[^\x00-\x1f\x7f-\x9f\ud800-\udfff]{1,2000}"), default="")
    remove = request.get("remove", False)
    if type(remove) is not bool:
        raise Refused("'remove' must be true or false")

    # Each of the three on its own: whatever fails below, the jobs are cancelled first.
    answer = {"failed": {}, "log": [], "removed": False, "problems": []}
    cancel_jobs(jobs, answer["failed"], config, user)
    if last:
        # A worker that is told to close by its scheduler and by SLURM at the same time hangs for 8 s: so one by one.
        time.sleep(CLOSING_TIME if jobs else 0)
        cancel_jobs([last], answer["failed"], config, user)
    try:
        folder = open_folder(config["folder"], open_folder(user.pw_dir))
    except FileNotFoundError:
        answer["removed"] = remove
        return answer
    except Exception as exc:
        answer["problems"].append(str(exc))
        return answer
    if log:
        try:
            logs = open_folder(cluster, open_folder("logs", folder))
            if note:
                add_line(logs, f"{log}.log", note)
            answer["log"] = last_lines(logs, f"{log}.log", lines)
        except Exception as exc:
            answer["problems"].append(str(exc))
    if remove:
        try:
            remove_folder(cluster, folder, time.monotonic() + REMOVAL_TIME)
            answer["removed"] = True
        except Exception as exc:
            answer["problems"].append(str(exc))
    return answer


def cancel_jobs(jobs, failed, config, user):
    """Call scancel, and note in `failed` what it could not cancel."""
    for start in range(0, len(jobs), 500):
        part = jobs[start : start + 500]
        try:
            code, _, stderr = run([config["scancel"], *part], config, user)
        except Failed as exc:
            failed.update(dict.fromkeys(part, str(exc)))
            continue
        if code != 0 or stderr.strip():
            failed.update(not_cancelled(part, code, stderr))


def not_cancelled(jobs, code, stderr):
    """Which of the jobs scancel could not cancel, with what it said; a job that has ended is not one of them."""
    failed, blamed = {}, False
    for line in stderr.splitlines():
        match = re.search(r"job id ([0-9]+(_[0-9]+)?)", line)
        if match:
            blamed = True
            if not ENDED.search(line):
                failed[match.group(1)] = spoken(line)
    if not blamed and code != 0 and not ENDED.search(stderr):
        failed = dict.fromkeys(jobs, spoken(stderr) or f"scancel ended with code {code} and said nothing")
    return failed


def tidy(request, config, user):
    """Remove expired logs, and staging folders of clusters that are not to be kept; say how many of both are left."""
    only(request, "keep")
    keep = set(listed(request, "keep", CLUSTER, 10_000))
    oldest = time.time() - 86400 * float(config["log_days"])
    deadline = time.monotonic() + REMOVAL_TIME
    answer = {"removed": [], "problems": [], "left": 0}
    try:
        folder = open_folder(config["folder"], open_folder(user.pw_dir))
    except FileNotFoundError:
        return answer

    def sweep(parent, is_old):
        for name in sorted(os.listdir(parent)):
            if not CLUSTER.fullmatch(name):
                continue
            answer["left"] += 1
            try:
                if name not in keep and is_old(name):
                    remove_folder(name, parent, deadline)
                    answer["removed"].append(name)
                    answer["left"] -= 1
            except Exception as exc:
                answer["problems"].append(str(exc))

    # A staging folder that is younger than a minute may be of a cluster that is just being submitted.
    sweep(folder, lambda name: os.lstat(name, dir_fd=folder).st_mtime < time.time() - 60)
    try:
        logs = open_folder("logs", folder)
    except FileNotFoundError:
        return answer
    except (OSError, Failed) as exc:
        answer["problems"].append(str(exc))
        return answer
    sweep(logs, lambda name: untouched_since(oldest, name, logs))
    return answer


def untouched_since(then, name, parent):
    """Whether nothing in a folder of logs has changed since."""
    status = os.lstat(name, dir_fd=parent)
    if not stat.S_ISDIR(status.st_mode):
        return status.st_mtime < then
    descriptor = open_own_folder(name, parent)
    try:
        with os.scandir(descriptor) as found:
            return status.st_mtime < then and all(
                os.lstat(entry.name, dir_fd=descriptor).st_mtime < then for entry in found
            )
    finally:
        os.close(descriptor)


ACTIONS = {"submit": submit, "cancel": cancel, "tidy": tidy}


# -- one request, one answer ----------------------------------------------------------------------------------


def answer(data):
    """The answer to one request, whatever it is."""
    try:
        os.umask(0o077)
        config = read_config()
        user = current_user(config)
        if len(data) > REQUEST_LIMIT:
            raise Refused(f"the request is longer than {REQUEST_LIMIT} bytes")
        try:
            request = json.loads(data)
        except (ValueError, RecursionError):
            raise Refused("the request is not JSON") from None
        if not isinstance(request, dict):
            raise Refused("the request is not a JSON object")
        action = request.get("action")
        if not isinstance(action, str) or action not in ACTIONS:
            raise Refused("'action' must be submit, cancel or tidy")
        return {"ok": True, **ACTIONS[action](request, config, user)}
    except Refused as exc:
        return {"ok": False, "source": "request", "error": str(exc)}
    except Failed as exc:
        return {"ok": False, "source": "launcher", "error": str(exc), **exc.details}
    except OSError as exc:
        return {"ok": False, "source": "folder", "error": str(exc)}
    except BaseException as exc:
        return {"ok": False, "source": "launcher", "error": f"{type(exc).__name__}: {exc}"}


def too_long(*_):
    """What SIGALRM does: the gateway can't end a program that runs as another user."""
    raise Failed(f"not done in {TIME} s", temporary=True)


def main():
    """Read a request and write its answer."""
    try:
        os.chdir("/")
        signal.signal(signal.SIGALRM, too_long)
        signal.alarm(TIME)
        data = sys.stdin.buffer.read(REQUEST_LIMIT + 1)
    except BaseException:
        data = b""
    line = json.dumps(answer(data)) + "\n"
    try:
        signal.alarm(0)
        sys.stdout.write(line)
        sys.stdout.flush()
    except BaseException:
        os._exit(1)  # nobody listens any more


if __name__ == "__main__":
    main()
