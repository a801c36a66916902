"""The scripts of the jobs: what runs on the compute nodes."""

import shlex

from .messages import NO_DASK, SETUP_FAILED


def script(*, modules_init, setup, environment, gateway_environment, command, names=()):
    """The script of a scheduler or of one or many workers.

    It runs under bash, whatever the user's shell is, with the `module` command defined, so that both `module load …`
    and `source …/activate` work in the setup. The setup is passed to `eval` as one word: an open quote or here
    document in it is an error of the setup and doesn't swallow the lines that follow. What the gateway itself needs
    is set after it, so that no setup can lose it.

    `names` are the workers of a job array, one for each task; "$worker_name" in the command is the task's own.
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
    if names:
        lines.append(f"worker_names=({' '.join(shlex.quote(name) for name in names)})")
        lines.append("worker_name=${worker_names[${SLURM_ARRAY_TASK_ID:-0}]}")
    program = command[0]
    if program == "dask":
        lines.append('command -v dask >/dev/null || { echo "' + NO_DASK + ' (PATH=$PATH)" >&2; exit 127; }')
    lines.append("exec " + " ".join(word if word == '"$worker_name"' else shlex.quote(word) for word in command))
    return "\n".join(lines) + "\n"


def _exports(environment):
    return [f"export {name}={shlex.quote(value)}" for name, value in sorted(environment.items())]
