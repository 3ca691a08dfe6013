"""The dashboard names what the code exposes, and is a document that Grafana can draw.

`test_alerts_e2e.py` asks a real Prometheus every one of its queries.
"""

import itertools
import re

import pytest

from stream.metrics.catalogue import METRICS
from tests.deploy.queries import (
    GRAFANA,
    SERIES,
    dashboard,
    faults,
    panel_expressions,
    panels,
    rule_expressions,
    selectors,
)

EXPRESSIONS = panel_expressions()


@pytest.mark.parametrize(("panel", "expression"), EXPRESSIONS.items(), ids=list(EXPRESSIONS))
def test_a_panel_reads_only_series_that_exist(panel, expression):
    assert faults(expression) == []


@pytest.mark.parametrize("panel", panels(), ids=lambda panel: panel["title"])
def test_a_panel_says_what_it_shows(panel):
    assert len(panel["description"].split()) >= 2
    assert panel["description"].endswith(".")
    assert panel["type"] in {"stat", "timeseries", "heatmap", "state-timeline"}
    for target in panel["targets"]:
        assert target["datasource"] == panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        labels = set(re.findall(r"{{(\w+)}}", target["legendFormat"])) - {"partition", "instance"}
        assert {label for label in labels if not re.search(rf"\b{label}\b", target["expr"])} == set()


def test_every_series_of_a_process_is_of_the_chosen_installation():
    for panel, expression in EXPRESSIONS.items():
        for name, matchers in selectors(expression):
            assert ("installation", "=~", "$installation") in matchers, f"{panel}: {name}"


def test_panels_have_places_and_numbers_of_their_own():
    every = dashboard()["panels"]
    assert len({panel["id"] for panel in every}) == len(every)
    assert len({panel["title"] for panel in panels()}) == len(panels()), "titles name panels"
    places = [panel["gridPos"] for panel in every]
    assert all(p["x"] >= 0 and p["x"] + p["w"] <= 24 for p in places)
    for one, other in itertools.combinations(places, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        above = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or above


def test_the_rows_are_what_an_operator_asks():
    rows = [panel["title"] for panel in dashboard()["panels"] if panel["type"] == "row"]
    assert rows == [
        "Is it well?", "Latency", "Lag", "Quality beside rivals", "Learning", "Resources", "HTTP interface",
    ]  # fmt: skip


def test_every_variable_of_a_query_is_defined():
    defined = {variable["name"] for variable in dashboard()["templating"]["list"]}
    used = {name for text in EXPRESSIONS.values() for name in re.findall(r"\$(\w+)", text)}
    assert used <= defined | {"__rate_interval"}
    assert defined <= used | {"datasource"}


ELSEWHERE = {
    "group_confirmed": "part of anabranch_ready",
    "misplaced_events_total": "a warning of `anabranch status`",
    "trainer_learned_offset": "the other half of anabranch_trainer_unlearned_events",
}
"""Metrics that no panel shows, and why."""


def test_every_metric_is_shown_or_watched():
    texts = [*EXPRESSIONS.values(), *rule_expressions().values()]
    read = {SERIES[name].name for text in texts for name, _ in selectors(text) if name in SERIES}
    assert sorted({metric.name for metric in METRICS} - read - ELSEWHERE.keys()) == []


def test_the_provisioned_source_and_folder_are_those_that_the_dashboard_needs():
    source = (GRAFANA / "provisioning/datasources/anabranch.yaml").read_text()
    assert re.search(r"^    type: prometheus$", source, re.M)
    assert re.search(r"^    url: http://prometheus:9090$", source, re.M)
    provider = (GRAFANA / "provisioning/dashboards/anabranch.yaml").read_text()
    assert re.search(r"^      path: /var/lib/grafana/dashboards$", provider, re.M)
    assert [file.name for file in (GRAFANA / "dashboards").iterdir()] == ["anabranch.json"]
