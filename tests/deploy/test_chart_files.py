"""The chart belongs to the code: its version, its settings, and the files that it repeats. No helm is needed."""

import re
import runpy
import tomllib

import pytest

from stream.config import setting_names
from tests.deploy.chart import CHART, GOLDEN, ROOT

COPIES = {
    "recording.yaml": "deploy/prometheus/recording.yaml",
    "alerts.yaml": "deploy/prometheus/alerts.yaml",
    "anabranch.json": "deploy/grafana/dashboards/anabranch.json",
}
"""Files of the chart, which helm packages, and what each is a copy of."""


def test_the_schema_of_the_values_has_every_setting():
    write = runpy.run_path(str(ROOT / "docs/write_configuration.py"))
    assert (CHART / "values.schema.json").read_text() == write["chart_schema"](), "run `make docs`"


def test_the_chart_has_the_version_of_the_project():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    chart = (CHART / "Chart.yaml").read_text()
    assert re.findall(r"^(?:version|appVersion): (.*)$", chart, re.M) == [version, f'"{version}"']


@pytest.mark.parametrize("copy", COPIES)
def test_a_copied_file_is_equal_to_its_original(copy):
    original = ROOT / COPIES[copy]
    assert (CHART / "files" / copy).read_bytes() == original.read_bytes(), f"cp {original} {CHART / 'files'}"


def test_every_variable_that_a_template_sets_is_a_setting():
    names = set(setting_names())
    text = "\n".join(file.read_text() for file in (CHART / "templates").rglob("*.*"))
    variables = set(re.findall(r"ANABRANCH_([A-Z]+__[A-Z_]+)", text))
    assert len(variables) >= 7
    assert {name for name in variables if name.lower().replace("__", ".") not in names} == set()


def test_every_example_has_a_golden_render_and_is_named_in_the_page():
    examples = {file.stem for file in (CHART / "examples").glob("*.yaml")}
    assert examples == {file.stem for file in GOLDEN.glob("*.yaml")}
    page = (ROOT / "docs/deploying.md").read_text()
    assert {name for name in examples if f"{name}.yaml" not in page} == set()
