"""`gateway-admin health-metrics`: findings as a file for Prometheus."""

import io
import json

import pytest
from prometheus_client.parser import text_string_to_metric_families

from slurm_gateway import cli, health_metrics

ANSWER = {
    "state": "critical",
    "code": 2,
    "findings": [
        {"part": "hub", "code": 0, "said": "known", "seconds": 0.2, "state": "ok"},
        {"part": "canary: task", "code": 2, "said": 'no "answer"', "seconds": 60, "state": "critical"},
    ],
}


def metrics(text: str) -> dict:
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.fixture
def written(tmp_path, monkeypatch):
    """``written(answer)``: the metrics in the file after the command has read that answer."""

    def run(answer: str) -> dict:
        monkeypatch.setattr("sys.stdin", io.StringIO(answer))
        with pytest.raises(SystemExit, match="0"):
            cli.main(["health-metrics", str(tmp_path / "health.prom")])
        assert [path.name for path in tmp_path.iterdir()] == ["health.prom"]
        assert (tmp_path / "health.prom").stat().st_mode & 0o777 == 0o644
        return metrics((tmp_path / "health.prom").read_text())

    return run


def test_each_part_has_its_state_and_time(written):
    found = written(json.dumps(ANSWER))
    assert found["dask_gateway_health",] == 2
    assert found["dask_gateway_health_part", "hub"] == 0
    assert found["dask_gateway_health_part", "canary: task"] == 2
    assert found["dask_gateway_health_part_seconds", "hub"] == 0.2


@pytest.mark.parametrize(
    "answer", ["", "Traceback", '{"error": "no"}', '{"code": 0, "findings": [{"part": "hub"}]}', "[]"]
)
def test_an_answer_that_nobody_understands_is_critical_and_says_nothing_of_parts(written, answer):
    written(json.dumps(ANSWER))
    found = written(answer)
    assert found["dask_gateway_health",] == 2
    assert not [key for key in found if key[0] == "dask_gateway_health_part"]


def test_when_it_was_is_told():
    assert (
        metrics(health_metrics.text(json.dumps(ANSWER), 1234.5).decode())["dask_gateway_health_timestamp_seconds",]
        == 1234.5
    )
