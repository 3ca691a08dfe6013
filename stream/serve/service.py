"""The process of `anabranch serve`: one HTTP server, and the Kafka clients behind it."""

import asyncio
import contextlib
import logging
from collections.abc import Callable

import msgspec
from aiohttp import web

from stream.config import Config
from stream.http import listening_file
from stream.http.address import Address, parse_address
from stream.http.api import Api
from stream.http.health import Checks, add_health
from stream.http.local_name import on_this_machine
from stream.http.server import HttpServer
from stream.kafka.ask import RequestClient
from stream.members.member import Member, begin
from stream.members.publish import MemberPublisher
from stream.metrics.route import add_metrics, measured
from stream.metrics.samples import Samples, make_registry
from stream.serve.instruments import ApiInstruments
from stream.serve.kafka_parts import KafkaParts

log = logging.getLogger("anabranch.serve")


class ServeService:
    """Serves until it is stopped. It answers from the start: until a broker does, with what is missing."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._parts = KafkaParts(config)
        self._member = begin("serve", config.serve.instance, config.serve.http)
        self._stopping = asyncio.Event()
        instruments = ApiInstruments()
        self.app = web.Application(middlewares=[measured(instruments)])
        """The console adds its pages before `run`."""
        self._api = Api(config, self._parts.answers, instruments)
        self._api.add_to(self.app)
        add_metrics(self.app, make_registry("serve", self._fill, instruments))
        add_health(self.app, Checks(live=self._parts.not_live, ready=self._not_ready))

    @property
    def client(self) -> RequestClient | None:
        """Asks the workers; None until a broker answers."""
        return self._parts.client

    def stop(self) -> None:
        """Begin to stop."""
        self._stopping.set()

    async def run(self, on_listening: Callable[[int], None] = lambda port: None) -> None:
        """Serve until `stop`; `on_listening` gets the port. Raises CannotListen, TopicMismatch."""
        host, port = parse_address(self._config.serve.http)
        server = HttpServer(self.app, host, port, setting="serve.http")
        port = await server.start()
        listening_file.write(self._config.data, str(Address(host, port)))
        on_listening(port)
        self._warn_if_open()
        publisher = MemberPublisher(self._config, self._record)
        publisher.start()
        connecting = asyncio.create_task(self._connect())
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait({connecting, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if connecting.done():
                connecting.result()
            await stopping
            await self._drain()
        finally:
            stopping.cancel()
            connecting.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await connecting
            await server.stop()
            await publisher.stop()
            await self._parts.close()

    def _warn_if_open(self) -> None:
        serve = self._config.serve
        if not serve.read_token and not on_this_machine(serve.http):
            log.warning(
                "serve.http = %r is for other machines too, and there is no serve.read_token: every caller can read "
                "what is recommended to any user and, in the console, any user's history. `openssl rand -hex 32` makes "
                "a token", serve.http,
            )  # fmt: skip

    async def _connect(self) -> None:
        await self._parts.connect()
        log.info("serve ready: asking workers through %s", self._config.broker)

    def _record(self) -> Member:
        """What this process publishes of itself now."""
        return msgspec.structs.replace(self._member, starting=bool(self._parts.not_ready()))

    async def _drain(self) -> None:
        """Answer for a while as not ready, and close each connection after its answer."""
        self._api.guard.stopping = True
        log.info("stopping: requests are answered for %g s more (serve.drain_s)", self._config.serve.drain_s)
        await asyncio.sleep(self._config.serve.drain_s)

    def _not_ready(self) -> list[str]:
        return ["this process is stopping"] if self._stopping.is_set() else self._parts.not_ready()

    def _fill(self, samples: Samples) -> None:
        samples.add("ready", not self._not_ready())
