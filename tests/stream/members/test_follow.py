"""The members of an installation, read from a broker."""

import asyncio
import time

import msgspec
import pytest
from kafka import KafkaProducer

from stream.errors import BrokerUnavailable
from stream.kafka.connection import connection
from stream.local.embedded_broker import EmbeddedBroker
from stream.members.follow import MembersFollower, read_members
from stream.members.member import Member
from stream.members.publish import MemberPublisher
from stream.members.sightings import DEAD_AFTER_S
from tests.conftest import with_topics
from tests.stream.members.members import worker

pytestmark = pytest.mark.broker


def publish(config, *messages: tuple[str, bytes | None]) -> None:
    producer = KafkaProducer(**connection(config))
    for key, value in messages:
        producer.send(config.topics.members, key=key.encode(), value=value).get(10)
    producer.close()


async def eventually(condition, within_s: float = 10.0) -> None:
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.05)


def states(found) -> dict[str, str]:
    return {seen.member.instance: seen.doing for seen in found}


def test_a_command_reads_who_lives_who_stopped_and_who_died(config):
    gone = worker("gone")
    junk = [("worker/x", b"not JSON"), ("worker/another", msgspec.json.encode(worker("x")))]
    publish(config, *junk, ("worker/deleted", msgspec.json.encode(worker("deleted"))), ("worker/deleted", None))
    publish(config, (gone.key, msgspec.json.encode(gone)))

    async def run() -> None:
        assert states(await read_members(config)) == {"gone": "dead"}
        living, ending = (MemberPublisher(config, lambda n=n: worker(n)) for n in ("living", "ending"))
        living.start()
        ending.start()
        await asyncio.sleep(0.5)
        await ending.stop()
        began = time.monotonic()
        assert states(await read_members(config)) == {"gone": "dead", "living": "running", "ending": "stopped"}
        assert time.monotonic() - began < DEAD_AFTER_S + 2
        await living.stop()
        assert states(await read_members(config))["living"] == "stopped"

    asyncio.run(run())


def test_a_follower_sees_a_death_within_five_seconds_and_outlives_the_broker(tmp_path):
    with EmbeddedBroker(tmp_path) as broker:
        config = with_topics(broker.address, tmp_path / "data")

        async def run() -> None:
            living = {"a", "b"}

            def look(name: str) -> Member:
                if name not in living:
                    raise RuntimeError("a test has killed it")
                return worker(name)

            publishers = {n: MemberPublisher(config, lambda n=n: look(n)) for n in "ab"}
            for publisher in publishers.values():
                publisher.start()
            follower = MembersFollower(config)
            await follower.start()
            assert not follower.problem
            await eventually(lambda: states(follower.members()) == {"a": "running", "b": "running"})
            living.remove("b")
            died = time.monotonic()
            await eventually(lambda: states(follower.members()) == {"a": "running", "b": "dead"})
            assert time.monotonic() - died < 6
            await asyncio.to_thread(broker.stop)
            await eventually(lambda: follower.problem)
            await asyncio.sleep(DEAD_AFTER_S)
            assert states(follower.members())["a"] in ("running", "not responding"), (
                "the broker is away, not the worker"
            )
            await follower.stop()
            living.add("b")
            for publisher in publishers.values():
                await publisher.stop()

        asyncio.run(run())


def test_a_follower_starts_without_a_broker_and_says_what_is_missing(config, monkeypatch):
    monkeypatch.setattr("stream.members.follow.BEGIN_WITHIN_S", 0.1)
    away = msgspec.structs.replace(config, broker="127.0.0.1:1")

    async def run() -> None:
        follower = MembersFollower(away)
        await follower.start()
        assert follower.members() == []
        await eventually(lambda: "127.0.0.1:1" in follower.problem)
        await follower.stop()
        with pytest.raises(BrokerUnavailable):
            await read_members(away)

    asyncio.run(run())
