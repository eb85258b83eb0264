"""Alert rules and dashboard: their metrics are served, and each alert fires when it should."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
OPERATIONS = ROOT / "docs" / "operations"
RULES = OPERATIONS / "prometheus-alerts.yaml"
TRIED = Path(__file__).with_name("alerts_test.yaml")
DOCUMENTED = re.compile(r"^\| `(burnish_\w+)` \| (\w+) \|", re.M)
PARTS = ("_bucket", "_count", "_sum")  # series of a histogram
FROM_ELSEWHERE = {"up", "process_resident_memory_bytes"}  # Prometheus', prometheus_client's
METRIC = re.compile(r"\b(burnish_\w+|process_\w+|up)\b(?=[{)\[ ]|$)")


def series_served() -> set[str]:
    """The table of the metrics agrees with the server: tests/app/web/test_metrics.py."""
    table = DOCUMENTED.findall((ROOT / "docs" / "operations.md").read_text("utf-8"))
    histograms = {name + part for name, kind in table if kind == "histogram" for part in PARTS}
    return {name for name, kind in table if kind != "histogram"} | histograms | FROM_ELSEWHERE


def alerts() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load(RULES.read_text("utf-8"))["groups"]
    return list(group["rules"])


def dashboard_expressions() -> Iterator[str]:
    dashboard = json.loads((OPERATIONS / "grafana-dashboard.json").read_text("utf-8"))
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            yield target["expr"]
    yield dashboard["templating"]["list"][1]["query"]["query"].replace(",", " ")


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: str(alert["alert"]))
def test_an_alert_names_metrics_that_are_served(alert: dict[str, Any]) -> None:
    named = set(METRIC.findall(alert["expr"]))
    assert named
    assert named <= series_served()


def test_the_dashboard_names_metrics_that_are_served() -> None:
    expressions = list(dashboard_expressions())
    named = {name for each in expressions for name in METRIC.findall(each)}
    assert all(METRIC.search(each) for each in expressions)
    assert named <= series_served()
    drawn = {re.sub(r"_(bucket|sum|count)$", "", name) for name in named}
    assert {"burnish_first_token_seconds", "burnish_queue_seconds", "burnish_thumbs"} <= drawn


def test_each_alert_is_documented_and_tried() -> None:
    page = (ROOT / "docs" / "operations.md").read_text("utf-8")
    named = {alert["alert"] for alert in alerts()}
    assert set(re.findall(r"^\| `(Burnish\w+)` \|", page, re.M)) == named
    tried = yaml.safe_load(TRIED.read_text("utf-8"))["tests"]
    fired = {t["alertname"] for g in tried for t in g["alert_rule_test"] if t.get("exp_alerts")}
    assert fired == named


def test_promtool_finds_that_each_alert_fires_when_it_should(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("needs promtool: apt-get install prometheus")
    for file in (RULES, TRIED):
        shutil.copy(file, tmp_path)
    done = subprocess.run(
        [promtool, "test", "rules", TRIED.name],
        cwd=tmp_path,
        env={"PATH": os.defpath},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_understands_each_expression_of_the_dashboard(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("needs promtool: apt-get install prometheus")
    variables = {"$__rate_interval": "5m", "$instance": ".*"}
    rules = []
    for number, expression in enumerate(list(dashboard_expressions())[:-1]):
        for name, value in variables.items():
            expression = expression.replace(name, value)
        rules.append({"record": f"panel_{number}", "expr": expression})
    file = tmp_path / "panels.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    done = subprocess.run([promtool, "check", "rules", file], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
