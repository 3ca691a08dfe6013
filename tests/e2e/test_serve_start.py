"""What `serve` knows after its start: the newest part of the recommendations, and every withdrawn item."""

import asyncio

import pytest

from stream.kafka.messages import encode
from stream.serve.follower import Follower
from tests.stream.serve.test_last_recommendations import items, message

pytestmark = pytest.mark.broker


def send(producer, topic: str, *records: tuple[str, bytes | None]) -> None:
    for key, value in records:
        producer.send(topic, value, key.encode(), partition=0)
    producer.flush()


def test_the_newest_recommendations_and_all_withdrawals_are_followed(config, producer, monkeypatch):
    monkeypatch.setattr("stream.serve.follower.TAIL_RECORDS", 2 * 3)  # three of each of the two partitions
    topics = config.topics
    send(producer, topics.recommendations, *((f"user-{n}", message(f"user-{n}", "milk")) for n in range(5)))
    withdrawn = [(f"withdrawn:{item}", encode({"item": item, "withdrawn": True})) for item in ("milk", "tea", "beer")]
    send(producer, topics.items, ("milk", encode({"item": "milk", "title": "Milk"})), *withdrawn)
    send(producer, topics.items, ("withdrawn:tea", None), ("withdrawn:beer", b'{"withdrawn": 7}'))

    async def run() -> None:
        follower = Follower(config)
        following = asyncio.create_task(follower.run())
        await asyncio.wait_for(follower.caught_up.wait(), 30)
        known = [items(follower.last, f"user-{n}") for n in range(5)]
        # The embedded broker reports the beginning of its last batch as the end of a log: more is read then.
        assert known[2:] == [["milk"]] * 3
        assert follower.withdrawn == {"milk", "beer"}
        await asyncio.to_thread(
            send, producer, topics.recommendations, ("user-4", None), ("user-0", message("user-0", "tea"))
        )
        await asyncio.to_thread(send, producer, topics.items, ("withdrawn:milk", None))
        async with asyncio.timeout(30):
            while items(follower.last, "user-0") != ["tea"] or "milk" in follower.withdrawn:
                await asyncio.sleep(0.05)
        assert items(follower.last, "user-4") is None
        following.cancel()
        await asyncio.wait([following])

    asyncio.run(run())
