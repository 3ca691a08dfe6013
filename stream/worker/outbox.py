"""Messages on their way to Kafka. Each call returns once the broker has acknowledged them, however long it is away.

Without the lease nothing is sent: another worker may own the partition, and its answers may be newer.

A message that the broker refuses for what it is (too large for its topic, no key where one is required) would be
refused for ever. It is sent again at once in a smaller form, and where the broker takes none of its forms it goes to
the dead letters. Other messages do not wait for it.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import msgspec
from aiokafka import AIOKafkaProducer
from aiokafka.errors import (
    CorruptRecordException,
    InvalidMessageError,
    KafkaError,
    MessageSizeTooLargeError,
    ProducerClosed,
    RecordListTooLargeError,
    RecordTooLargeError,
    UnknownError,
)
from aiokafka.partitioner import DefaultPartitioner

from stream.config import TopicSettings
from stream.kafka.decode import DeadLetter
from stream.kafka.documents import Document
from stream.kafka.lease import Lease, LeaseLost
from stream.kafka.messages import Reply, encode
from stream.kafka.rarely import Rarely
from stream.tracing.headers import TraceHeaders, trace_headers
from stream.worker.recommendation import Answer, smaller_forms

log = logging.getLogger("anabranch.outbox")

SEND_AGAIN_S = 1.0
TRUNCATED_BYTES = 1000
"""Length to which a dead letter is cut if its topic does not accept its size."""
MAX_REASON_CHARS = 1000

REFUSED = (
    MessageSizeTooLargeError,
    RecordListTooLargeError,
    RecordTooLargeError,
    CorruptRecordException,
    InvalidMessageError,
)
"""Errors about the message or its batch: the same message is refused again."""
ALONE_BYTES = 16_384
"""The client sends a larger message in a batch of its own: refused, it need not be sent alone."""
UNCLEAR_TRIES, UNCLEAR_AGAIN_S = 3, 0.1
"""The client reports INVALID_RECORD, and whatever it does not know, as UnknownError. After these tries the message
counts as refused."""


class Outgoing(NamedTuple):
    """One message, and what may be sent in its place where it is refused."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]] = ()
    smaller: Callable[[], Iterable["Outgoing"]] = tuple
    """Forms of the message that the broker may take, the best first. They have no smaller forms themselves."""


class OutboxCounts(msgspec.Struct):
    """What happened to refused messages since the worker started."""

    smaller: int = 0
    """Sent in a smaller form: without titles, without reasons, or truncated."""
    unsendable: int = 0
    """Answers and replies that went to the dead letters."""
    lost_dead_letters: int = 0
    """Dead letters that their topic took in no form. Each is logged."""


class Outbox:
    """Sends recommendations, replies, tombstones and dead letters. A message can be repeated, never lost.

    Every call tests the lease before each try, and raises LeaseLost without it. A try that has begun can outlast the
    lease by one request timeout of the producer, which is `worker.session_timeout_ms` too.
    """

    def __init__(
        self,
        topics: TopicSettings,
        producer: AIOKafkaProducer,
        lease: Lease,
        on_dead_letters: Callable[[Iterable[str]], None] = lambda _words: None,
    ) -> None:
        """`on_dead_letters` gets a word for each dead letter that was acknowledged: why it was sent."""
        self._topics, self._on_dead_letters = topics, on_dead_letters
        self._producer = producer
        self._lease = lease
        self.counts = OutboxCounts()
        self._rarely = Rarely()
        self._partitioner = DefaultPartitioner()

    async def send_recommendations(
        self, answers: Sequence[Answer], headers: Mapping[int, TraceHeaders] = MappingProxyType({})
    ) -> None:
        """Send recommendations, keyed by user; `headers` are those of users whose click was in a trace."""
        topic = self._topics.recommendations

        def outgoing(answer: Answer) -> Outgoing:
            traced = headers.get(answer.user, ())
            return Outgoing(
                topic, answer.user_id, answer.message, traced, lambda: [
                    Outgoing(topic, answer.user_id, form, traced) for form in smaller_forms(answer.message)
                ]
            )  # fmt: skip

        refused = await self._send("recommendations", list(map(outgoing, answers)))
        await self._to_dead_letters(refused)

    async def send_replies(self, replies: Sequence[Reply], headers: Sequence[TraceHeaders] | None = None) -> None:
        """Send the answers to requests, keyed by the request's id; `headers` are those of the requests' traces."""
        topic = self._topics.replies

        def outgoing(reply: Reply, traced: TraceHeaders) -> Outgoing:
            key, value = str(reply.id).encode() or None, encode(reply)

            def smaller() -> Iterable[Outgoing]:
                empty = msgspec.structs.replace(reply, items=[], status="too large")
                # A compacted topic takes no message without a key.
                forms = [*smaller_forms(value), encode(empty)]
                return [Outgoing(topic, key or reply.user.encode(), form, traced) for form in forms]

            return Outgoing(topic, key, value, traced, smaller)

        refused = await self._send("replies", list(map(outgoing, replies, headers or [()] * len(replies))))
        await self._to_dead_letters(refused)

    async def send_documents(self, documents: Sequence[Document]) -> None:
        """Send the answers to requests that want no recommendation, keyed by the request's id."""
        topic = self._topics.replies

        def outgoing(document: Document) -> Outgoing:
            key, empty = str(document.id).encode() or None, Document(
                id=document.id, want=document.want, partition=document.partition, emitted_ts=document.emitted_ts,
                status="too large",
            )  # fmt: skip
            return Outgoing(topic, key, encode(document), smaller=lambda: [Outgoing(topic, key, encode(empty))])

        await self._to_dead_letters(await self._send("replies", list(map(outgoing, documents))))

    async def send_tombstones(self, users: Sequence[str]) -> None:
        """Replace these users' recommendations by tombstones."""
        topic = self._topics.recommendations
        await self._send("tombstones", [Outgoing(topic, user.encode(), None) for user in users])

    async def send_dead_letters(self, topic: str, partition: int, dead: Sequence[DeadLetter]) -> None:
        """Send records unchanged, with the reason and their topic, partition and offset in headers."""
        letters = [
            self._dead_letter(
                letter.record.key,
                letter.record.value,
                letter.reason,
                topic,
                partition,
                letter.record.offset,
                trace_headers(letter.record.headers),
            )
            for letter in dead
        ]
        await self._send_letters(letters)
        self._on_dead_letters(letter.word for letter in dead)

    async def _to_dead_letters(self, refused: Sequence[tuple[Outgoing, KafkaError]]) -> None:
        self.counts.unsendable += len(refused)
        await self._send_letters(
            [
                self._dead_letter(
                    message.key, message.value, f"not sent: {error}", message.topic, -1, -1, message.headers
                )
                for message, error in refused
            ]
        )
        self._on_dead_letters("refused" for _ in refused)

    async def _send_letters(self, letters: list[Outgoing]) -> None:
        for letter, error in await self._send("dead letters", letters):
            self.counts.lost_dead_letters += 1
            about = {name: value.decode(errors="replace") for name, value in letter.headers}
            log.error(
                "the topic %s refuses a dead letter in every form (%s), and it is dropped: %s",
                letter.topic, error, about,
            )  # fmt: skip

    def _dead_letter(
        self,
        key: bytes | None,
        value: bytes | None,
        reason: str,
        topic: str,
        partition: int,
        offset: int,
        traced: Sequence[tuple[str, bytes]],
    ) -> Outgoing:
        to = self._topics.dead_letters
        about = {"reason": reason[:MAX_REASON_CHARS], "topic": topic}
        if partition >= 0:  # an answer of this worker has no place in a log
            about |= {"partition": str(partition), "offset": str(offset)}
        headers = [*((name, text.encode(errors="backslashreplace")) for name, text in about.items()), *traced]

        def smaller() -> Iterable[Outgoing]:
            cut_value, cut_key = (value or b"")[:TRUNCATED_BYTES], (key or b"")[:TRUNCATED_BYTES]
            cut = [*headers, ("truncated", str(len(value or b"")).encode())]
            if len(key or b"") > len(cut_key):
                cut.append(("truncated_key", str(len(key or b"")).encode()))
            yield Outgoing(to, cut_key or None, cut_value, cut)
            # A compacted topic takes no message without a key.
            yield Outgoing(to, f"{topic}-{partition}-{offset}".encode(), b"", cut)

        # The client takes no message that has neither a key nor a value.
        return Outgoing(to, key, b"" if key is None and value is None else value, headers, smaller)

    async def _send(self, what: str, messages: list[Outgoing]) -> list[tuple[Outgoing, KafkaError]]:
        """Send until each message is acknowledged or refused; return those refused in every form."""
        refused: list[tuple[Outgoing, KafkaError]] = []
        while messages:
            again: list[Outgoing] = []
            alone: list[Outgoing] = []
            for message, error in zip(messages, await self._try(messages), strict=True):
                if isinstance(error, (*REFUSED, UnknownError)):
                    alone.append(message)
                elif error is not None:
                    again.append(message)
                    problem = error
            if alone:  # at once, and before the pause below: the broker is there
                tried = await asyncio.gather(*(self._send_alone(what, message) for message in alone))
                refused += [(message, error) for message, error in zip(alone, tried, strict=True) if error is not None]
            if again:
                await self._wait_for_broker(what, problem)
            messages = again
        return refused

    async def _try(self, messages: list[Outgoing]) -> list[KafkaError | None]:
        """Send all of them once, in as few batches as the client makes; the error of each, or None."""
        self._check_lease()
        sent: list[asyncio.Future[object]] = []
        for message in messages:
            try:
                future = await self._producer.send(
                    message.topic, message.value, key=message.key, headers=list(message.headers)
                )
            except KafkaError as error:
                future = asyncio.get_running_loop().create_future()
                future.set_exception(error)
            sent.append(future)
        outcomes = await asyncio.gather(*sent, return_exceptions=True)
        for outcome in outcomes:
            _raise_unless_refused(outcome)
        return [outcome if isinstance(outcome, KafkaError) else None for outcome in outcomes]

    async def _send_alone(self, what: str, message: Outgoing) -> KafkaError | None:
        """Send a refused message, then its smaller forms, until one is taken; else the error of the last."""
        forms = [message, *message.smaller()] if _size(message) <= ALONE_BYTES else message.smaller()
        error: KafkaError = MessageSizeTooLargeError()
        for form in forms:
            refusal = await self._in_a_batch_of_its_own(what, form)
            if refusal is None:
                if form is not message:
                    self.counts.smaller += 1
                    self._log_refused(form, "was sent in a smaller form")
                return None
            error = refusal
        self._log_refused(message, "is refused in every form")
        return error

    async def _in_a_batch_of_its_own(self, what: str, message: Outgoing) -> KafkaError | None:
        """Send one message until it is acknowledged or refused: a batch is refused for any of its messages."""
        unclear = 0
        while True:
            self._check_lease()
            try:
                batch = self._producer.create_batch()
                batch.append(timestamp=None, key=message.key, value=message.value, headers=list(message.headers))
                partitions = list(await self._producer.partitions_for(message.topic))
                partition = self._partitioner(message.key, partitions, partitions)
                await (await self._producer.send_batch(batch, message.topic, partition=partition))
                return None
            except REFUSED as error:
                return error
            except KafkaError as error:
                _raise_unless_refused(error)
                unclear += isinstance(error, UnknownError)
                if unclear == UNCLEAR_TRIES:
                    return error
                if isinstance(error, UnknownError):
                    await asyncio.sleep(UNCLEAR_AGAIN_S)
                else:
                    await self._wait_for_broker(what, error)

    def _check_lease(self) -> None:
        if not self._lease.held:
            raise LeaseLost

    async def _wait_for_broker(self, what: str, error: KafkaError) -> None:
        log.warning("the broker did not take %s (%s); trying again in %.0f s", what, error, SEND_AGAIN_S)
        await asyncio.sleep(SEND_AGAIN_S)

    def _log_refused(self, message: Outgoing, outcome: str) -> None:
        if not self._rarely.may_log(message.topic):
            return
        log.warning(
            "the topic %s refuses a message as too large or invalid: it %s. Since the start %d were sent smaller, and "
            "%d answers went to the dead letters; raise max.message.bytes of the topic, or lower ranking.k",
            message.topic, outcome, self.counts.smaller, self.counts.unsendable,
        )  # fmt: skip


def _size(message: Outgoing) -> int:
    return len(message.key or b"") + len(message.value or b"")


def _raise_unless_refused(outcome: object) -> None:
    """Raise what ends the sending: a producer that is closed, and errors that are not the broker's."""
    if isinstance(outcome, ProducerClosed):  # the worker stops; the next owner sends it
        raise LeaseLost from None
    if isinstance(outcome, BaseException) and not isinstance(outcome, KafkaError):
        raise outcome
