"""Rules name what the code exposes, every alert leads to a runbook, and each has a test.

`test_prometheus.py` runs the rules in Prometheus' own test tool, `test_alerts_e2e.py` in a real Prometheus.
"""

import re

import pytest

from tests.deploy.queries import PROMETHEUS, RECORDED, ROOT, SERIES, faults, rule_expressions
from tests.test_docs import anchors

ALERTS = re.findall(r"      - alert: (\w+)\n(.*?)(?=\n\n|\Z)", (PROMETHEUS / "alerts.yaml").read_text(), re.S)
NAMES = sorted({name for name, _ in ALERTS})
RUNBOOKS = ROOT / "docs/faults.md"


@pytest.mark.parametrize(("rule", "expression"), rule_expressions().items(), ids=list(rule_expressions()))
def test_a_rule_reads_only_series_that_exist(rule, expression):
    assert faults(expression) == []


def test_a_wrong_name_label_or_value_is_found():
    assert faults("sum(anabranch_clicks_total)") == ["no process exposes anabranch_clicks_total"]
    assert faults('rate(anabranch_events_total{result="lost"}[5m])') == ["anabranch_events_total has no label result"]
    assert faults('anabranch_events_total{outcome=~"lost|gone"}') == ["anabranch_events_total has no outcome 'gone'"]
    assert faults('rate(anabranch_recommendation_latency_seconds_bucket{le="1"}[5m])') != []
    assert faults("anabranch_recommendation_latency_seconds > 1") != []  # a histogram has no series of its own name
    assert faults("installation:anabranch_unknown:max == 1") != []
    assert faults('max by (partition) (anabranch_partition_phase{phase="answering"}) unless up == 0') == []


def test_every_recorded_series_is_used():
    used = " ".join(rule_expressions().values()) + (ROOT / "deploy/grafana/dashboards/anabranch.json").read_text()
    assert [name for name in sorted(RECORDED) if used.count(name) == 0] == []


def test_the_list_of_alerts_is_complete():
    assert len(ALERTS) == len(re.findall(r"\balert: ", (PROMETHEUS / "alerts.yaml").read_text()))
    for symptom in (
        "RecommendationsLate", "NoRecommendations", "FallingBehind", "EventsLost", "DeadLetters", "PartitionNotOwned",
        "NotReady", "ModelStale", "LearningFails", "QualityBelowPopularity", "CheckpointStale", "DiskFullSoon",
        "ForgetPending", "MemberGone",
    ):  # fmt: skip
        assert f"Anabranch{symptom}" in NAMES


@pytest.mark.parametrize(("name", "text"), ALERTS, ids=[name for name, _ in ALERTS])
def test_an_alert_says_how_urgent_it_is_what_to_do_and_where_to_read_on(name, text):
    assert re.search(r"^ {8}labels: \{severity: (page|ticket)\}$", text, re.M)
    assert re.search(r"^ {10}summary: \w.{10,70}$", text, re.M)
    description = " ".join(re.findall(r"description: >-\n(.*?)\n +runbook_url", text, re.S)[0].split())
    assert 80 < len(description) < 400
    assert description.endswith(".")
    [anchor] = re.findall(r"runbook_url: \S+/docs/faults\.md#(\w+)$", text, re.M)
    assert anchor == name.lower()


def test_every_alert_has_a_runbook_and_every_runbook_an_alert():
    text = RUNBOOKS.read_text().partition("\n## Alerts\n")[2].partition("\n## ")[0]
    runbooks = re.findall(r"^### (\w+)\n\n(.+?)(?=\n\n###|\Z)", text, re.M | re.S)
    assert sorted(name for name, _ in runbooks) == NAMES
    assert {name.lower() for name in NAMES} <= anchors(RUNBOOKS)
    assert [name for name, what in runbooks if len(what.split()) < 25] == []


@pytest.mark.parametrize("name", NAMES)
def test_every_alert_has_a_test_in_which_it_fires(name):
    tests = (PROMETHEUS / "tests.yaml").read_text()
    assert re.search(rf'labels: .{{alertname="{name}", [^}}]*severity="\w+"', tests)


def test_the_tests_of_alerts_use_series_that_exist():
    series = re.findall(r"series: '([^']+)'", (PROMETHEUS / "tests.yaml").read_text())
    assert len(series) > 50
    assert [(one, found) for one in series if (found := faults(one))] == []
    assert not [one for one in series if one.split("{")[0] not in SERIES and not one.startswith("up{")]


@pytest.mark.parametrize(
    ("page", "job"), [("worker", "worker:8081"), ("trainer", "trainer:8082"), ("serve", "serve:8080")]
)
def test_every_kind_of_process_is_scraped_at_its_port(page, job):
    scrape = (PROMETHEUS / "prometheus.yaml").read_text()
    assert re.search(
        rf'job_name: anabranch-{page} .*\n +static_configs:\n +- targets: \["{job}"\]\n +labels: {{installation: ',
        scrape,
    )


def test_what_keeps_an_alert_quiet_is_an_alert():
    sample = (PROMETHEUS / "alertmanager.yaml").read_text()
    named = {name for text in re.findall(r'alertname =~? "([^"]+)"', sample) for name in text.split("|")}
    assert len(named) > 5
    assert named <= set(NAMES)
