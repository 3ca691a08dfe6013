"""Prometheus' own tools accept the files, and the rules do in them what their tests say."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.deploy.queries import PROMETHEUS, panel_expressions
from tests.deploy.test_alerts import ALERTS

pytestmark = pytest.mark.ops

TESTS = (PROMETHEUS / "tests.yaml").read_text()
HEAD, _, REST = TESTS.partition("\ntests:\n")
SCENARIOS = re.split(r"\n\n(?=  (?:- name|#))", REST)


def run(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a program of Prometheus; skip where it is not installed."""
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed (Debian: prometheus, prometheus-alertmanager)")
    return subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, timeout=300)


def accepts(program: str, *arguments: object) -> None:
    done = run(program, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_accepts_the_configuration_and_the_rules():
    accepts("promtool", "check", "config", PROMETHEUS / "prometheus.yaml")
    accepts("promtool", "check", "rules", PROMETHEUS / "recording.yaml", PROMETHEUS / "alerts.yaml")


def test_amtool_accepts_the_sample_for_alertmanager():
    accepts("amtool", "check-config", PROMETHEUS / "alertmanager.yaml")


@pytest.mark.parametrize("severity", ["page", "ticket"])
def test_a_page_goes_to_the_pager_and_a_ticket_to_the_chat(severity):
    route = ("amtool", "config", "routes", "test", "--config.file", PROMETHEUS / "alertmanager.yaml")
    receiver = run(*route, "alertname=AnabranchNotReady", f"severity={severity}").stdout.strip()
    assert receiver == {"page": "pager", "ticket": "tickets"}[severity]


def test_every_alert_fires_in_its_fault_and_none_in_a_normal_day():
    accepts("promtool", "test", "rules", PROMETHEUS / "tests.yaml")


@pytest.mark.parametrize("name", sorted({name for name, _ in ALERTS}))
def test_the_tests_of_an_alert_fail_without_it(tmp_path, name):
    """A test that passes whatever the rule says would hold nothing."""
    rules = (PROMETHEUS / "alerts.yaml").read_text()
    for other, text in ALERTS:
        if other == name:
            rules = rules.replace(
                text, re.sub(r"expr: .+?(?=\n +(for|labels):)", "expr: vector(1) > 2", text, flags=re.S)
            )
    (tmp_path / "alerts.yaml").write_text(rules)
    shutil.copy(PROMETHEUS / "recording.yaml", tmp_path)
    of_it = [scenario for scenario in SCENARIOS if re.search(rf'alertname="{name}",', scenario)]
    (tmp_path / "tests.yaml").write_text(f"{HEAD}\ntests:\n" + "\n\n".join(of_it) + "\n")
    assert of_it
    assert run("promtool", "check", "rules", tmp_path / "alerts.yaml").returncode == 0
    assert "FAILED" in (done := run("promtool", "test", "rules", tmp_path / "tests.yaml")).stderr + done.stdout


def test_promtool_can_read_every_query_of_the_dashboard(tmp_path):
    queries = panel_expressions().values()
    known = [re.sub(r"\$(__rate_interval|window)", "5m", query) for query in queries]
    rules = "".join(f"      - {{record: 'panel:{n}:query', expr: '{query}'}}\n" for n, query in enumerate(known))
    (tmp_path / "panels.yaml").write_text(f"groups:\n  - name: panels\n    rules:\n{rules}")
    accepts("promtool", "check", "rules", tmp_path / "panels.yaml")


def test_the_files_are_yaml_with_what_grafana_and_prometheus_read():
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")

    def read(path: Path) -> dict:
        return yaml.safe_load(path.read_text())

    groups = read(PROMETHEUS / "alerts.yaml")["groups"] + read(PROMETHEUS / "recording.yaml")["groups"]
    names = [group["name"] for group in groups]
    assert len(set(names)) == len(names)
    rules = [rule for group in groups for rule in group["rules"]]
    assert sorted(rule["alert"] for rule in rules if "alert" in rule) == sorted(name for name, _ in ALERTS)
    config = read(PROMETHEUS / "prometheus.yaml")
    assert all((PROMETHEUS / file).exists() for file in config["rule_files"])
    grafana = PROMETHEUS.parent / "grafana/provisioning"
    [source] = read(grafana / "datasources/anabranch.yaml")["datasources"]
    assert source["jsonData"]["timeInterval"] == config["global"]["scrape_interval"]
    assert read(grafana / "dashboards/anabranch.yaml")["providers"][0]["options"]["path"].startswith("/var/lib/grafana")
