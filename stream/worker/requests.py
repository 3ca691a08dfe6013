"""Requests: "recommend for this user now", "what do you know of this item", answered on the replies topic.

A poll can bring more requests than can be answered before the next clicks. Then every partition and every user gets a
share, and the rest is replied to with the status `too many`.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from typing import Literal, TypeVar

import msgspec
from aiokafka import TopicPartition

from state.id_hash import IdHash
from stream.config import Config
from stream.kafka.decode import DeadLetter, Record
from stream.kafka.documents import Document
from stream.kafka.messages import Reply
from stream.kafka.rarely import Rarely
from stream.stores.assignment import Assignment
from stream.times import now_ms
from stream.worker.asked import Asked, choose, read_requests
from stream.worker.direct_answers import messages_now
from stream.worker.documents import Documents
from stream.worker.outbox import Outbox
from stream.worker.recommender import Recommender

log = logging.getLogger("anabranch.requests")

SENT_AT_ONCE = 500
"""Replies with the status `too many`, and dead letters, that are sent before other work goes on."""

T = TypeVar("T")


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
        check_keys: Callable[[TopicPartition, Sequence[bytes | None]], object],
        id_hash: IdHash,
        replied: Callable[[str, Iterable[int]], None] = lambda _outcome, _sent_ms: None,
    ) -> None:
        """`replied` gets the outcome of requests, and the times at which the broker got them."""
        self._id_hash, self._check_keys, self._replied = id_hash, check_keys, replied
        self._documents = Documents(config, recommender, id_hash)
        self._topic, self._limit = config.topics.requests, config.worker.requests_per_poll
        self._batch_users = config.worker.rank_batch_users
        self._assignment, self._outbox = assignment, outbox
        self._recommender, self._answering_lock = recommender, answering_lock
        self._renew_lease = renew_lease
        self.too_many = 0
        """Requests that were not answered because there were too many, since the start."""
        self._keys, self._rarely = config.kafka.signing_keys, Rarely()

    async def answer(self, polled: Mapping[int, Sequence[Record]]) -> dict[int, int]:
        """Answer the requests of a poll, by partition; reply to those beyond the limit that there are too many.

        A message that is not a request goes to the dead letters. A store is held until the replies are acknowledged: a
        partition that is revoked goes to its next owner only then. Returns the offsets to read again from: the lease
        ran out before everything was sent, or the store is being opened.
        """
        asked: dict[int, list[Asked]] = {}
        again: dict[int, int] = {}
        for number, records in polled.items():
            asked[number], dead = read_requests(records, self._keys)
            # Only what is asked of a user's own partition has to be there.
            keyed = {r.offset for r in asked[number] if r.want == "recommendation"}
            self._check_keys(TopicPartition(self._topic, number), [r.key for r in records if r.offset in keyed])
            for letters in parts(dead, SENT_AT_ONCE):
                await self._in_a_hold(number, self._reject(number, letters), letters[0].record.offset, again)
        chosen = choose(asked, self._limit)
        for number, requests in asked.items():
            answered = chosen[number]
            for batch in parts([requests[at] for at in sorted(answered)], self._batch_users):
                await self._in_a_hold(number, self._answer(number, batch), batch[0].offset, again)
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

    async def _answer(self, number: int, requests: Sequence[Asked]) -> None:
        ranked = [request for request in requests if request.want == "recommendation"]
        others = [request for request in requests if request.want != "recommendation" and not request.refused]
        unsigned = [request for request in requests if request.refused]
        if ranked:
            await self._rank(number, ranked)
        if others:
            store = self._assignment.stores[number]
            async with self._answering_lock:
                documents = await self._documents.read_off_loop(number, store, others)
            await self._outbox.send_documents(documents)
        if unsigned:
            await self._outbox.send_documents([document_without(request, number, "refused") for request in unsigned])
            self._log_unsigned()
        self._replied("ok", [request.ts for request in requests if not request.refused])
        self._replied("unsigned", [request.ts for request in unsigned])

    async def _rank(self, number: int, requests: Sequence[Asked]) -> None:
        store, users = self._assignment.stores[number], [request.user for request in requests]
        messages = await messages_now(self._recommender, self._answering_lock, self._id_hash, number, store, users)
        replies = [msgspec.json.decode(message, type=Reply) for message in messages]
        # A user without events has no id in the state.
        await self._outbox.send_replies(
            [
                msgspec.structs.replace(m, user=r.user, id=r.id, items=m.items[: r.limit] if r.limit else m.items)
                for m, r in zip(replies, requests, strict=True)
            ],
            [request.traced for request in requests],
        )

    async def _reject(self, number: int, letters: Sequence[DeadLetter]) -> None:
        await self._outbox.send_dead_letters(self._topic, number, letters)
        self._replied("invalid", [letter.record.timestamp for letter in letters])

    async def _refuse(self, number: int, requests: Sequence[Asked]) -> None:
        ranked = [request for request in requests if request.want == "recommendation"]
        others = [request for request in requests if request.want != "recommendation"]
        replies = [reply_too_many(request, number) for request in ranked]
        await self._outbox.send_replies(replies, [request.traced for request in ranked])
        await self._outbox.send_documents([document_without(request, number, "too many") for request in others])
        self.too_many += len(requests)
        self._replied("too_many", [request.ts for request in requests])
        self._log_refused()

    def _log_unsigned(self) -> None:
        if self._rarely.may_log("unsigned"):
            log.warning(
                "a request for a user's history is replied to with 'refused': kafka.signing_key has not signed it. Set "
                "the same key where it was sent"
            )

    def _log_refused(self) -> None:
        if self._rarely.may_log():
            log.warning(
                "more requests than worker.requests_per_poll = %d came between two polls: %d are replied to with "
                "'too many' since the start", self._limit, self.too_many,
            )  # fmt: skip


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


def document_without(request: Asked, partition: int, status: Literal["too many", "refused"]) -> Document:
    """The reply to a request that wants no recommendation and is not answered."""
    return Document(id=request.id, want=request.want, partition=partition, emitted_ts=now_ms(), status=status)


def parts(every: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Parts of at most `size`."""
    return (every[start : start + size] for start in range(0, len(every), size))
