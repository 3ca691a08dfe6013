"""The trainer: it keeps learning from the state that the workers write.

One cycle at a time: find the new events (never all of history), learn from them (`model.learning.cycle`), publish the
version, and move the pointer if the gate promotes it. After any failure the champion keeps serving, and the next cycle
begins where learning stopped: a manifest records what its version has learned. The workers' stores are read as RocksDB
secondaries. The loop that takes commands and pointers (`stream.trainer.service`) never waits for torch.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import msgspec
from aiokafka.errors import KafkaError

from model.errors import ArtifactError
from model.learning.cycle import ProgressCallback, run_cycle
from model.learning.gate import Verdict
from model.learning.trained import Trained
from model.learning.versions import Version, publish
from model.ranker.examples import Example
from model.ranking.fusion import uses_ranker
from state.artifact_store import beside
from state.errors import StateError
from state.id_hash import IdHash
from state.view import View
from stream.config import Config
from stream.errors import BrokerUnavailable
from stream.kafka.commands import RecordTime
from stream.kafka.example_log import ExampleLog
from stream.kafka.messages import Pointer
from stream.kafka.pointers import MODEL_NAME, Pointers
from stream.live_metrics import ALL_VERSIONS, Score, decode_scores, total
from stream.metrics.instruments import TrainerInstruments
from stream.trainer.champion import CannotContinue, ChampionFollower, Publisher
from stream.trainer.command_queue import CommandQueue
from stream.trainer.drift import Drift
from stream.trainer.phases import CyclePhases
from stream.trainer.status_file import TrainerReporter
from stream.trainer.training_data import News, collect_news, cycle_settings, news, read
from stream.trainer.trigger import Trigger

log = logging.getLogger("anabranch.trainer")

REPORT_EVERY_S = 1.0
PUBLISH_AGAIN_S = (5.0, 30.0, 60.0, 120.0, 300.0)
"""Pauses between the attempts to publish a version. Then its cycle fails, and the next one learns the events again."""


class CycleResult(NamedTuple):
    """The result of a cycle."""

    status: str
    """`done` or `kept`."""
    message: str
    version: str | None
    """The version that serves as a result."""
    outcome: str
    """The gate's (`model.learning.gate.Outcome`)."""


class Trainer:
    """Learns in cycles: after a number of new events or seconds, on drift, or on command."""

    def __init__(self, config: Config, publisher: Publisher, examples: ExampleLog | None = None) -> None:
        """Without `examples` a cycle replays events for the ranker."""
        self._config = config
        self.examples = examples
        """What is read of the topic `examples`."""
        self.view = View(config.data, config.topics.clicks, config.state)
        self.champion = ChampionFollower(config, publisher)
        self.commands = CommandQueue(config, publisher)
        self.trigger = Trigger(config.trainer, time.monotonic())
        self.drift = Drift(config.trainer.drift_delta, config.trainer.drift_quiet_s)
        self.status = TrainerReporter(config.data)
        self.instruments = TrainerInstruments()
        self.counted: dict[int, int] | None = None
        """The state's next offset of each partition, as it was counted last; None before."""

    async def on_pointer(self, pointer: Pointer | None) -> None:
        """Follow a pointer from the topic; a version that cannot be loaded is reported and tried again later."""
        try:
            await self.champion.on_pointer(pointer)
        except ArtifactError as error:
            self._report_unloadable(error)

    async def follow(self, pointers: Pointers) -> None:
        """Start from the pointers that the topic has."""
        try:
            await self.champion.follow(pointers)
        except ArtifactError as error:
            self._report_unloadable(error)

    async def on_command(self, value: bytes | None, sent: RecordTime | None = None) -> None:
        """Queue the command in a message of the commands topic; `sent` is the record's time, None: now."""
        status = self.status.current
        busy = f"a cycle is running ({status.share:.0%} done)" if status.doing == "learning" else None
        await self.commands.on_command(value, busy, sent)

    async def cycle_if_due(self) -> None:
        """Count new events, and run a cycle if one is due or commanded."""
        try:
            await asyncio.to_thread(self._count_new_events)
        except StateError as error:
            log.error("the state cannot be read: %s", error)
            self.status.update(failure=str(error))
            return
        why = self.trigger.due(time.monotonic())
        if not self.commands.waiting and why is None:
            return
        try:
            await self.champion.ensure_loaded()
        except CannotContinue as error:
            await self._on_failure(str(error))
            return
        new = await asyncio.to_thread(news, self.view, self.champion.version)
        self.commands.start_cycle()
        if not new.upto:
            await self.commands.finish("failed", "there is nothing to learn from: no events have arrived")
            return
        self.trigger.began(time.monotonic())
        self.status.update(doing="learning", what=why or "an operator's command", share=0.0, events=0)
        reporting = asyncio.create_task(self._report_progress())
        try:
            result = await self._cycle(new)
        except ArtifactError as error:
            log.error("cycle failed; the champion keeps serving: %s", error)
            await self._on_failure(str(error))
            return
        except KafkaError as error:
            why = f"Kafka did not acknowledge the pointer to the new version ({type(error).__name__})"
            log.error("cycle failed; the champion keeps serving: %s", why)
            await self._on_failure(why)
            return
        except Exception as error:
            log.exception("cycle failed; the champion keeps serving")
            await self._on_failure(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)
            return
        finally:
            reporting.cancel()
        self.trigger.ended()
        log.info(result.message)
        self.instruments.cycle(result.outcome)
        self.status.finish_cycle(result.message)
        await self.commands.finish(result.status, result.message, result.version)

    async def _cycle(self, new: News) -> CycleResult:
        """Learn, publish, and serve, score or keep the version."""
        started, champion = time.monotonic(), self.champion.version
        phases = CyclePhases(self.instruments)

        def progress(share: float, what: str) -> None:
            phases.on_progress(what)
            self.status.progress(share, what)

        examples = await self._read_examples()
        trained = await asyncio.to_thread(learn, self._config, self.view, champion, new, progress, examples)
        phases.begin("publish")
        seconds = time.monotonic() - started
        verdict = final_verdict(trained.verdict, self.champion.pointers.champion, shadow=self.commands.shadow)
        trained = trained._replace(verdict=verdict)
        version = await self._publish(trained, new)
        name = version.manifest.version
        if verdict.outcome == "promoted":
            await self.champion.promote(version)
        elif verdict.outcome == "shadow":
            await self.champion.score_beside(version)
        await self.champion.prune(also_keep=trained.parent)
        phases.end()
        message = f"version {name}, {new.events:,} new events in {seconds:.1f} s: {verdict.reason}"
        outcome = str(verdict.outcome)
        if verdict.promoted:
            return CycleResult("done", message, name, outcome)
        return CycleResult("kept", message, None, outcome)

    async def _read_examples(self) -> list[Example]:
        """The newest examples of the topic, as far as it can be read: a cycle does not wait for it."""
        if self.examples is None or not uses_ranker(self._config.ranking):
            return []
        try:
            if not await self.examples.read():
                topic = self._config.topics.examples
                log.warning("there is no topic %r that we may see: `anabranch init` creates it", topic)
        except BrokerUnavailable as error:
            log.warning("no new examples are read for this cycle: %s", error)
        return self.examples.examples()

    async def _publish(self, trained: Trained, new: News) -> Version:
        """Publish what a cycle has learned. An artifact store that is away is asked again: learning takes longer."""
        named = self.champion.pointers.champion
        write = partial(
            publish,
            self._config.artifacts_url,
            MODEL_NAME,
            trained,
            new.upto,
            self._config.kafka.signing_keys,
            named.version if named is not None else "",
        )
        for pause_s in PUBLISH_AGAIN_S:
            try:
                return await beside(write)
            except ArtifactError as error:
                log.error("the new version is not published: %s. Trying again in %.0f s", error, pause_s)
                await asyncio.sleep(pause_s)
        return await beside(write)

    async def _on_failure(self, why: str) -> None:
        pause_s = self.trigger.failed(time.monotonic())
        message = f"the cycle failed ({why}); the champion keeps serving, the next try is in {pause_s:.0f} s"
        self.instruments.cycle("failed")
        self.status.fail_cycle(message, why)
        await self.commands.fail_all(message)

    def _report_unloadable(self, error: ArtifactError) -> None:
        champion = self.champion.pointers.champion
        message = f"cannot load version {champion.version if champion else '?'} to continue from: {error}"
        log.error(message)
        self.status.update(failure=message)

    def _count_new_events(self) -> None:
        """Count the events since the last call, and track how well they were predicted."""
        self.view.refresh()
        upto = {number: p.read_progress().next_offset for number, p in self.view.partitions.items()}
        if self.counted is None:
            self.counted = dict(news(self.view, self.champion.version).since)
        since = {number: min(self.counted.get(number, 0), end) for number, end in upto.items()}
        if upto != since:
            self.trigger.update(read(self.view, since, upto)["user"])
        self.counted = upto
        scores = total([decode_scores(p.prequential()) for p in self.view.partitions.values()])
        model = scores.get(ALL_VERSIONS, Score())
        found = self.drift.update(model.events, model.hits, time.monotonic())
        if found is not None:
            log.info(found)
            self.trigger.on_drift(found)
        if (self.trigger.events, self.drift.fired) != (self.status.current.events, self.status.current.drifts):
            self.status.update(events=self.trigger.events, drifts=self.drift.fired)

    async def _report_progress(self) -> None:
        """Report progress once a second, to the status file and to the commands that the cycle answers."""
        while True:
            await asyncio.sleep(REPORT_EVERY_S)
            self.status.write()
            await self.commands.report_progress(self.status.current.what, self.status.current.share)


def learn(
    config: Config,
    view: View,
    champion: Version | None,
    new: News,
    progress: ProgressCallback,
    examples: Sequence[Example] = (),
) -> Trained:
    """Run one cycle on the state and the newest examples; return the trained version."""
    settings = cycle_settings(config)
    champion = of_this_key(champion, view.ids)
    cycle_input = collect_news(view, champion, new, settings)._replace(examples=examples)
    if champion is None:
        return run_cycle(None, cycle_input, settings, progress=progress)
    return run_cycle(champion.trained, cycle_input, settings, parent=champion.manifest.version, progress=progress)


def of_this_key(champion: Version | None, id_hash: IdHash) -> Version | None:
    """The champion with its items hashed as in the state."""
    if champion is None:
        return None
    vocabulary = champion.trained.vocabulary.hashed_by(id_hash)
    return msgspec.structs.replace(champion, trained=champion.trained._replace(vocabulary=vocabulary))


def final_verdict(verdict: Verdict, served: Pointer | None, *, shadow: bool) -> Verdict:
    """The gate's verdict, unless the candidate is only to be scored, or the champion is pinned."""
    if shadow and served is not None:
        if not verdict.promoted:
            return Verdict(False, f"not scored beside the champion: {verdict.reason}", "not_scored", verdict.change)
        reason = f"scored beside the champion, not served (retrain --shadow); {verdict.reason}"
        return Verdict(False, reason, "shadow", verdict.change)
    if served is not None and served.pinned and verdict.promoted:
        pin = f"version {served.version} is pinned until `anabranch rollback --unpin`"
        return Verdict(False, f"champion kept: {pin}; without the pin {verdict.reason}", "pinned", verdict.change)
    return verdict
