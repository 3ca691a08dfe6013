"""Users who were forgotten: tombstones replace their recommendations and their examples, and the rest of their bytes is
removed."""

import asyncio
from collections.abc import Sequence

from state.store import Store
from stream.stores.assignment import Assignment, Phase
from stream.worker.example_sender import ExampleSender
from stream.worker.outbox import Outbox
from stream.worker.sends_in_flight import SendsInFlight

SENT_AT_ONCE = 500
"""Tombstones that are sent before other users are answered."""


class Tombstones:
    """Sends tombstones behind the answers in flight, so that no older answer follows one."""

    def __init__(
        self,
        assignment: Assignment,
        outbox: Outbox,
        in_flight: SendsInFlight,
        answering_lock: asyncio.Lock,
        examples: ExampleSender | None,
    ) -> None:
        self._assignment, self._outbox, self._in_flight = assignment, outbox, in_flight
        self._answering_lock, self._examples = answering_lock, examples

    async def send(self, store: Store) -> None:
        """Send some of the tombstones that the store waits for. The caller holds the store and `answering_lock`.

        Raises LeaseLost or StoreFault.
        """
        if not store.erasures.needs_tombstones:
            return
        await self._in_flight.wait_for_all()
        forgotten = store.tombstones(SENT_AT_ONCE)
        await self._send([erasure.id for erasure in forgotten])
        store.record_tombstones(forgotten)

    async def send_of_unknown(self, users: Sequence[str]) -> None:
        """Send tombstones of users whom no store knows. The caller holds the store.

        The state of one may have expired while an answer was ranked or in flight. Raises LeaseLost.
        """
        if users:
            async with self._answering_lock:
                await self._in_flight.wait_for_all()
                await self._send(users)

    async def finish_erasures(self, number: int) -> None:
        """Do a part of the remaining work for forgotten users. Called between two polls.

        If all pending users were forgotten, no answer records that none is left. So this is recorded here.
        """
        async with self._assignment.hold(number) as store:
            if store is None:
                return
            if self._assignment.phase(number) is Phase.ANSWERING:
                if store.erasures.needs_tombstones:
                    async with self._answering_lock:
                        await self.send(store)
                store.record_all_answered()
            store.erasures.sweep()

    async def _send(self, users: Sequence[str]) -> None:
        await self._outbox.send_tombstones(users)
        if self._examples is not None:
            await self._examples.erase(users)
