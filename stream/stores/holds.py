"""Uses of the stores. A store closes only when none is in use, because every ranking reads all of them.

What happens when a partition is revoked while an answer is being sent:

    1  the ranking has begun the send inside a hold, and `keep_until_done` keeps a hold until the send has ended
    2  the revocation enters `none_held`: from now on no hold begins, of any partition
    3  the send ends: acknowledged, the answer is recorded in the store, which is still open; without the lease, the
       users are released and stay pending for the next owner
    4  the last hold ends, the revoked store is closed, and the Kafka client lets the next owner have the partition
    5  holds begin again; one of the revoked partition gets no store

Step 3 ends in bounded time: once the lease has run out, it lasts one request timeout of the producer at most.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator


class Holds:
    """Holds that have begun and not ended. Many can be held at once; while a store closes, there is none."""

    def __init__(self) -> None:
        self._count = 0
        self._none_is_held, self._may_begin = asyncio.Event(), asyncio.Event()
        self._none_is_held.set()
        self._may_begin.set()
        self._closing = asyncio.Lock()

    @contextlib.asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """No store closes in this block. It begins after a closing that waits: never inside another hold."""
        while not self._may_begin.is_set():  # another closing may have begun before this one wakes up
            await self._may_begin.wait()
        self._begin()
        try:
            yield
        finally:
            self._end()

    def keep_until_done(self, task: asyncio.Task[None]) -> None:
        """Inside a hold: no store closes before this task has ended either."""
        self._begin()
        task.add_done_callback(lambda _: self._end())

    @contextlib.asynccontextmanager
    async def none_held(self) -> AsyncIterator[None]:
        """Stores may close in this block. New holds wait for its end, and it waits for the holds that have begun."""
        async with self._closing:
            self._may_begin.clear()
            try:
                await self._none_is_held.wait()
                yield
            finally:
                self._may_begin.set()

    def _begin(self) -> None:
        self._count += 1
        self._none_is_held.clear()

    def _end(self) -> None:
        self._count -= 1
        if not self._count:
            self._none_is_held.set()
