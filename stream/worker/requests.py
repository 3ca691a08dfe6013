"""Requests: "recommend for this user now", answered on the replies topic.

A poll can bring more requests than can be answered before the next clicks. Then every partition and every user gets a
share, and the rest is replied to with the status `too many`.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeVar

import msgspec

from state.id_hash import IdHash
from state.pending import Unanswered
from stream.config import Config
from stream.kafka.click_values import Invalid, read_identifier
from stream.kafka.decode import DeadLetter, Record
from stream.kafka.messages import UNREADABLE, Reply, Request
from stream.kafka.rarely import Rarely
from stream.stores.assignment import Assignment
from stream.times import now_ms
from stream.worker.outbox import Outbox
from stream.worker.recommender import Recommender

log = logging.getLogger("anabranch.requests")

SENT_AT_ONCE = 500
"""Replies with the status `too many`, and dead letters, that are sent before other work goes on."""

T = TypeVar("T")


class Asked(NamedTuple):
    """A valid request."""

    user: str
    id: str | int
    offset: int = 0
    ts: int = 0
    """When the broker got it, ms."""


class Requests:
    """Answers requests from the stores of their users' partitions."""

    def __init__(
        self,
        config: Config,
        assignment: Assignment,
        recommender: Recommender,
        outbox: Outbox,
        answering_lock: asyncio.Lock,
        renew_lease: Callable[[], Awaitable[None]],
        id_hash: IdHash,
        replied: Callable[[str, Iterable[int]], None] = lambda _outcome, _sent_ms: None,
    ) -> None:
        """`replied` gets the outcome of requests, and the times at which the broker got them."""
        self._id_hash, self._replied = id_hash, replied
        self._topic, self._limit = config.topics.requests, config.worker.requests_per_poll
        self._batch_users = config.worker.rank_batch_users
        self._assignment, self._outbox = assignment, outbox
        self._recommender, self._answering_lock = recommender, answering_lock
        self._renew_lease = renew_lease
        self.too_many = 0
        """Requests that were not answered because there were too many, since the start."""
        self._rarely = Rarely()

    async def answer(self, polled: Mapping[int, Sequence[Record]]) -> dict[int, int]:
        """Answer the requests of a poll, by partition; reply to those beyond the limit that there are too many.

        A message that is not a request goes to the dead letters. A store is held until the replies are acknowledged: a
        partition that is revoked goes to its next owner only then. Returns the offsets to read again from: the lease
        ran out before everything was sent, or the store is being opened.
        """
        asked: dict[int, list[Asked]] = {}
        again: dict[int, int] = {}
        for number, records in polled.items():
            asked[number], dead = read_requests(records)
            for letters in parts(dead, SENT_AT_ONCE):
                await self._in_a_hold(number, self._reject(number, letters), letters[0].record.offset, again)
        chosen = choose(asked, self._limit)
        for number, requests in asked.items():
            answered = chosen[number]
            for batch in parts([requests[at] for at in sorted(answered)], self._batch_users):
                await self._in_a_hold(number, self._rank(number, batch), batch[0].offset, again)
            for some in parts([r for at, r in enumerate(requests) if at not in answered], SENT_AT_ONCE):
                await self._in_a_hold(number, self._refuse(number, some), some[0].offset, again)
        return again

    async def _in_a_hold(
        self, number: int, work: Coroutine[None, None, None], offset: int, again: dict[int, int]
    ) -> None:
        """Do the work while the store is held; note its first offset where the lease has run out."""
        await self._renew_lease()
        done = False
        async with self._assignment.hold(number) as store:
            if store is not None:
                await work
                done = True
        work.close()
        if not done and self._assignment.phase(number) is not None:
            again[number] = min(offset, again.get(number, offset))

    async def _rank(self, number: int, requests: Sequence[Asked]) -> None:
        next_offset = self._assignment.stores[number].progress.next_offset
        users = {self._id_hash.of(request.user): Unanswered(next_offset, next_offset - 1, -1) for request in requests}
        async with self._answering_lock:
            answers = await self._recommender.recommend_off_loop(number, users)
        messages = {answer.user: msgspec.json.decode(answer.message, type=Reply) for answer in answers}
        # A user without events has no id in the state.
        named = [(messages[self._id_hash.of(request.user)], request) for request in requests]
        await self._outbox.send_replies([msgspec.structs.replace(m, user=r.user, id=r.id) for m, r in named])
        self._replied("ok", [request.ts for request in requests])

    async def _reject(self, number: int, letters: Sequence[DeadLetter]) -> None:
        await self._outbox.send_dead_letters(self._topic, number, letters)
        self._replied("invalid", [letter.record.timestamp for letter in letters])

    async def _refuse(self, number: int, requests: Sequence[Asked]) -> None:
        await self._outbox.send_replies([reply_too_many(request, number) for request in requests])
        self.too_many += len(requests)
        self._replied("too_many", [request.ts for request in requests])
        self._log_refused()

    def _log_refused(self) -> None:
        if self._rarely.may_log():
            log.warning(
                "more requests than worker.requests_per_poll = %d came between two polls: %d are replied to with "
                "'too many' since the start", self._limit, self.too_many,
            )  # fmt: skip


def read_request(value: bytes | None) -> Asked:
    """The request in a message. Raises Invalid."""
    try:
        request = msgspec.json.decode(value or b"", type=Request)
    except UNREADABLE as error:
        raise Invalid(str(error)) from None
    if request.id != "":
        read_identifier(request.id, "id")
    return Asked(read_identifier(request.user, "user").decode(), request.id)


def read_requests(records: Sequence[Record]) -> tuple[list[Asked], list[DeadLetter]]:
    """The requests in records, and the records that are no requests."""
    requests: list[Asked] = []
    dead: list[DeadLetter] = []
    for record in records:
        try:
            requests.append(read_request(record.value)._replace(offset=record.offset, ts=record.timestamp))
        except Invalid as reason:
            dead.append(DeadLetter(record, f"no request: {reason}", "request"))
    return requests, dead


def choose(asked: Mapping[int, Sequence[Asked]], limit: int) -> dict[int, set[int]]:
    """Which requests of each partition are answered, by position: the first of every user before anybody's second."""
    turns: list[tuple[int, int, int]] = []
    for number, requests in asked.items():
        seen: Counter[str] = Counter()
        for at, request in enumerate(requests):
            turns.append((seen[request.user], at, number))
            seen[request.user] += 1
    chosen: dict[int, set[int]] = {number: set() for number in asked}
    for _, at, number in sorted(turns)[:limit]:
        chosen[number].add(at)
    return chosen


def reply_too_many(request: Asked, partition: int) -> Reply:
    """The reply to a request that is not answered. Its offset is lower than that of any recommendation."""
    return Reply(
        user=request.user,
        items=[],
        model=None,
        model_age_s=None,
        source="none",
        event_ts=None,
        emitted_ts=now_ms(),
        partition=partition,
        offset=-1,
        id=request.id,
        status="too many",
    )


def parts(every: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Parts of at most `size`."""
    return (every[start : start + size] for start in range(0, len(every), size))
