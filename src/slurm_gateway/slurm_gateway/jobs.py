"""The scripts of the jobs: what runs on the compute nodes."""

import shlex

from .gateway_preload import MISFIT_CODE
from .messages import NO_DASK, SETUP_FAILED

# A virtual environment over another one has the packages of that, and not its commands. If `dask` on the path is not
# beside `python`, it is that Python's dask that is meant, without the job's folder among what it imports from.
NO_FOLDER = "import sys; sys.path[:] = filter(None, sys.path)"
HAS_DASK = f"{NO_FOLDER}; import importlib.util; sys.exit(not importlib.util.find_spec('dask'))"
DASK = f"{NO_FOLDER}; sys.argv[0] = 'dask'; from dask.__main__ import main; main()"
# The first line of a command that Python's and conda's installers make, when the path of its Python is not too long
INTERPRETER = r"^'#!'(/[^[:space:]]*/python[0-9.]*)$"


def script(
    *,
    modules_init,
    setup,
    environment,
    gateway_environment,
    command,
    program=None,
    instead=("dask",),
    tasks=None,
    check="",
):
    """The script of a scheduler or of one or many workers.

    It runs under bash, whatever the user's shell is, as a login shell, so that what the site and the user have set in
    their profiles is set here; and with the `module` command defined, so that both `module load …` and
    `source …/activate` work in the setup. The setup is passed to `eval` as one word: an open quote or here
    document in it is an error of the setup and doesn't swallow the lines that follow. What the gateway itself needs
    is set after it, so that no setup can lose it.

    `program` are a Python program and its first arguments, for the Python that the environment's `dask` command has;
    `instead` are the words to begin with where that is not a plain Python, but a container, say. Without a program the
    command is one for itself.

    `check` is a program of Python that ends with MISFIT_CODE where `dask` must not be started.

    `tasks` are the words of the command that differ between the tasks of a job array: {word: [its values]}.
    """
    lines = ["#!/bin/bash -l"]
    if modules_init:
        quoted = shlex.quote(modules_init)
        lines.append(f"if ! command -v module >/dev/null && [ -r {quoted} ]; then source {quoted}; fi")
    lines += _exports(environment)
    if setup.strip():
        lines += [
            f"eval -- {shlex.quote(setup)}",
            f'code=$?; [ "$code" = 0 ] || echo "{SETUP_FAILED} (code $code)" >&2',
        ]
    lines += _exports(gateway_environment)
    tasks = tasks or {}
    for word, values in tasks.items():
        lines += [
            f"{word}s=({' '.join(shlex.quote(value) for value in values)})",
            f"{word}=${{{word}s[${{SLURM_ARRAY_TASK_ID:-0}}]}}",
        ]
    if program is None:
        words, instead = command[1:], command[:1]
    else:
        words = command
    words = " ".join(f'"${word}"' if word in tasks else shlex.quote(word) for word in words)
    if instead[0] == "dask":
        lines += [
            "python=$(command -v python) dask=$(command -v dask)",
            "start=(dask) beside=${dask%/*}/python interpreter=",
            f'if [ -n "$python" ] && [ "$python" != "$beside" ] && python -c {shlex.quote(HAS_DASK)}; then',
            f"  start=(python -c {shlex.quote(DASK)}) beside=$python interpreter=$python",
            'elif [ -z "$dask" ]; then echo "' + NO_DASK + ' (PATH=$PATH)" >&2; exit 127; fi',
        ]
        if program is not None:
            lines += [
                'IFS= read -r line 2>/dev/null <"$dask"',
                f"[[ -z $interpreter && $line =~ {INTERPRETER} ]] && interpreter=${{BASH_REMATCH[1]}}",
                f'if [ -n "$interpreter" ]; then start=("$interpreter" {_words(program)}); else',
            ]
        if check:
            lines.append(
                f'if [ -x "$beside" ]; then "$beside" {shlex.quote(check)}; [ $? != {MISFIT_CODE} ] || exit 1; fi'
            )
        if program is not None:
            lines.append(f"start+=({_words(instead[1:])}); fi")
        lines.append(f'exec "${{start[@]}}" {words}')
    else:
        lines.append(f"exec {_words(instead)} {words}")
    return "\n".join(lines) + "\n"


def _words(words):
    return " ".join(shlex.quote(word) for word in words)


def _exports(environment):
    return [f"export {name}={shlex.quote(value)}" for name, value in sorted(environment.items())]
