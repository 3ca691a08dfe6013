"""Answers of the HTTP interface: the owner's where it comes in time, else the nearest thing that is known.

The owner of a user is the worker that owns the user's partition. The nearest thing is the user's last recommendation,
then what is popular with everybody. Neither has an item that was withdrawn in the meantime.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Sequence
from typing import Literal, NamedTuple

import msgspec

from stream.config import Config
from stream.http.answers import Event, Fallback, Recommendations, Related, RelatedItem, Unsent
from stream.kafka.documents import ItemReport
from stream.kafka.messages import Recommendation, Recommended
from stream.serve.event_sender import EventSender
from stream.serve.follower import Follower
from stream.serve.owners import Owners
from stream.times import now_ms

POPULAR_EVERY_S, POPULAR_AGAIN_S = 30.0, 1.0
"""How often workers are asked what is popular, and again after no answer."""
POPULAR_WITHIN_S = 2.0
RELATED_FRESH_S = 10.0
NOT_CONNECTED = Unsent("this process has no connection to Kafka yet", again=True)
MAX_RELATED = 20_000
"""Items whose related ones are kept, those that were asked for last."""


class KeptRelated(NamedTuple):
    """What workers answered about an item, and when."""

    answer: Related
    at: float


class OwnersAnswers:
    """Asks the owners, and knows what to answer without them."""

    def __init__(self, config: Config, follower: Follower) -> None:
        self.owners: Owners | None = None
        self.sender: EventSender | None = None
        """Both are None until Kafka has answered once."""
        self._follower = follower
        self._within_s = config.serve.timeout_ms / 1000
        self._k = config.ranking.k
        self._popular: list[Recommended] = []
        self._popular_ts = 0
        self._related: OrderedDict[str, KeptRelated] = OrderedDict()

    async def keep_popular(self) -> None:
        """Ask what is popular from time to time, for ever."""
        while True:
            found = await self.owners.popular(POPULAR_WITHIN_S) if self.owners is not None else None
            if found:
                self._popular, self._popular_ts = found, now_ms()
            await asyncio.sleep(POPULAR_EVERY_S if found else POPULAR_AGAIN_S)

    async def recommend(self, user: str) -> Recommendations:
        """The owner's recommendation, or a fallback that says so."""
        if self.owners is not None:
            now = await self.owners.recommendation(user, self._within_s)
            if now is not None:
                return _recommendations(user, now)
        last = self._follower.last.of(user)
        if last is not None and (left := self._allowed(last.items)):
            return _recommendations(user, msgspec.structs.replace(last, items=left), "last")
        if popular := self._allowed(self._popular)[: self._k]:
            return Recommendations(
                user=user, items=popular, source="popularity", fallback="popular", age_s=_age_s(self._popular_ts),
                emitted_ts=self._popular_ts,
            )  # fmt: skip
        return Recommendations(user=user, items=[], source="none", fallback="none")

    def _allowed(self, items: list[Recommended]) -> list[Recommended]:
        """The items without those that are withdrawn."""
        withdrawn = self._follower.withdrawn
        return [item for item in items if item.item not in withdrawn]

    async def related(self, item: str) -> Related:
        """What users took after the item; asked of the workers if it was not in the last ten seconds."""
        kept = self._related.get(item)
        if kept is None or time.monotonic() - kept.at > RELATED_FRESH_S:
            known = await self.owners.item(item, self._within_s) if self.owners is not None else None
            if kept is not None and (known is None or not known.complete):
                return self._aged(kept, "last")
            if known is None:
                return Related(item=item, fallback="none")
            kept = KeptRelated(_related(item, known.report), time.monotonic())
            if not known.complete:
                return self._aged(kept, "partial")
            self._related[item] = kept
            if len(self._related) > MAX_RELATED:
                self._related.popitem(last=False)
        self._related.move_to_end(item)
        return self._aged(kept, None)

    def _aged(self, kept: KeptRelated, fallback: Literal["last", "partial"] | None) -> Related:
        age_s, withdrawn = round(time.monotonic() - kept.at, 1), self._follower.withdrawn
        items = [i for i in kept.answer.items if i.item not in withdrawn]
        return msgspec.structs.replace(kept.answer, items=items, fallback=fallback, age_s=age_s)

    async def publish(self, events: Sequence[Event]) -> list[Unsent | None]:
        """Send events to Kafka."""
        return await self.sender.publish(events) if self.sender is not None else [NOT_CONNECTED] * len(events)


def _recommendations(user: str, message: Recommendation, fallback: Fallback | None = None) -> Recommendations:
    return Recommendations(
        user=user,
        items=message.items,
        source=message.source if message.items else "none",  # type: ignore[arg-type]
        fallback=fallback,
        age_s=_age_s(message.emitted_ts),
        model=message.model,
        model_age_s=message.model_age_s,
        event_ts=message.event_ts,
        emitted_ts=message.emitted_ts,
        partition=message.partition if message.partition >= 0 else None,
        offset=message.offset if message.offset >= 0 else None,
    )


def _related(item: str, report: ItemReport) -> Related:
    items = [RelatedItem(follower.item, follower.weight, follower.title) for follower in report.next]
    return Related(item=item, title=report.title, items=items, events=report.degree)


def _age_s(ts: int) -> float:
    return round(max(now_ms() - ts, 0) / 1000, 1)
