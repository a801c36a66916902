"""The scripts of the jobs: what runs on the compute nodes."""

import shlex

from .messages import NO_DASK, SETUP_FAILED


def script(*, modules_init, setup, environment, gateway_environment, command, tasks=None):
    """The script of a scheduler or of one or many workers.

    It runs under bash, whatever the user's shell is, with the `module` command defined, so that both `module load …`
    and `source …/activate` work in the setup. The setup is passed to `eval` as one word: an open quote or here
    document in it is an error of the setup and doesn't swallow the lines that follow. What the gateway itself needs
    is set after it, so that no setup can lose it.

    `tasks` are the words of the command that differ between the tasks of a job array: {word: [its values]}.
    """
    lines = ["#!/bin/bash"]
    if modules_init:
        quoted = shlex.quote(modules_init)
        lines.append(f"if [ -r {quoted} ]; then source {quoted}; fi")
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
    program = command[0]
    if program == "dask":
        lines.append('command -v dask >/dev/null || { echo "' + NO_DASK + ' (PATH=$PATH)" >&2; exit 127; }')
    lines.append("exec " + " ".join(f'"${word}"' if word in tasks else shlex.quote(word) for word in command))
    return "\n".join(lines) + "\n"


def _exports(environment):
    return [f"export {name}={shlex.quote(value)}" for name, value in sorted(environment.items())]
