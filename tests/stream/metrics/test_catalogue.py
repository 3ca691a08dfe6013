"""Names follow the conventions of Prometheus, labels have few values, and what is exposed is in the list."""

import re
import shutil
import subprocess

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from stream.metrics.catalogue import BY_NAME, METRICS
from stream.metrics.instruments import HttpInstruments, TrainerInstruments, WorkerInstruments
from stream.metrics.samples import Samples, make_registry

OF_FEW_VALUES = {"partition", "version", "route", "code"}
"""Labels whose values are not in the list: there are as many as partitions, versions in use, and routes."""
UNITS = ("_seconds", "_bytes", "_ratio", "_timestamp_seconds")
NOT_BASE_UNITS = re.compile(r"_(ms|milliseconds|minutes|hours|kb|mb|percent|count|sum|bucket)(_|$)")


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_a_name_has_its_type_and_unit(metric):
    assert re.fullmatch(r"anabranch_[a-z][a-z0-9_]*[a-z0-9]", metric.full_name)
    assert metric.name.endswith("_total") == (metric.type == "counter")
    assert not NOT_BASE_UNITS.search(metric.name.removesuffix("_total"))
    assert metric.name.endswith("_info") or "version" not in metric.labels, "a version in a name of its own"
    assert bool(metric.buckets) == (metric.type == "histogram")
    assert list(metric.buckets) == sorted(set(metric.buckets))
    if metric.type == "histogram":
        assert metric.name.endswith(UNITS)


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_every_label_has_few_values(metric):
    for label, values in metric.labels.items():
        assert values or label in OF_FEW_VALUES
        assert all(re.fullmatch(r"[a-z_]+", value) for value in values)
        assert label not in ("le", "quantile", "instance", "job"), "Prometheus sets it"


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_a_metric_says_what_it_means_and_what_is_normal(metric):
    assert metric.meaning.endswith(".")
    assert metric.meaning.count("\n") == 0
    assert metric.normal
    assert "|" not in metric.meaning + metric.normal


def test_no_name_comes_twice():
    assert len(BY_NAME) == len(METRICS)


def full_page(kind: str, instruments) -> bytes:
    """A page with a series for each metric of a process."""

    def look(samples: Samples) -> None:
        for metric in METRICS:
            if kind in metric.of and metric.type == "gauge" and metric.name != "build_info":
                samples.add(metric.name, 1, *(next(iter(values), "1") for values in metric.labels.values()))

    return generate_latest(make_registry(kind, look, instruments))


PAGES = {"worker": WorkerInstruments, "trainer": TrainerInstruments, "serve": HttpInstruments}


@pytest.mark.parametrize("kind", PAGES)
def test_a_page_has_each_type_help_and_name_of_the_list(kind):
    for family in text_string_to_metric_families(full_page(kind, PAGES[kind]()).decode()):
        if family.name.startswith("anabranch_"):
            known = BY_NAME[(family.name + "_total" * (family.type == "counter")).removeprefix("anabranch_")]
            assert (family.type, family.documentation) == (known.type, known.meaning)
            assert kind in known.of
            labels = {name for sample in family.samples for name in sample.labels} - {"le"}
            assert labels <= set(known.labels)


def test_what_is_not_in_the_list_cannot_be_exposed():
    samples = Samples("worker")
    with pytest.raises(KeyError):
        samples.add("users", 1)
    with pytest.raises(ValueError):
        samples.add("partition_lag_events", 1)
    with pytest.raises(ValueError):
        samples.add("trainer_learning", 1)


@pytest.mark.ops
@pytest.mark.parametrize("kind", PAGES)
def test_promtool_finds_nothing_in_a_page(kind):
    if shutil.which("promtool") is None:
        pytest.skip("no promtool on the PATH: Debian's package prometheus has it")
    page = full_page(kind, PAGES[kind]())
    checked = subprocess.run(["promtool", "check", "metrics"], input=page, capture_output=True)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")
