"""Answers on their way to the broker while the next users are ranked: an acknowledgement takes as long as a ranking."""

import asyncio

MAX_BATCHES_IN_FLIGHT = 4
"""Largest number of batches of answers in flight."""


class SendsInFlight:
    """The sends that have begun and not ended."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._failure: BaseException | None = None

    def add(self, send: asyncio.Task[None]) -> None:
        """Count a send until it ends."""
        self._tasks.add(send)
        send.add_done_callback(self._ended)

    async def wait_for_room(self) -> None:
        """Wait until another batch may be sent."""
        while len(self._tasks) >= MAX_BATCHES_IN_FLIGHT:
            await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)

    async def wait_for_all(self) -> None:
        """Wait until all that are in flight now have ended."""
        if self._tasks:
            await asyncio.wait(self._tasks)

    def raise_failure(self) -> None:
        """Raise the error that ended a send, if one did."""
        if self._failure is not None:
            raise self._failure

    def _ended(self, send: asyncio.Task[None]) -> None:
        self._tasks.discard(send)
        if not send.cancelled() and (error := send.exception()) is not None:
            self._failure = error
