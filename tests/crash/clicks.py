"""Realistic records for crash tests: all kinds of events, late ones, times in seconds, duplicates, forgets, non-events.

A record is a function of the seed and its number, so a duplicate equals the record that was sent before.
"""

import json
import random
from itertools import count

import msgspec
from aiokafka.partitioner import DefaultPartitioner
from kafka import KafkaProducer

from state.settings import Kind
from stream.config import Config

USERS, ITEMS = 400, 60
BAD_SHARE, LATE_SHARE, DUPLICATE_SHARE, EQUAL_TIME_SHARE, SECONDS_SHARE = 0.01, 0.05, 0.03, 0.03, 0.02
FIRST_MS = 1_700_000_000_000
EVERY_MS = 1000
FAR_FUTURE_MS = 4_102_444_800_000
DEDUP_WINDOW_EVENTS = 500
MAX_DUPLICATE_DISTANCE = 10_000
"""Records over all partitions: some duplicates are within the window, some beyond twice of it."""
CUSTOM_KINDS = {"wishlist": Kind("positive", 0.7), "glance": Kind("positive", 0.0), "report": Kind("negative")}
KIND_SHARES = {
    "click": 62, "view": 8, "cart": 3, "purchase": 4, "like": 2, "hide": 4, "dislike": 2, "undo": 6,
    "wishlist": 4, "glance": 3, "report": 1.5, "forget": 0.1,
}  # fmt: skip


def with_custom_kinds(config: Config, window_s: float = 0.0) -> Config:
    """The configuration with custom kinds, a short de-duplication window, and expiry where `window_s` is given.

    A row has a slot for every item: none is given away, so the log says what each one counts.
    """
    kinds = config.state.kinds | CUSTOM_KINDS
    state = msgspec.structs.replace(
        config.state,
        kinds=kinds,
        dedup_window_events=DEDUP_WINDOW_EVENTS,
        window_s=window_s,
        neighbours_per_item=ITEMS + 4,
    )
    return msgspec.structs.replace(config, state=state)


class Clicks:
    """The records of one seed, in order."""

    def __init__(self, config: Config, seed: int, every_ms: int = EVERY_MS) -> None:
        self._config, self._seed, self._every_ms = config, seed, every_ms
        self._kinds = [kind for kind in KIND_SHARES if kind in config.state.kinds]
        self._shares = [KIND_SHARES[kind] for kind in self._kinds]
        self.published = 0

    def publish(self, producer: KafkaProducer, count: int) -> None:
        """Send the next `count` records, and wait until the broker has them."""
        for number in range(self.published, self.published + count):
            user, value = self.record(number)
            producer.send(self._config.topics.clicks, key=user.encode(), value=value)
        producer.flush()
        self.published += count

    def settle(self, producer: KafkaProducer) -> None:
        """Send one more click to each partition, so that everything behind the newest horizon expires."""
        partitions = [*range(self._config.topics.partitions)]
        users = (f"last-{number}" for number in count())
        for partition in partitions:
            user = next(u for u in users if DefaultPartitioner()(u.encode(), partitions, partitions) == partition)
            value = self._json(user=user, item="item-1", ts=self._at(self.published))
            producer.send(self._config.topics.clicks, key=user.encode(), value=value)
        producer.flush()

    def record(self, number: int) -> tuple[str, bytes]:
        """The key and value of the record with this number."""
        draw = random.Random(self._seed * 10**9 + number)
        if number > 10 and draw.random() < DUPLICATE_SHARE:
            return self.record(number - draw.randrange(1, min(number, MAX_DUPLICATE_DISTANCE)))
        user = f"user-{draw.randrange(USERS)}"
        ts = self._at(number)
        if draw.random() < LATE_SHARE:
            # Most are a little late, some later than any window.
            ts -= draw.randrange(self._every_ms * (100 if draw.random() < 0.9 else 100_000))
        elif draw.random() < EQUAL_TIME_SHARE:
            ts = self._at(number - 1)
        if draw.random() < BAD_SHARE:
            return user, draw.choice(
                [
                    b"not json", b"[]", b'{"user": "',
                    self._json(user=user, ts=ts),
                    self._json(user=user, item="item-1", ts=ts, event="no such kind"),
                    self._json(user=user, item="item-1", ts=FAR_FUTURE_MS),
                    self._json(user=user, item="item-1", ts=ts // 10**6),
                ]
            )  # fmt: skip
        [kind] = draw.choices(self._kinds, self._shares)
        ts = ts // 1000 if draw.random() < SECONDS_SHARE else ts  # its size decides the unit
        event = {"user": user, "item": f"item-{draw.randrange(ITEMS)}", "ts": ts}
        if kind == "forget":
            del event["item"]
        if kind != "click" or draw.random() < 0.2:
            event["event"] = kind
        if draw.random() < 0.6:
            event["id"] = f"{self._seed}/{number}"
        return user, self._json(**event)

    def _at(self, number: int) -> int:
        return FIRST_MS + self._every_ms * number

    def _json(self, **event: object) -> bytes:
        return json.dumps(event).encode()
