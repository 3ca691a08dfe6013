"""Publishes the record of this process every second, and a last one when it ends.

With a producer of its own: what it sends waits for nothing, and nothing waits for it. A broker that is away costs
records only, which the next one replaces.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable

import msgspec
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from stream.config import Config
from stream.kafka.connection import connection
from stream.kafka.exchange import close
from stream.kafka.messages import encode
from stream.kafka.rarely import Rarely
from stream.members.last_error import LastError
from stream.members.member import EVERY_S, Member
from stream.times import now_ms

log = logging.getLogger("anabranch.members")

SEND_WITHIN_S = 2.0
"""A record that is not acknowledged by then is given up: a newer one follows."""
CONNECT_WITHIN_S = 10.0
LAST_WITHIN_S = 1.0
"""Time that the last record gets, of a process that wants to end."""


class MemberPublisher:
    """Publishes what `look` returns. Only `stop` waits for the broker, for LAST_WITHIN_S and the end of a client."""

    def __init__(self, config: Config, look: Callable[[], Member]) -> None:
        self._config, self._look = config, look
        self._topic, self._rarely, self._last_error = config.topics.members, Rarely(), LastError()
        self._producer: AIOKafkaProducer | None = None
        self._task: asyncio.Task[None] | None = None
        self._ending = False
        """Set with each cancellation: the Kafka client can swallow one."""

    def start(self) -> None:
        """Begin to publish, in a task of its own."""
        logging.getLogger().addHandler(self._last_error)
        self._task = asyncio.create_task(self._run())

    async def stop(self, last: Member | None = None) -> None:
        """Publish that this process has ended as it should, and close. `last`: what it did before it began to end."""
        logging.getLogger().removeHandler(self._last_error)
        if self._task is None:
            return
        self._ending = True
        self._task.cancel()
        await asyncio.wait([self._task])
        if self._producer is not None:
            with contextlib.suppress(KafkaError, OSError, TimeoutError):
                record = msgspec.structs.replace(self._record(last), stopped=True)
                await self._send(self._producer, record, LAST_WITHIN_S)
            await close(self._producer)

    async def _run(self) -> None:
        while not self._ending:
            began = time.monotonic()
            try:
                if self._producer is None:
                    self._producer = await self._connected()
                await self._send(self._producer, self._record(), SEND_WITHIN_S)
            except (KafkaError, OSError, TimeoutError) as error:
                if self._rarely.may_log():
                    late = isinstance(error, TimeoutError) and not str(error)
                    why = "Kafka has not answered in time" if late else repr(error)
                    log.info("the state of this process is not published in %r: %s", self._topic, why)
            except Exception:  # a fault in a record must not end the worker, nor be silent
                if self._rarely.may_log("fault"):
                    log.exception("the state of this process is not published in %r", self._topic)
            await asyncio.sleep(max(EVERY_S - (time.monotonic() - began), 0.0))

    async def _connected(self) -> AIOKafkaProducer:
        config = self._config
        producer = AIOKafkaProducer(
            **connection(config), acks=1, linger_ms=0, request_timeout_ms=int(SEND_WITHIN_S * 1000)
        )
        try:
            async with asyncio.timeout(CONNECT_WITHIN_S):
                await producer.start()
        except BaseException:
            await close(producer)
            raise
        return producer

    async def _send(self, producer: AIOKafkaProducer, member: Member, within_s: float) -> None:
        async with asyncio.timeout(within_s):
            await producer.send_and_wait(self._topic, encode(member), key=member.key.encode())

    def _record(self, member: Member | None = None) -> Member:
        error = self._last_error
        member = member if member is not None else self._look()
        return msgspec.structs.replace(member, ts=now_ms(), last_error=error.text, last_error_ts=error.ts)
