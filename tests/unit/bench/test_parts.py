"""The order of runs, what becomes of a failed one, and the programs that carry them out."""

import subprocess
import sys
import tempfile
from contextlib import contextmanager

import pytest
from bench import __main__ as command
from bench import hosts, parts
from bench.drivers import Driver, DriverError
from bench.parts import (
    BY_HAND,
    FIRST_RESULT,
    FIRST_RESULT_CROWD,
    FIRST_RESULT_HELD,
    SERVICE,
    SERVICE_TOGETHER,
    SHUTDOWN,
)


class Program:
    """A driver whose answers are prepared; an exception among them is raised."""

    def __init__(self, answers):
        self.answers = answers

    def ask(self, what, **more):
        answer = self.answers.get(what)
        answer = answer.pop(0) if isinstance(answer, list) else answer
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def bench(monkeypatch):
    """``bench(answers, **plan)``: the parts with such drivers; ``bench.cleaned`` counts how often was cleaned up."""

    def make(answers, **plan):
        @contextmanager
        def driver(name, settings, patience=0):
            yield Program(answers[name])

        monkeypatch.setattr(parts, "driver", driver)
        monkeypatch.setattr(hosts, "wait_for_empty_queue", lambda timeout=90: None)
        monkeypatch.setattr(hosts, "cancel_all", lambda: None)
        made = parts.Bench(
            parts.Plan(settle=0, apart=0, **plan),
            {},
            [c for c in parts.COMPETITORS if c.driver in answers],
            say=lambda text: None,
        )
        made.cleaned = 0

        def clean():
            made.cleaned += 1

        monkeypatch.setattr(made, "clean", clean)
        return made

    return make


def values(bench, quantity, competitor):
    return next(
        (one["values"], one["failures"])
        for one in bench.record.series()
        if (one["quantity"], one["competitor"]) == (quantity, competitor)
    )


def test_a_failed_run_is_kept_cleaned_up_after_and_the_others_go_on(bench):
    made = bench(
        {"jobqueue": {"first-result": [2.5, DriverError("no answer"), 2.6], "close": 1.0}},
        runs=3,
    )
    made.first_result()
    assert values(made, FIRST_RESULT, parts.JOBQUEUE) == ([2.5, 2.6], ["no answer"])
    assert values(made, SHUTDOWN, parts.JOBQUEUE) == ([1.0, 1.0], [])
    assert made.cleaned == 1


def test_a_queue_that_does_not_empty_is_a_failed_run(bench, monkeypatch):
    made = bench({"jobqueue": {"first-result": 2.5, "close": 1.0}}, runs=1)

    def never(timeout=90):
        raise AssertionError("job 7 is left")

    monkeypatch.setattr(hosts, "wait_for_empty_queue", never)
    made.first_result()
    assert values(made, FIRST_RESULT, parts.JOBQUEUE) == ([], ["job 7 is left"])


@pytest.mark.parametrize("offered", [True, False])
def test_workers_together_are_measured_where_they_are_offered(bench, offered):
    made = bench({"service": {"can-submit-together": offered, "first-result": 2.0, "close": 1.0}}, runs=2)
    made.first_result()
    assert values(made, FIRST_RESULT, SERVICE) == ([2.0, 2.0], [])
    assert values(made, FIRST_RESULT, SERVICE_TOGETHER) == ([2.0, 2.0] if offered else [], [])
    skipped = [one["skipped"] for one in made.record.series() if "skipped" in one]
    assert skipped == ([] if offered else ["not offered"])


def test_of_clusters_at_once_those_that_failed_are_counted(bench):
    answers = [{"seconds": 3.0}, {"error": "refused"}, {"seconds": 4.0}]
    made = bench({"jobqueue": {"crowd": answers and [answers]}}, crowds=1)
    made.crowd()
    assert values(made, FIRST_RESULT_CROWD, parts.JOBQUEUE) == ([3.0, 4.0], ["refused"])
    assert made.cleaned == 1


def test_held_clusters_side_by_side_lose_no_value(bench):
    made = bench({"by-hand": {"can-submit-together": False, "first-result": [22.0, DriverError("late"), 23.0]}}, runs=3)
    made.held()
    kept, failed = values(made, FIRST_RESULT_HELD, BY_HAND)
    assert sorted(kept) == [22.0, 23.0]
    assert failed == ["late"]


def test_parts_are_chosen_and_come_in_their_own_order():
    assert command.arguments([]).parts == list(parts.PARTS)
    assert command.arguments(["scale", "first-result"]).parts == ["first-result", "scale"]
    assert command.arguments(["--runs", "7"]).crowds == 2
    assert command.arguments(["--runs", "1"]).crowds == 1
    assert command.arguments(["--only", "stock"]).only == ["stock"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["speed"], "there is no part 'speed'; the parts are first-result"),
        (["--runs", "0"], "at least 1, not 0"),
        (["--workers", "x"], "'x' is not a whole number"),
    ],
)
def test_a_wrong_word_on_the_command_line_is_told(words, sentence, capsys):
    with pytest.raises(SystemExit):
        command.arguments(words)
    assert sentence in capsys.readouterr().err


@pytest.fixture
def program():
    """``program(code)``: a driver that runs that code instead."""
    processes = []

    def start(code, timeout=20):
        errors = tempfile.TemporaryFile("w+")  # noqa: SIM115
        call = [sys.executable, "-c", code]
        processes.append(subprocess.Popen(call, stdin=-1, stdout=-1, stderr=errors, text=True))
        return Driver(processes[-1], errors, timeout)

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def test_a_driver_answers(program):
    echo = program("import sys\nfor line in sys.stdin: print('{\"answer\": 4.5}', flush=True)")
    assert echo.ask("first-result") == 4.5


def test_a_driver_that_reports_an_error_is_a_failed_run(program):
    with pytest.raises(DriverError, match="ValueError: wrong"):
        program('input(); print(\'{"error": "ValueError: wrong"}\')').ask("scale")


def test_a_driver_that_dies_tells_its_last_words(program):
    with pytest.raises(DriverError, match=r"the program ended.*no space left"):
        program("import sys; sys.exit('no space left')").ask("scale")


def test_a_driver_that_hangs_is_given_up(program):
    with pytest.raises(DriverError, match=r"no answer in 0\.2 s"):
        program("import time; time.sleep(60)", timeout=0.2).ask("scale")
