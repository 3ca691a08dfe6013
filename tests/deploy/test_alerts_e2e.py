"""Alerts fire for real faults, in a real Prometheus that scrapes real processes. Minutes are seconds here.

The tests share one run. Each begins and ends with a shop that is well.
"""

import itertools
import json
import math
import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.monitored import Watched, missing, watched
from tests.deploy.queries import panel_expressions
from tests.e2e.conftest import until

pytestmark = [pytest.mark.ops, pytest.mark.slow, pytest.mark.broker]


@pytest.fixture(scope="module")
def small_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A disk of 1.3 GB for the data directory, if one can be mounted; else a folder."""
    if reason := missing():
        pytest.skip(reason)
    place = tmp_path_factory.mktemp("disk")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1300m", "tmpfs", place], capture_output=True)
    yield place
    if not mounted.returncode:
        subprocess.run(["umount", "-l", place], check=True)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, small_disk: Path) -> Iterator[Watched]:
    with watched(tmp_path_factory.mktemp("watched"), small_disk / "data") as made:
        yield made


@pytest.fixture
def shop(running: Watched) -> Watched:
    """The shop, once it is well: every process is there, the worker is ready, no alert fires."""
    running.there_is("count(anabranch_build_info) == 3")
    running.there_is('anabranch_ready{job="anabranch-worker"} == 1')
    running.quiet()
    return running


def test_dead_letters(shop):
    deadline = time.monotonic() + 60
    while "AnabranchDeadLetters" not in shop.firing():
        assert time.monotonic() < deadline
        shop.send(b"no click")
        time.sleep(0.02)
    alert = shop.firing()["AnabranchDeadLetters"]
    assert re.match(r"[\d.]+% of the messages", alert["annotations"]["description"])


def test_a_pause_while_clicks_come(shop):
    shop.command("pause")
    fired = shop.fires("AnabranchPaused").keys()
    assert not fired & {"AnabranchNotReady", "AnabranchFallingBehind", "AnabranchNoRecommendations"}
    shop.command("resume")


def test_more_clicks_than_a_slow_worker_can_apply(shop):
    shop.kill("worker")
    # Small fetches: the worker learns with each of them how long the log is.
    shop.start("worker", ANABRANCH_WORKER__POLL_MAX_EVENTS="1", ANABRANCH_WORKER__FETCH_MAX_BYTES="4096")
    deadline = time.monotonic() + 240
    for number in itertools.count():
        shop.send(json.dumps({"user": f"user-{number % 40}", "item": f"item-{number % 25}"}).encode())
        if number % 50 == 0:
            time.sleep(0.02)  # about 2,000 a second
        if number % 2000 == 0:
            if {"AnabranchFallingBehind", "AnabranchNoRecommendations"} <= shop.firing().keys():
                break
            assert time.monotonic() < deadline, f"after {number} clicks: {sorted(shop.firing())}"
    shop.kill("worker")
    shop.start("worker")


def test_a_broker_that_is_away(shop):
    shop.wire.cut()
    try:
        fired = shop.fires("AnabranchNotReady")
    finally:
        shop.wire.reconnect()
    assert fired["AnabranchNotReady"]["labels"]["job"] != "anabranch-trainer"


def test_a_disk_that_is_nearly_full(shop, small_disk):
    if not small_disk.is_mount():
        pytest.skip("no tmpfs can be mounted here")
    with (small_disk / "large").open("wb") as file:
        file.truncate(0)
        os.posix_fallocate(file.fileno(), 0, 400_000_000)
    alert = shop.fires("AnabranchDiskFullSoon")["AnabranchDiskFullSoon"]
    assert alert["labels"]["severity"] == "page"
    (small_disk / "large").unlink()


def test_the_only_worker_is_killed(shop):
    shop.notified.clear()
    shop.kill("worker")
    shop.fires("AnabranchMemberGone", "AnabranchPartitionNotOwned")
    pages = until(lambda: [one for one in shop.notified if one["receiver"] == "pager" and one["status"] == "firing"
                           and one["labels"]["alertname"] == "AnabranchPartitionNotOwned"])  # fmt: skip
    assert pages[0]["annotations"]["runbook_url"].endswith("docs/faults.md#anabranchpartitionnotowned")
    assert "[no value]" not in json.dumps(shop.notified)
    gone = [one for one in shop.notified if one["labels"]["alertname"] == "AnabranchMemberGone"]
    assert not [one for one in gone if one["labels"]["job"] == "anabranch-worker" and one["status"] == "firing"]
    shop.start("worker")


def test_every_panel_of_the_dashboard_has_data(shop):
    shop.there_is("anabranch_model_created_timestamp_seconds")
    time.sleep(10)  # two scrapes with recommendations of the version
    now = time.time()
    empty = []
    for panel, expression in panel_expressions().items():
        if panel.startswith("annotation"):
            continue
        query = re.sub(r"\$(__rate_interval|window)", "15s", expression).replace("$installation", ".*")
        found = shop.ask("query_range", query=query, start=now - 120, end=now, step=1)["result"]
        values = [float(value) for series in found for _, value in series["values"]]
        if not any(map(math.isfinite, values)):
            empty.append(panel)
    assert empty == []


def test_an_artifact_store_that_is_gone_when_the_trainer_starts(shop):
    away = shop.artifacts.rename(shop.artifacts.with_name("away"))
    shop.artifacts.write_text("no folder, so nothing can be written below it")
    shop.kill("trainer")
    shop.start("trainer")
    fired = shop.fires("AnabranchLearningFails", "AnabranchCheckpointStale")
    assert "AnabranchNotReady" not in fired, "the worker goes on with the version that it has"
    shop.artifacts.unlink()
    away.rename(shop.artifacts)
