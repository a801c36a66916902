"""A service that users must hold for the notebook service, asked of a command."""

import asyncio
import logging
import sys

import pytest

from notebook_service import required_service
from notebook_service.required_service import NO_ANSWER, refusal

LOG = logging.getLogger("test")
PRINT = "import json, sys; print(json.dumps({!r})); sys.exit({})"


def ask(program, username="alice"):
    command = [sys.executable, "-c", program] if program else []
    return asyncio.run(refusal(command, username, "sign in", LOG))


def test_without_a_command_nothing_is_required():
    assert ask("") == ""


def test_who_holds_the_service_is_let_in():
    assert ask(PRINT.format({"decision": "allowed", "message": ""}, 0)) == ""


@pytest.mark.parametrize("decision", ["refused", "unknown"])
def test_everybody_else_reads_the_sentence_of_the_check(decision):
    assert ask(PRINT.format({"decision": decision, "message": "Apply there."}, 1)) == "Apply there."


@pytest.mark.parametrize(
    "program",
    [
        "raise RuntimeError",
        "print('no JSON')",
        PRINT.format(["allowed"], 0),
        PRINT.format({"decision": "allowed"}, 0),
        PRINT.format({"decision": "allowed", "message": ""}, 1),
        "import os; os.kill(os.getpid(), 9)",
    ],
)
def test_a_command_that_fails_lets_nobody_in(program):
    assert ask(program) == NO_ANSWER


def test_a_command_that_is_not_there_lets_nobody_in():
    assert asyncio.run(refusal(["/no/such/command"], "alice", "sign in", LOG)) == NO_ANSWER


def test_a_command_that_hangs_lets_nobody_in(monkeypatch):
    monkeypatch.setattr(required_service, "TIMEOUT", 0.2)
    assert ask("import time; time.sleep(60)") == NO_ANSWER


@pytest.mark.parametrize("name", ["--config=/tmp/mine", "-h", "a b", "$(id)"])
def test_a_name_is_one_argument_and_never_an_option(name):
    shown = "import json, sys; print(json.dumps({'decision': 'refused', 'message': repr(sys.argv[1:])}))"
    assert ask(shown, name) == repr(["--action=sign in", "--", name])


def test_a_name_that_is_no_argument_lets_nobody_in():
    assert ask(PRINT.format({"decision": "allowed", "message": ""}, 0), "alice\0") == NO_ANSWER
