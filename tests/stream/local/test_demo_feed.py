"""The demo's feed: it waits for the first version, and a household buys again when it has got its list."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stream.config import Config
from stream.local import demo_feed
from stream.local.demo_feed import ANSWERED_WITHIN_S, Feed, Purchases, Turns

WARM_UP = 20


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of the purchases, in the order in which the feed published them."""
    found: list[int] = []

    async def publish(_config: Config, topic: str, rows: Any, _key: str, _pace: Any, *, live: bool = False) -> None:
        for row in rows:
            if topic == "clicks":
                assert live
                found.append(row["ts"])

    monkeypatch.setattr(demo_feed, "publish", publish)
    monkeypatch.setattr(demo_feed, "WARM_UP_EVENTS", WARM_UP)
    return found


class Worker:
    """A worker that answers every purchase, or only some of them."""

    def __init__(self, published: list[int], *, answers: int = 10**9, has_version: bool = True) -> None:
        self._published, self._answers, self._has_version = published, answers, has_version
        self._looked_at = 0

    def has_version(self) -> bool:
        return self._has_version

    def answered(self) -> list[str]:
        new = self._published[self._looked_at : WARM_UP + self._answers]
        self._looked_at += len(new)
        return [user_of(number) for number in new]

    def publish_a_version(self) -> None:
        self._has_version = True


def user_of(number: int) -> str:
    return f"user-{number % 7}"


def feed_of(count: int, seconds: float, worker: Worker) -> Feed:
    clicks = [{"user": user_of(n), "item": "bread", "ts": n} for n in range(count)]
    feed = Feed(Config(data=Path("unused")), Purchases(clicks, []), seconds, worker)
    feed.start()
    return feed


def until(true: Callable[[], bool]) -> None:
    ends_at = time.monotonic() + 10
    while not true():
        assert time.monotonic() < ends_at
        time.sleep(0.01)


def test_the_first_version_is_waited_for_after_the_warm_up(published):
    worker = Worker(published, has_version=False)
    feed = feed_of(30, 60, worker)
    until(lambda: len(published) == WARM_UP)
    feed.join(0.2)
    assert len(published) == WARM_UP
    worker.publish_a_version()
    until(lambda: len(published) > WARM_UP)


def test_a_worker_that_stops_answering_gets_no_more_than_one_purchase_of_each_household(published):
    feed = feed_of(10_000, 1, Worker(published, answers=30))
    feed.join(10)
    assert not feed.is_alive()
    assert feed.failure is None
    assert feed.published == WARM_UP + 30 + 7
    assert published == list(range(feed.published)), "in order, and none twice"


def test_a_worker_that_keeps_up_gets_all_of_them(published):
    feed = feed_of(500, 1, Worker(published))
    feed.join(10)
    assert sorted(published) == list(range(500))


def test_without_a_version_the_feed_goes_on_after_most_of_its_time(published):
    feed = feed_of(WARM_UP + 5, 0.5, Worker(published, has_version=False))
    feed.join(10)
    assert feed.published == WARM_UP + 5


def test_a_failure_ends_the_feed_and_is_kept_for_the_screen(monkeypatch):
    async def refuse(*_: Any, **__: Any) -> None:
        raise OSError("no broker")

    monkeypatch.setattr(demo_feed, "publish", refuse)
    feed = feed_of(5, 1, Worker([]))
    feed.join(10)
    assert str(feed.failure) == "no broker"


def turns_of(*users: str) -> Turns:
    return Turns([{"user": user, "ts": number} for number, user in enumerate(users)])


def taken(turns: Turns, now: float = 0.0) -> int | None:
    click = turns.next(now)
    return click["ts"] if click is not None else None


def test_others_go_before_a_household_that_waits_and_each_keeps_its_order():
    turns = turns_of("ann", "ann", "bob", "ann", "cid")
    assert [taken(turns) for _ in range(4)] == [0, 2, 4, None]
    turns.answered("ann")
    assert [taken(turns), taken(turns)] == [1, None]
    turns.answered("ann")
    turns.answered("bob")
    assert [taken(turns), taken(turns)] == [3, None]


def test_a_household_whose_list_does_not_come_buys_again_after_a_while():
    turns = turns_of("ann", "ann")
    assert [taken(turns), taken(turns, ANSWERED_WITHIN_S)] == [0, None]
    assert taken(turns, ANSWERED_WITHIN_S + 1) == 1


def test_no_purchase_comes_long_before_an_older_one(monkeypatch):
    monkeypatch.setattr(demo_feed, "MAX_AHEAD", 2)
    turns = turns_of("ann", "ann", "bob", "cid", "dan")
    assert [taken(turns) for _ in range(4)] == [0, 2, 3, None]
    turns.answered("ann")
    assert [taken(turns), taken(turns)] == [1, 4]
