"""A worker that dies after any step of an event's path leaves a state that the next one makes equal to the log."""

from pathlib import Path

import pytest

from tests.conftest import with_topics
from tests.crash.kills import STEPS, impatient, kill
from tests.crash.membership import come_and_go
from tests.crash.oracle import compare

pytestmark = pytest.mark.broker


def test_killed_after_each_step_nothing_is_lost_and_nothing_doubled(broker, tmp_path: Path, request):
    config = with_topics(broker, tmp_path / "data", partitions=3)
    if request.config.getoption("--broker") == "embedded":
        config = impatient(config)
    report = kill(config, kills=STEPS + 1, events=1_500, seed=0)
    assert report.found == (0, 0, [])
    assert report.kills.total() == STEPS + 1
    assert sum(1 for step in report.kills if step) >= STEPS - 1  # a life on a busy machine may be ended before its step
    assert len(report.truth.bad) > 0


@pytest.mark.slow
def test_the_oracle_sees_what_is_wrong(broker, tmp_path: Path):
    config = with_topics(broker, tmp_path / "data", partitions=2)
    report = kill(config, kills=0, events=200, seed=1)
    assert report.found == (0, 0, [])
    one_user = next(iter(report.truth.sequences))
    report.truth.sequences[one_user].append(("item-1", 0))
    report.truth.edges["user-1", "item-1", 0] += 1
    report.truth.bad.add((0, 10**6))
    report.truth.newest[one_user] = (1, 10**6)
    found = compare(config, report.truth)
    assert (found.lost, found.doubled) == (1, 0)
    assert len(found.differences) == 6  # with the counts of events and of dead letters


@pytest.mark.slow
def test_workers_join_leave_die_and_wake_as_zombies_and_nothing_is_lost_or_doubled(broker, tmp_path: Path, request):
    config = with_topics(broker, tmp_path / "data", partitions=3)
    if request.config.getoption("--broker") == "embedded":
        config = impatient(config)
    report = come_and_go(config, moves=7, seed=6)
    assert report.found == (0, 0, [])
    assert report.behind == []
    assert report.moves["zombie"]
    assert report.moves["kill"] + report.moves["leave"]
    assert report.restored, "what was written before the last checkpoint is not read from the log again"
