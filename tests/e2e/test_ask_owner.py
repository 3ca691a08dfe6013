"""An installation of two workers, seen and asked from a machine that has nothing but the broker."""

import asyncio
import json
from collections import Counter
from pathlib import Path

import msgspec
import pytest

from state.view import View
from stream.config import Config
from stream.kafka.ask import NotAnswered
from stream.kafka.pointers import Pointers
from stream.kafka.topics import log_ends
from stream.members.follow import read_members
from stream.operate.ask_owner import ask_item, ask_recommendation, ask_user
from stream.operate.report import Status, status
from stream.operate.send_command import send_command
from tests.conftest import with_topics
from tests.e2e.conftest import anabranch, run, succeed, until

pytestmark = [pytest.mark.broker, pytest.mark.slow]

USERS = [f"user-{n}" for n in range(20)]


def seen_from(config: Config) -> Status:
    """What `anabranch status` shows there."""
    ends, members = log_ends(config, config.topics.clicks), asyncio.run(read_members(config))
    with View(config.data, config.topics.clicks, config.state) as view:
        return status(config, view, ends, Pointers(), (), members)


def command(config: Config, name: str) -> None:
    asyncio.run(send_command(config, name, ("done",), 15))


def members(found: Status) -> dict[str, str]:
    return {m.instance: m.doing for m in found.members or []}


def states(found: Status) -> set[str]:
    return {p.state for p in found.partitions}


def test_two_workers_are_seen_and_asked_from_a_machine_without_a_state(broker, tmp_path: Path, producer):
    one = with_topics(broker, tmp_path / "one", partitions=4)
    two, far = (msgspec.structs.replace(one, data=tmp_path / name) for name in ("two", "far"))
    for item in ("milk", "bread"):
        for user in USERS:
            value = json.dumps({"user": user, "item": item}).encode()
            producer.send(one.topics.clicks, key=user.encode(), value=value)
    producer.flush()
    assert any("nobody serves" in warning for warning in seen_from(far).warnings)

    with anabranch(one, "worker", "--instance", "one") as process, anabranch(two, "worker", "--instance", "two"):
        until(lambda: Counter(p.owner for p in seen_from(far).partitions) == {"worker/one": 2, "worker/two": 2})
        until(lambda: (found := seen_from(far)).events.applied == 40 and states(found) == {"answering"})
        found = seen_from(far)
        assert (found.users, found.edges, members(found)) == (20, 40, {"one": "running", "two": "running"})
        assert [p.lag for p in found.partitions] == [0, 0, 0, 0]
        assert not found.warnings

        reports = [ask_user(far, user) for user in USERS[:4]]
        assert all([step.item for step in report.sequence] == ["milk", "bread"] for report in reports)
        asked = ask_item(far, "milk")
        assert (asked.item.degree, asked.missing) == (20, [])
        assert [follower.item for follower in asked.item.next] == ["bread"]
        assert ask_recommendation(far, "user-3").user == "user-3"
        assert "bread" in succeed(far, "user", "user-3").stdout
        assert "--at reads the stores of one machine only" in run(far, "user", "user-3", "--at", "2026-01-01").stderr

        command(far, "pause")
        until(lambda: states(seen_from(far)) == {"paused"})
        command(far, "resume")
        until(lambda: states(seen_from(far)) == {"answering"})

        process.kill()
        process.wait()
        until(lambda: members(seen_from(far)) == {"one": "dead", "two": "running"})
        until(lambda: {(p.owner, p.state) for p in seen_from(far).partitions} == {("worker/two", "answering")})
        assert ask_item(far, "milk").item.degree == 20, "what moved is counted once"

    until(lambda: states(seen_from(far)) == {"down"})
    found = seen_from(far)
    assert members(found) == {"one": "dead", "two": "stopped"}
    assert any("nobody serves: no worker runs; worker two" in warning for warning in found.warnings)
    assert found.events.applied == 40, "the last record of each partition has its counts"
    with pytest.raises(NotAnswered, match=r"nobody serves partition \d: worker two on .* stopped"):
        ask_user(far, "user-3")
    assert "down" in succeed(far, "status").stdout
