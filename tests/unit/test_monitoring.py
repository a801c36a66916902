"""Alerts lead to the runbook, and alerts and dashboard ask for metrics that there are."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from prometheus_client import REGISTRY, CollectorRegistry

from notebook_service.metrics import DatabaseSize

REPOSITORY = Path(__file__).parents[2]
ROLE = REPOSITORY / "roles/monitoring"
RUNBOOK = (REPOSITORY / "docs/runbook.md").read_text()
# Prometheus' own, blackbox exporter's, JupyterHub's
OTHERS = {"ALERTS", "up", "probe_success", "probe_ssl_earliest_cert_expiry", "jupyterhub_running_servers"}


def rules() -> list[dict]:
    """The alerts as the role writes them where nothing is set."""
    loader = DataLoader()
    variables = loader.load_from_file(str(ROLE / "defaults/main.yml"), trusted_as_template=True)
    text = Templar(loader, variables | {"ansible_managed": ""}).template(
        trust_as_template((ROLE / "templates/alerts.yml.j2").read_text())
    )
    return yaml.safe_load(text)["groups"][0]["rules"]


def configuration(**values) -> dict:
    """Prometheus' configuration as the role writes it."""
    loader = DataLoader()
    variables = {"ansible_managed": "", "site_gateway_host": "gateway.site.test", "site_notebook_host": "hub.site.test"}
    for file in ("defaults/main.yml", "vars/main.yml", "vars/debian.yml"):
        variables |= loader.load_from_file(str(ROLE / file), trusted_as_template=True)
    template = trust_as_template((ROLE / "templates/prometheus.yml.j2").read_text())
    return yaml.safe_load(Templar(loader, variables | values).template(template))


def test_alerts_go_where_the_site_wants_them_and_nowhere_by_default():
    assert "alerting" not in configuration()
    there = configuration(monitoring_alertmanagers=["alerts.site.test:9093"])["alerting"]["alertmanagers"]
    assert there == [{"static_configs": [{"targets": ["alerts.site.test:9093"]}]}]


def expressions() -> list[str]:
    dashboard = json.loads((ROLE / "files/dashboard.json").read_text())
    panels = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    return [rule["expr"] for rule in rules()] + panels


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_every_alert_has_its_entry_in_the_runbook(rule):
    address, _, anchor = rule["annotations"]["runbook_url"].partition("#")
    assert address == "docs/runbook.md"
    assert anchor == rule["alert"].lower()
    entry = re.search(rf"^## {rule['alert']}\n\n\*\*(\w+)\.\*\* (?=\S)", RUNBOOK, re.MULTILINE)
    assert entry, "write an entry with its heading and its severity"
    assert entry[1] == rule["labels"]["severity"]


def test_the_runbook_has_no_entry_for_an_alert_that_is_gone():
    assert set(re.findall(r"^## (\w+)$", RUNBOOK, re.MULTILINE)) == {rule["alert"] for rule in rules()}


@pytest.mark.parametrize("expression", expressions())
def test_alerts_and_dashboard_ask_for_metrics_that_there_are(expression, tmp_path):
    from slurm_gateway import health_metrics, metrics  # noqa: F401  its metrics are in the registry

    known = {name for family in REGISTRY.collect() for name in names(family)} | OTHERS
    known |= set(re.findall(r"^# TYPE (\w+)", health_metrics.text("", 0).decode(), re.MULTILINE))
    known |= {family.name for family in DatabaseSize(tmp_path / "x").collect()}
    without_values = re.sub(r'"[^"]*"', "", expression)
    asked = re.findall(r"\b(?:ALERTS|up|(?:probe|dask_gateway|accounts|jupyterhub)_\w+)\b", without_values)
    assert asked, "an expression without a metric"
    assert set(asked) - known == set()


def names(family) -> set[str]:
    endings = {"counter": ["_total"], "histogram": ["_bucket", "_count", "_sum"]}.get(family.type, [""])
    return {family.name + ending for ending in endings}


def test_the_size_of_the_hubs_database_is_that_of_its_file_and_missing_without_one(tmp_path):
    registry = CollectorRegistry()
    path = tmp_path / "jupyterhub.sqlite"
    registry.register(DatabaseSize(path))
    assert registry.get_sample_value("jupyterhub_database_bytes") is None
    path.write_bytes(b"x" * 4096)
    assert registry.get_sample_value("jupyterhub_database_bytes") == 4096
