"""A network connection to a broker that can be slowed down and cut."""

import asyncio
import contextlib
import threading
from collections.abc import Iterator

from stream.local.embedded_broker import free_port


class Wire:
    """Carries bytes between clients of its own port and a broker behind it."""

    def __init__(self, to_port: int) -> None:
        self.port, self._to = free_port(), to_port
        self.delay_s = 0.0
        self._open: set[asyncio.StreamWriter] = set()
        self._cut = False
        self._loop = asyncio.new_event_loop()

    def cut(self) -> None:
        """Break every connection and refuse new ones."""
        self._cut = True
        self._loop.call_soon_threadsafe(self._break)

    def reconnect(self) -> None:
        """Accept connections again."""
        self._cut = False

    def _break(self) -> None:
        for writer in self._open:
            writer.transport.abort()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._cut:
            writer.transport.abort()
            return
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self._to)
        self._open |= {writer, there_writer}
        await asyncio.gather(self._carry(reader, there_writer), self._carry(there_reader, writer))
        self._open -= {writer, there_writer}

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                writer.write(data)
                await writer.drain()
        writer.close()

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Carry bytes, in a thread, until the block ends."""
        ready = threading.Event()

        async def serve() -> None:
            self._stop = asyncio.Event()
            server = await asyncio.start_server(self._connected, "127.0.0.1", self.port)
            ready.set()
            await self._stop.wait()
            server.close()
            self._break()
            await asyncio.sleep(0.1)

        thread = threading.Thread(target=self._loop.run_until_complete, args=(serve(),))
        thread.start()
        ready.wait()
        try:
            yield
        finally:
            self._loop.call_soon_threadsafe(self._stop.set)
            thread.join()
            for task in asyncio.all_tasks(self._loop):
                task.cancel()
            self._loop.close()
