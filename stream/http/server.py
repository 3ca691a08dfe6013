"""An HTTP server in the event loop of its process, on one address that a setting names."""

import asyncio
import contextlib
import errno
import logging
import threading
from collections.abc import Iterator
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from stream.errors import AnabranchError
from stream.http.address import Address, parse_address
from stream.kafka.rarely import Rarely

log = logging.getLogger("anabranch.http")
protocol_log = logging.getLogger("anabranch.http.protocol")

STOP_WITHIN_S = 2.0
"""Requests that are being answered when the process ends get this long."""
REASONS = {
    errno.EADDRINUSE: "another process listens there already",
    errno.EADDRNOTAVAIL: "this machine does not have that address",
    errno.EACCES: "this user may not listen there: ports below 1024 are the system's",
}
IDLE_S = 75.0
"""A connection on which no complete request came for this long is closed."""
MAX_CONNECTIONS = 5_000
"""Connections at once; further ones are closed. Each is an open file, and stores need open files too."""


class ProtocolLog(logging.Filter):
    """Leaves out requests that are no HTTP: anybody can send them, and what is logged of them could hold a token."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to log the record."""
        error = record.exc_info[1] if record.exc_info else None
        return not isinstance(error, HttpProcessingError)


protocol_log.addFilter(ProtocolLog())


class _Closed(asyncio.Protocol):
    """A connection that is one too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


class _Runner(web.AppRunner):
    """Takes at most MAX_CONNECTIONS."""

    __slots__ = ("_rarely",)

    def __init__(self, app: web.Application, **settings: Any) -> None:
        super().__init__(app, **settings)
        self._rarely = Rarely()

    @property
    def server(self) -> Any:
        """What makes the protocol of a new connection."""
        return self._protocol

    def _protocol(self) -> asyncio.BaseProtocol:
        server = super().server
        assert server is not None
        if len(server.connections) < MAX_CONNECTIONS:
            return server()
        if self._rarely.may_log():
            log.warning("%d HTTP connections are open: further ones are closed at once", MAX_CONNECTIONS)
        return _Closed()


async def _say_nothing_of_the_software(_: web.Request, response: web.StreamResponse) -> None:
    response.headers["Server"] = "anabranch"


class CannotListen(AnabranchError):
    """The address of a setting `http` cannot be listened on."""


class HttpServer:
    """Serves an application on HOST:PORT until it is stopped."""

    def __init__(self, app: web.Application, host: str, port: int, *, setting: str = "http") -> None:
        """`setting` names the setting in messages. An empty host: every address of the machine."""
        self._runner = _Runner(
            app, access_log=None, logger=protocol_log, shutdown_timeout=STOP_WITHIN_S, keepalive_timeout=IDLE_S,
            auto_decompress=False,
        )  # fmt: skip
        self._host, self._port, self._setting = host, port, setting
        app.on_response_prepare.append(_say_nothing_of_the_software)

    async def start(self) -> int:
        """Listen; return the port, which the system chooses where it is 0. Raises CannotListen."""
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self._host or None, self._port).start()
        except OSError as error:
            await self._runner.cleanup()
            address = Address(self._host, self._port)
            why = REASONS.get(error.errno or 0, error.strerror or str(error))
            raise CannotListen(
                f"{self._setting} = '{address}': {why}, so nobody could reach this process. Choose another "
                f"address; `ss -ltnp` lists who listens where"
            ) from None
        port: int = self._runner.addresses[0][1]
        log.info("HTTP on http://%s", Address(self._host or "0.0.0.0", port))
        return port

    async def stop(self) -> None:
        """Answer what has begun, and close."""
        await self._runner.cleanup()


@contextlib.contextmanager
def serving_beside(app: web.Application, http: str, setting: str) -> Iterator[None]:
    """Serve in a thread while the block runs without an event loop; nothing where `http` is empty.

    Raises CannotListen before the block.
    """
    if not http:
        yield
        return
    loop, server = asyncio.new_event_loop(), HttpServer(app, *parse_address(http), setting=setting)
    try:
        loop.run_until_complete(server.start())
        thread = threading.Thread(target=loop.run_forever, name="http", daemon=True)
        thread.start()
        try:
            yield
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.run_until_complete(server.stop())
    finally:
        loop.close()
