"""What PromQL queries name: metrics, labels and their values, held against the metrics that the code exposes."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stream.metrics.catalogue import METRICS, Metric

ROOT = Path(__file__).parent.parent.parent
PROMETHEUS, GRAFANA = ROOT / "deploy/prometheus", ROOT / "deploy/grafana"

OF_TARGETS = {"job", "instance", "installation"}
"""Labels that the scrape adds."""
OF_OTHERS = {"up": set(), "ALERTS": {"alertname", "alertstate", "severity"}, "ALERTS_FOR_STATE": {"alertname"}} | {
    name: set() for name in ("process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds")
}
"""Series of Prometheus itself and of its client, and the labels of each."""
SUFFIXES = {"histogram": ("_bucket", "_count", "_sum"), "counter": ("",), "gauge": ("",)}
SERIES: dict[str, Metric] = {
    metric.full_name + suffix: metric for metric in METRICS for suffix in SUFFIXES[metric.type]
}
"""Every series that a process exposes, by its name."""
RECORDED = set(re.findall(r"record: (\S+)", (PROMETHEUS / "recording.yaml").read_text()))

NAME = r"[a-zA-Z_:][\w:]*"
WORDS = {"by", "without", "on", "ignoring", "group_left", "group_right", "and", "or", "unless", "offset", "bool"}


def rule_expressions() -> dict[str, str]:
    """The expression of each rule, by the name of the alert or of what it records, and its number in the file."""
    found = {}
    for file in ("recording.yaml", "alerts.yaml"):
        rules = re.findall(
            r"- (?:alert|record): (\S+)\n +expr: (?:>-\n)?(.+?)(?=\n +(?:for|keep_firing_for|labels):|\n\n|\Z)",
            (PROMETHEUS / file).read_text(),
            re.S,
        )
        found |= {f"{name} {number}": " ".join(text.split()) for number, (name, text) in enumerate(rules)}
    return found


def dashboard() -> dict[str, Any]:
    """The dashboard as Grafana reads it."""
    read: dict[str, Any] = json.loads((GRAFANA / "dashboards/anabranch.json").read_text())
    return read


def panels() -> list[dict[str, Any]]:
    """Every panel of the dashboard that shows data."""
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def panel_expressions() -> dict[str, str]:
    """Every query of the dashboard, by its panel's title and its letter."""
    queries = {f"{p['title']} {target['refId']}": target["expr"] for p in panels() for target in p["targets"]}
    return queries | {f"annotation {a['name']}": a["expr"] for a in dashboard()["annotations"]["list"]}


def selectors(expression: str) -> Iterator[tuple[str, list[tuple[str, str, str]]]]:
    """The series that an expression reads, each with its matchers: label, operator, value."""
    without_text = re.sub(r"\b(?:by|without|on|ignoring|group_left|group_right) ?\([\w, ]*\)", " ", expression)
    matchers = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')
    for name, inner in re.findall(
        rf"(?<![\w:.$\"])({NAME})(?![\w:])(?!\s*\()(?:\{{([^}}]*)\}})?", outside_of_quotes(without_text)
    ):
        if name not in WORDS and re.search(r"[a-z]{2}", name):
            yield name, [(m[1], m[2], unquote(m[3])) for m in matchers.finditer(inner)]


def outside_of_quotes(expression: str) -> str:
    """The expression with braces in quoted text replaced, so that they end no selector."""
    return re.sub(r'"[^"]*"', lambda m: m[0].replace("{", "\x01").replace("}", "\x02"), expression)


def unquote(text: str) -> str:
    return text.replace("\x01", "{").replace("\x02", "}")


def faults(expression: str) -> list[str]:
    """What an expression names that does not exist."""
    found = []
    for name, matchers in selectors(expression):
        if name in RECORDED:
            labels = {*name.partition(":")[0].split("_"), "installation"}
            values: dict[str, tuple[str, ...]] = {}
        elif name in SERIES:
            metric = SERIES[name]
            labels, values = {*metric.labels, *OF_TARGETS}, dict(metric.labels)
            if name.endswith("_bucket"):
                labels.add("le")
                values["le"] = tuple(map(str, metric.buckets))
        elif name in OF_OTHERS:
            labels, values = OF_OTHERS[name] | OF_TARGETS, {}
        else:
            found.append(f"no process exposes {name}")
            continue
        for label, operator, value in matchers:
            if label not in labels:
                found.append(f"{name} has no label {label}")
            known = values.get(label, ())
            named = value.split("|") if "~" in operator else [value]
            if known and not value.startswith("$"):
                found += [f"{name} has no {label} {part!r}" for part in named if part not in known]
    return found
