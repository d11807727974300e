"""What lies in deploy/ fits the code."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from catchment.api.metrics import METRICS
from catchment.cli.entry import MISUSED
from catchment.pipeline import supervisor, worker

DEPLOY = Path(__file__).parents[2] / "deploy"
RULES = (DEPLOY / "prometheus" / "catchment.rules.yml").read_text()
DASHBOARD: dict[str, Any] = json.loads((DEPLOY / "grafana" / "catchment.json").read_text())
UNIT = (DEPLOY / "systemd" / "catchment.service").read_text()

LABELS = {
    f"{metric.name}{suffix}": set(metric.labels) | ({"le"} if suffix else set())
    for metric in METRICS
    for suffix in (["_bucket", "_count", "_sum"] if metric.kind == "histogram" else [""])
}
COUNTERS = {metric.name for metric in METRICS if metric.kind == "counter"}
ADDED = {"instance", "job"}  # by Prometheus


def alerts() -> dict[str, str]:
    """The expression of each alert."""
    return dict(re.findall(r"^ +- alert: (\w+)\n +expr: (.+)$", RULES, re.MULTILINE))


def panels() -> Iterator[tuple[str, str]]:
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"]


def variables() -> Iterator[tuple[str, str]]:
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["name"], variable["definition"]


EXPRESSIONS = [*alerts().items(), *panels(), *variables()]


@pytest.mark.parametrize(("where", "expression"), EXPRESSIONS, ids=[where for where, _ in EXPRESSIONS])
def test_expressions_use_only_metrics_and_labels_that_exist(where: str, expression: str) -> None:
    selectors = re.findall(r"\b(up|catchment_\w+)(?:\{([^}]*)\})?", expression)
    assert selectors
    for name, matchers in selectors:
        known = {"job", "instance"} if name == "up" else LABELS[name] | ADDED
        assert set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers)) <= known, f"{where}: {name}"
    for name in COUNTERS & {name for name, _ in selectors}:
        assert re.search(rf"(rate|increase)\({name}\b", expression), f"{where}: {name} only grows"


def test_every_alert_says_how_grave_and_what() -> None:
    assert len(alerts()) == RULES.count("- alert: ") == RULES.count("expr: ")
    assert RULES.count("severity: critical") + RULES.count("severity: warning") == len(alerts())
    assert RULES.count("summary: ") == RULES.count("description: ") == len(alerts())


def test_labels_in_sentences_come_from_the_expression() -> None:
    for block in RULES.split("- alert: ")[1:]:
        expression = re.search(r"expr: (.+)", block)
        assert expression is not None
        known = ADDED.union(*(LABELS.get(name, set()) for name in re.findall(r"catchment_\w+", expression[1])))
        assert set(re.findall(r"\$labels\.(\w+)", block)) <= known, block.partition("\n")[0]


def test_the_dashboard_asks_the_data_source_that_is_chosen() -> None:
    names = [variable["name"] for variable in DASHBOARD["templating"]["list"]]
    assert names == ["datasource", "instance", "source", "target"]
    asked = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
    for panel in asked:
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert all(target["datasource"] == panel["datasource"] for target in panel["targets"])
        assert panel["title"]
        assert panel["description"]
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_panels_do_not_lie_on_each_other() -> None:
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in DASHBOARD["panels"])
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24


def test_the_service_outwaits_the_hub_and_does_not_retry_what_is_misconfigured() -> None:
    settings = dict(line.split("=", 1) for line in UNIT.splitlines() if "=" in line and not line.startswith("#"))
    assert int(settings["TimeoutStopSec"]) > supervisor._GRACE_SECONDS > worker._GRACE_SECONDS
    assert int(settings["RestartPreventExitStatus"]) == MISUSED
    assert (settings["Type"], settings["KillMode"], settings["Restart"]) == ("exec", "mixed", "on-failure")
    assert settings["StateDirectoryMode"] == "0700"
