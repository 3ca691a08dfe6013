"""A worker dies after any step of an event's path: the next one makes the state equal to the log."""

import json
from pathlib import Path

import msgspec
import pytest
from kafka import KafkaProducer

from stream.config import Config
from tests.conftest import with_topics
from tests.crash.clicks import with_custom_kinds
from tests.crash.kills import CRASH_POINTS, GIVE_UP_S, WINDOW_S, kill, settle, with_short_session, worker_of
from tests.crash.lives import fork_server
from tests.crash.membership import run_moves
from tests.crash.oracle import Line, compare, fold
from tests.e2e.conftest import read_all

pytestmark = pytest.mark.broker


@pytest.fixture
def config(broker: str, tmp_path: Path, request: pytest.FixtureRequest) -> Config:
    made = with_custom_kinds(with_topics(broker, tmp_path / "data", partitions=3))
    return with_short_session(made) if request.config.getoption("--broker") == "embedded" else made


def test_a_kill_after_any_step_loses_and_doubles_nothing(config):
    report = kill(config, kills=CRASH_POINTS + 1, events=1_500, seed=0)
    assert report.found == (0, 0, [])
    assert report.kills.total() == CRASH_POINTS + 1
    assert sum(1 for point in report.kills if point) >= CRASH_POINTS - 1  # on a busy machine one may be killed before
    logs = report.truth.logs.values()
    assert all(log.bad and log.duplicate and log.lines for log in logs)
    assert any(log.forgotten for log in logs)


@pytest.mark.parametrize("point", [4, pytest.param(5, marks=pytest.mark.slow)])
def test_a_worker_that_is_behind_replaces_no_newer_answer_before_it_dies(config, point):
    """The worker that had answered everything sends nothing again when it owns the partitions again."""
    ahead, behind = (msgspec.structs.replace(config, data=config.data / name) for name in ("ahead", "behind"))
    users = [f"user-{number}" for number in range(60)]
    begun = 1_700_000_000_000
    events = [{"user": user, "item": f"item-{n % 7}", "ts": begun + n} for n, user in enumerate(users * 10)]
    events += [{"user": user, "ts": begun + 1000, "event": "forget"} for user in users[::2]]
    events += [{"user": user, "item": "item-1", "ts": begun + 1001} for user in users[::3]]
    producer = KafkaProducer(bootstrap_servers=config.broker)
    for event in events:
        producer.send(config.topics.clicks, key=event["user"].encode(), value=json.dumps(event).encode())
    producer.close()
    with fork_server(config.data / "fork-server.log") as lives:
        settle(lives, ahead)
        assert lives.run_to_crash(msgspec.structs.replace(worker_of(behind), crash_point=point, count=1), GIVE_UP_S)
        settle(lives, ahead)
    assert compare(ahead, fold(read_all(config, config.topics.clicks), config)) == (0, 0, [])


@pytest.mark.slow
def test_a_kill_while_events_expire_loses_nothing_and_leaves_no_expired_event(config):
    config = with_custom_kinds(config, WINDOW_S)
    report = kill(config, kills=CRASH_POINTS + 1, events=3_000, seed=2)
    assert report.found == (0, 0, [])
    logs = report.truth.logs.values()
    assert all(log.too_old for log in logs)
    assert any(line.ts < log.on_disk_from for log in logs for lines in log.lines.values() for line in lines)


@pytest.mark.slow
def test_the_oracle_finds_differences(config):
    report = kill(config, kills=0, events=600, seed=1)
    assert report.found == (0, 0, [])
    log = report.truth.logs[0]
    user, lines = max(log.lines.items(), key=lambda entry: len(entry[1]))
    lines.append(Line(user, "item-1", log.newest_ts, "click", log.end))
    log.bad.add(10**6)
    found = compare(config, report.truth)
    assert (found.lost, found.doubled) == (1, 0)
    kinds = ["edge", "journal", "sequence", "popularity", "edges"]
    for kind in (*kinds, "steps of", "clicks of item-1", "dead letters"):
        assert any(f"partition 0: {kind}" in line for line in found.differences), kind
    assert any(line.startswith("dead letter (0, ") for line in found.differences)
    assert any(line.startswith(f"the last answer to {user}") for line in found.differences)


@pytest.mark.slow
def test_workers_join_leave_die_and_return_as_zombies_and_nothing_is_lost_or_doubled(config):
    report = run_moves(config, moves=7, seed=6)
    assert report.found == (0, 0, [])
    assert report.behind == []
    assert report.moves["zombie"]
    assert report.moves["kill"] + report.moves["leave"]
    assert report.restored, "a partition that moves is restored from a checkpoint, not read from the log"
