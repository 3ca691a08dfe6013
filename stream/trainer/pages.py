"""The trainer's pages: `/livez`, `/readyz`, `/startupz` and `/metrics`."""

import asyncio

from aiohttp import web

from stream.config import Config
from stream.http.address import parse_address
from stream.http.health import STARTING, Checks, add_health
from stream.http.server import HttpServer
from stream.metrics.catalogue import EXAMPLE_SKIPPED
from stream.metrics.disk import Disk
from stream.metrics.route import add_metrics
from stream.metrics.samples import Samples, make_registry
from stream.trainer import status_file
from stream.trainer.status_file import failing
from stream.trainer.trainer import Trainer


class TrainerPages:
    """Tells what a trainer does, from memory. Nothing where `trainer.http` is empty."""

    def __init__(self, config: Config, trainer: Trainer) -> None:
        self._config, self._trainer = config, trainer
        self._disk = Disk(config.data, contents=False)
        self._server: HttpServer | None = None
        self._listening: asyncio.Task[None] | None = None
        before = status_file.read(config.data)
        self._succeeded_ts = before.last_ts if before is not None else 0
        """When the last cycle of the trainer before this one succeeded, ms; 0: not known."""

    async def start(self) -> None:
        """Begin to answer. Raises CannotListen."""
        if not self._config.trainer.http:
            return
        app = web.Application()
        add_health(app, Checks(self.not_alive, self.not_ready, self.not_started))
        add_metrics(app, make_registry("trainer", self.fill, self._trainer.instruments))
        server = HttpServer(app, *parse_address(self._config.trainer.http), setting="trainer.http")
        await server.start()
        self._server = server
        self._disk.start()

    async def stop(self) -> None:
        """Answer no more."""
        self._disk.stop()
        if self._server is not None:
            await self._server.stop()

    def started(self, listening: asyncio.Task[None]) -> None:
        """The pointers are read, and this task takes commands and further pointers."""
        self._listening = listening

    def not_alive(self) -> list[str]:
        """Why it should be restarted."""
        ended = self._listening is not None and self._listening.done()
        return ["it no longer takes commands and pointers: its task 'listen' has ended"] if ended else []

    def not_ready(self) -> list[str]:
        """Why it does not learn."""
        if self._listening is None:
            return [STARTING]
        return [*self.not_alive(), *failing(self._trainer.status.current)]

    def not_started(self) -> list[str]:
        """Nothing: a broker that is away now would not come back sooner with a restart."""
        return []

    def fill(self, samples: Samples) -> None:
        """Every metric that is not counted as it happens."""
        trainer, now = self._trainer, self._trainer.status.current
        samples.add("ready", not self.not_ready())
        samples.add("trainer_learning", now.doing == "learning")
        samples.add("trainer_progress_ratio", now.share)
        samples.add("trainer_new_events", trainer.trigger.events)
        samples.add("trainer_consecutive_failures", now.failures)
        samples.add("drift_total", trainer.drift.fired)
        if ts := now.last_ts or self._succeeded_ts:
            samples.add("trainer_last_success_timestamp_seconds", ts / 1000)
        if trainer.examples is not None:
            samples.add("trainer_examples", len(trainer.examples))
            for reason in EXAMPLE_SKIPPED:
                samples.add("trainer_examples_skipped_total", trainer.examples.skipped[reason], reason)
        champion = trainer.champion.version
        learned = dict(champion.manifest.offsets) if champion is not None else {}
        for number, offset in learned.items():
            samples.add("trainer_learned_offset", offset, number)
        for number, end in (trainer.counted or {}).items():
            samples.add("trainer_unlearned_events", max(end - learned.get(number, 0), 0), number)
        if (use := self._disk.use) is not None:
            samples.add("disk_free_bytes", use.free)
