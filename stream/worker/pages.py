"""The worker's pages: `/livez`, `/readyz`, `/startupz`, `/metrics`, and `/v1/` where it answers shops."""

from collections.abc import Iterator
from contextlib import contextmanager

from aiohttp import web
from mode import ServiceT

from stream.config import Config
from stream.http.address import parse_address
from stream.http.health import STARTING, Checks, add_health
from stream.http.server import HttpServer
from stream.metrics.disk import Disk
from stream.metrics.instruments import WorkerInstruments
from stream.metrics.route import add_metrics
from stream.metrics.samples import Samples, make_registry
from stream.worker.direct_answers import HttpApi
from stream.worker.present import Present


class WorkerPages:
    """Tells what a worker does, from memory, from its start on. Nothing where `worker.http` is empty."""

    def __init__(
        self, config: Config, worker: ServiceT, instruments: WorkerInstruments, disk: Disk, api: HttpApi | None
    ) -> None:
        """`api` is the interface for shops, where this worker has it."""
        self._http, self._worker, self._instruments, self._disk, self._api = (
            config.worker.http, worker, instruments, disk, api,
        )  # fmt: skip
        self._server: HttpServer | None = None
        self._present: Present | None = None
        self._ended: list[str] = []
        """Tasks that have ended although the worker goes on."""
        self.waits_for = ""
        """The broker that the start waits for, in words."""

    async def start(self) -> None:
        """Begin to answer. Raises CannotListen."""
        if not self._http:
            return
        app = web.Application()
        add_health(app, Checks(self._not_alive, self._not_ready, self._not_started))
        registry = make_registry("worker", self._fill, self._instruments)
        add_metrics(app, registry)
        if self._api is not None:
            self._api.add_to(app, registry)
        server = HttpServer(app, *parse_address(self._http), setting="worker.http")
        await server.start()
        self._server = server
        self._disk.start()

    async def stop(self) -> None:
        """Answer no more."""
        if self._server is not None:
            self._disk.stop()
            await self._server.stop()

    def started(self, present: Present) -> None:
        """The worker has all its parts."""
        self._present = present

    @contextmanager
    def lasting(self, name: str) -> Iterator[None]:
        """Around a task that ends with the worker only: where it ends before, the worker is not alive."""
        try:
            yield
        finally:
            self._ended.append(name)

    def _not_alive(self) -> list[str]:
        if self._worker.crashed:
            return [f"an error that it does not know has ended it: {type(self._worker.crash_reason).__name__}"]
        return [] if self._worker.should_stop else [f"its task {name!r} has ended" for name in self._ended]

    def _not_ready(self) -> list[str]:
        if self._worker.should_stop:
            return ["it is stopping"]
        return self._present.not_ready() if self._present is not None else [self.waits_for or STARTING]

    def _not_started(self) -> list[str]:
        return [] if self._present is not None or self.waits_for else [STARTING]

    def _fill(self, samples: Samples) -> None:
        if self._present is not None:
            self._present.fill(samples)
        else:
            samples.add("ready", 0)
