"""What is timed, and that wrong work is no measurement."""

import multiprocessing
from types import SimpleNamespace

import pytest
from bench.competitors import timing
from bench.competitors.base import Competitor


class Client:
    """A connected client; its cluster calculates, more or less."""

    def __init__(self, result):
        self.answer = result

    def submit(self, function, *arguments, pure):
        def result(timeout):
            if isinstance(self.answer, Exception):
                raise self.answer
            return self.answer

        return SimpleNamespace(result=result, status="pending")

    def close(self):
        pass


class Fake(Competitor):
    """A competitor that notes what it is asked for."""

    def __init__(self, result=3**20, error=None):
        super().__init__({})
        self.result, self.error, self.asked = result, error, []

    def create(self, workers):
        if self.error:
            raise self.error
        self.asked.append(("create", workers))

    def connect(self):
        self.client = Client(self.result)

    def scale(self, workers):
        self.asked.append(("scale", workers))


def test_a_worker_is_asked_for_together_with_the_scheduler_or_after_it():
    after, together = Fake(), Fake()
    assert timing.first_result(after, together=False, timeout=1) >= 0
    assert timing.first_result(together, together=True, timeout=1) >= 0
    assert after.asked == [("create", 0), ("scale", 1)]
    assert together.asked == [("create", 1)]


def test_a_wrong_result_is_no_measurement():
    with pytest.raises(timing.WrongResultError, match="is not 7"):
        timing.first_result(Fake(result=7), together=False, timeout=1)


def test_a_result_that_does_not_come_is_told():
    with pytest.raises(TimeoutError, match="no result in 5 s, the task is pending"):
        timing.first_result(Fake(result=TimeoutError()), together=False, timeout=5)


def test_only_registrations_are_taken_from_the_schedulers_events():
    events = (
        (1.5, {"action": "add-worker", "worker": "tls://a:1"}),
        (1.7, {"action": "remove-worker", "worker": "tls://a:1"}),
        (2.5, {"action": "add-worker", "worker": "tls://b:1"}),
    )
    assert timing.registrations(events) == [("tls://a:1", 1.5), ("tls://b:1", 2.5)]


def test_a_cluster_counts_as_closed_when_the_queue_is_empty(monkeypatch):
    answers = [["1", "2"], ["2"], []]
    monkeypatch.setattr(timing, "queued", lambda: answers.pop(0))
    assert timing.closed(Fake(), timeout=10) >= 0.1
    assert answers == []


def test_jobs_that_stay_are_told(monkeypatch):
    monkeypatch.setattr(timing, "queued", lambda: ["17"])
    with pytest.raises(TimeoutError, match="17"):
        timing.closed(Fake(), timeout=0.1)


@pytest.mark.parametrize("fails", ["when it is made", "when it is created"])
def test_of_clusters_at_once_each_answers_and_a_failure_hides_none(fails):
    made = multiprocessing.get_context("fork").Value("i", 0)

    def make():
        with made:
            made.value += 1
            number = made.value
        error = RuntimeError("full") if number == 2 else None
        if error and fails == "when it is made":
            raise error
        return Fake(error=error)

    answers = timing.crowd(make, 3, together=True, timeout=20)
    assert [answer["error"] for answer in answers if "error" in answer] == ["RuntimeError: full"]
    assert len([answer for answer in answers if answer.get("seconds", -1) >= 0]) == 2
