"""What is read of a measurement."""

import json

from bench import report
from bench.parts import (
    BY_HAND,
    FIRST_RESULT,
    FIRST_RESULT_CROWD,
    JOBQUEUE,
    RUNNING,
    SERVICE,
    SERVICE_TOGETHER,
    STOCK,
)
from bench.record import Record

SIZES = {"workers": 16, "clusters": 20, "hold": 20}


def measured(**seconds):
    record = Record()
    for name, values in seconds.items():
        competitor = {"stock": STOCK, "jobqueue": JOBQUEUE, "together": SERVICE_TOGETHER, "hand": BY_HAND}[name]
        for value in values:
            record.add("first-result", FIRST_RESULT, competitor, value)
    return record


def line_with(text, words):
    return next(line for line in text.splitlines() if words in line)


def test_the_table_has_a_row_for_each_competitor_in_the_given_order():
    record = measured(stock=[4.3, 4.1, 9.9], hand=[2.8, 2.9])
    rows = report.table(record, SIZES, [BY_HAND, STOCK]).splitlines()
    assert rows[0] == f"{FIRST_RESULT} [s]"
    assert rows[2].split()[-4:] == ["2.85", "2.80", "2.90", "2"]
    assert rows[3].split()[-4:] == ["4.30", "4.10", "9.90", "3"]


def test_a_run_that_failed_is_told_beside_those_that_did_not():
    record = measured(stock=[4.3])
    record.fail("first-result", FIRST_RESULT, STOCK, "TimeoutError: no\n  answer")
    record.fail("first-result", FIRST_RESULT, SERVICE, "broken")
    record.skip("first-result", FIRST_RESULT, SERVICE_TOGETHER, "not offered")
    table = report.table(record, SIZES)
    assert line_with(table, STOCK).endswith("1 of 2: TimeoutError: no answer")
    assert line_with(table, f"{SERVICE} ").split("  ")[-1] == "0 of 1: broken"
    assert line_with(table, SERVICE_TOGETHER).endswith("not offered")
    assert record.failures() == 2


def test_of_many_clusters_at_once_the_spread_is_shown():
    record = Record()
    for value in range(1, 21):
        record.add("crowd", FIRST_RESULT_CROWD, SERVICE, float(value))
    table = report.table(record, SIZES)
    assert "20 clusters at once" in table
    assert line_with(table, "p50").split()[:2] == ["p50", "p95"]
    assert line_with(table, SERVICE).split()[-4:] == ["10.00", "19.00", "20.00", "20"]


def test_a_goal_is_reached_missed_or_not_measured():
    record = measured(together=[1.0, 1.1, 1.3], jobqueue=[2.5], stock=[3.0])
    text = report.judgement(record, SIZES)
    assert line_with(text, "at most 1.2 s").split()[0] == "reached"
    assert line_with(text, "half of dask-jobqueue").split()[0] == "reached"
    assert line_with(text, "0.3 of the stock").split()[0] == "MISSED"
    assert line_with(text, "without: at most as by hand").strip().startswith("not measured")


def test_a_goal_for_sixteen_workers_says_nothing_of_four():
    record = Record()
    record.add("scale", RUNNING, SERVICE, 0.4)
    words = "the last job runs after"
    assert line_with(report.judgement(record, SIZES), words).split()[0] == "reached"
    assert line_with(report.judgement(record, SIZES | {"workers": 4}), words).strip().startswith("not measured")


def test_the_file_keeps_every_single_value_and_what_failed(tmp_path):
    record = measured(stock=[4.3, 4.1, 4.2])
    record.fail("first-result", FIRST_RESULT, STOCK, "why")
    path = tmp_path / "new" / "bench.json"
    report.write(path, report.document(record, {"date": "today", "plan": SIZES}))
    content = json.loads(path.read_text())
    assert content["date"] == "today"
    (series,) = content["series"]
    assert series["values"] == [4.3, 4.1, 4.2]
    assert series["failures"] == ["why"]
    assert series["figures"]["median"] == 4.2
    assert list(path.parent.iterdir()) == [path]
