"""Several workers share the partitions of one group, and take over from each other."""

import json
from pathlib import Path

import msgspec
import pytest

from state.view import View
from stream.config import Config
from tests.conftest import with_topics
from tests.e2e.conftest import anabranch, read_all, until

pytestmark = pytest.mark.broker

USERS = [f"user-{n}" for n in range(40)]


def click_all(producer, config: Config, item: str) -> None:
    for user in USERS:
        value = json.dumps({"user": user, "item": item}).encode()
        producer.send(config.topics.clicks, key=user.encode(), value=value)
    producer.flush()


def applied(config: Config) -> dict[int, int]:
    with View(config.data, config.topics.clicks, config.state) as view:
        return {number: p.read_progress().applied for number, p in view.partitions.items()}


def answered(config: Config) -> set[tuple[int, int]]:
    messages = (json.loads(r.value) for r in read_all(config, config.topics.recommendations))
    return {(m["partition"], m["offset"]) for m in messages}


def test_two_workers_share_the_partitions_and_one_takes_over_from_the_other(broker, tmp_path: Path, producer):
    one = with_topics(broker, tmp_path / "one", partitions=4)
    two = msgspec.structs.replace(one, data=tmp_path / "two")
    click_all(producer, one, "milk")
    with anabranch(one, "worker", "--instance", "one"):
        until(lambda: sum(applied(one).values()) == len(USERS))
        with anabranch(two, "worker", "--instance", "two"):
            until(lambda: len(applied(two)) == 2)
            click_all(producer, one, "bread")
            # What moved is rebuilt from the log; what stayed goes on.
            until(lambda: sum(applied(two).values()) >= len(USERS) // 4)
            ends = {(r.partition, r.offset) for r in read_all(one, one.topics.clicks)}
            newest = {max(e for e in ends if e[0] == p) for p in range(4)}
            until(lambda: newest <= answered(one))
        click_all(producer, one, "eggs")
        until(lambda: sum(applied(one).values()) == 3 * len(USERS))
        ends = {(r.partition, r.offset) for r in read_all(one, one.topics.clicks)}
        until(lambda: {max(e for e in ends if e[0] == p) for p in range(4)} <= answered(one))
    assert len(applied(one)) == 4
