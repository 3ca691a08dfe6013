"""The interface for shops in the process of a worker: its own users are answered without Kafka."""

import asyncio
import contextlib
import logging

from aiohttp import web
from prometheus_client import CollectorRegistry

from stream.config import Config
from stream.errors import AnabranchError
from stream.http.api import Api
from stream.kafka.messages import Recommendation, Recommended
from stream.metrics.route import measured
from stream.serve.instruments import ApiInstruments
from stream.serve.kafka_owners import KafkaOwners
from stream.serve.kafka_parts import KafkaParts
from stream.serve.owners import KnownItem
from stream.worker.direct_answers import DirectAnswers

log = logging.getLogger("anabranch.worker")


class WorkerApi:
    """The interface on a worker's server (`stream.worker.direct_answers.HttpApi`)."""

    def __init__(self, config: Config) -> None:
        self._parts, self._instruments = KafkaParts(config), ApiInstruments()
        self._api = Api(config, self._parts.answers, self._instruments, config.worker.http)
        self._connecting: asyncio.Task[None] | None = None

    def add_to(self, app: web.Application, registry: CollectorRegistry) -> None:
        """Add the routes, and the metrics of them."""
        self._instruments.register(registry)
        app.middlewares.append(measured(self._instruments))
        self._api.add_to(app)

    def begin(self, direct: DirectAnswers) -> None:
        """Answer this worker's users from its stores, and others through Kafka once it is connected."""
        self._connecting = asyncio.create_task(self._connect(direct))

    async def _connect(self, direct: DirectAnswers) -> None:
        try:
            await self._parts.connect(lambda others: WorkerOwners(direct, others))
        except AnabranchError as error:
            log.error("/v1/ has no connection to Kafka: %s", error)

    async def close(self) -> None:
        """Answer no longer."""
        self._api.guard.stopping = True
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.wait([self._connecting])
        await self._parts.close()


class WorkerOwners:
    """This worker's users are answered here, others by their workers."""

    def __init__(self, direct: DirectAnswers, others: KafkaOwners) -> None:
        self._direct, self._others = direct, others

    async def recommendation(self, user: str, within_s: float) -> Recommendation | None:
        """What the owner of the user recommends now."""
        partition = self._others.partition_of(user)
        if not self._direct.owns(partition):
            return await self._others.recommendation(user, within_s)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                return await self._direct.recommend(user, partition)
        return None

    async def item(self, item: str, within_s: float) -> KnownItem | None:
        """What all workers know about an item, together."""
        return await self._others.item(item, within_s)

    async def popular(self, within_s: float) -> list[Recommended] | None:
        """What is popular, best first."""
        return await self._others.popular(within_s)
