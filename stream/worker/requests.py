"""Requests: "recommend for this user now", answered on the replies topic."""

import asyncio
from collections.abc import Sequence

import msgspec

from state.id_hash import IdHash
from state.pending import Unanswered
from stream.kafka.decode import DeadLetter, Record
from stream.kafka.messages import UNREADABLE, Request
from stream.stores.assignment import Assignment
from stream.worker.outbox import Outbox
from stream.worker.recommender import Recommender


class Requests:
    """Answers requests from the stores of their users' partitions."""

    def __init__(
        self,
        topic: str,
        assignment: Assignment,
        recommender: Recommender,
        outbox: Outbox,
        answering_lock: asyncio.Lock,
        id_hash: IdHash,
    ) -> None:
        self._id_hash = id_hash
        self._topic, self._assignment, self._outbox = topic, assignment, outbox
        self._recommender, self._answering_lock = recommender, answering_lock

    async def answer(self, number: int, records: Sequence[Record]) -> None:
        """Rank for each request and send the reply. A message that is not a request goes to the dead letters.

        The store is held until the reply is acknowledged: a partition that is revoked goes to its next owner only then.
        """
        for record in records:
            async with self._assignment.hold(number) as store:
                if store is None:
                    return
                try:
                    request = msgspec.json.decode(record.value or b"", type=Request)
                    user = self._id_hash.of(str(request.user))
                except (*UNREADABLE, UnicodeEncodeError) as error:
                    letter = DeadLetter(record, f"no request: {error}")
                    await self._outbox.send_dead_letters(self._topic, number, [letter])
                    continue
                next_offset = store.progress.next_offset
                async with self._answering_lock:
                    [answer] = await self._recommender.recommend_off_loop(
                        number, {user: Unanswered(next_offset, next_offset - 1, -1)}
                    )
                await self._outbox.send_reply(request, answer)
