"""A user whose events are in two partitions is reported as such."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from state.identity import Identity
from state.settings import StateSettings
from state.store import Store
from stream.cli.app import app
from tests.state.oracle import Event, batch
from tests.stream.cli.small_shop import T

import stream.cli.entry  # noqa: F401  # isort: skip  registers the commands


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two partitions: ann is in both, bob in the second."""
    data = tmp_path_factory.mktemp("split")
    for number, users in enumerate((["ann"], ["ann", "bob"])):
        store = Store(data / f"clicks-{number}", Identity("cluster", "clicks", number, 2, 100, 32), StateSettings())
        events = [Event(user, f"item-{number}", T, "click") for user in users]
        store.apply(batch(events, 0), len(events), keyless=3 * number, foreign_partition=number)
        store.close()
    return data


def anabranch(data: Path, *arguments: str):
    done = CliRunner().invoke(app, [*arguments, "--data", str(data)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done


def test_a_user_in_two_partitions_is_reported_with_both(split):
    done = anabranch(split, "user", "ann")
    assert "user 'ann' has events in the partitions 0, 1 of 'clicks'" in done.stderr
    assert json.loads(anabranch(split, "user", "ann", "--json").stdout)["partitions"] == [0, 1]


def test_a_user_in_one_partition_is_not(split):
    assert anabranch(split, "user", "bob").stderr == ""
    assert json.loads(anabranch(split, "user", "bob", "--json").stdout)["partitions"] == [1]


def test_status_reports_wrong_keys_with_the_setting(split):
    done = anabranch(split, "status")
    assert "3 messages in 'clicks' have no key" in done.stderr
    assert "set partitioner=murmur2_random" in done.stderr
    events = json.loads(anabranch(split, "status", "--json").stdout)["events"]
    assert (events["keyless"], events["foreign_partition"]) == (3, 1)
