"""The trainer: a process of its own that keeps learning from the state the workers write.

One cycle at a time: see what is new (never all of history), learn from the users it touched and a replayed sample of
others, publish the version, and move the pointer if the gate says so. Whatever goes wrong, the champion goes on serving
and the next cycle begins where learning stopped: what the champion has learned stands in its manifest. The workers'
stores are read as RocksDB secondaries; the loop that listens for commands never waits for torch.
"""

import asyncio
import contextlib
import logging
import time

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError

from model.errors import ArtifactError
from model.learning.cycle import Trained
from model.learning.gate import Verdict
from model.learning.versions import Version, list_versions, prune, publish
from state.errors import StateError
from state.view import View
from stream.config import Config
from stream.kafka.commands import Commands
from stream.kafka.connection import connection
from stream.kafka.messages import Command, CommandReply, Pointer, encode
from stream.kafka.pointers import (
    MODEL_NAME,
    Pointers,
    apply_pointer,
    consumer_partitions,
    decode_pointer,
    key_of,
    pointer_to,
    read_pointers,
)
from stream.live_metrics import MODEL, Score, decode_scores, total
from stream.stores.artifacts import fetch_version
from stream.trainer import status_file as health
from stream.trainer.drift import Drift
from stream.trainer.status_file import TrainerStatus
from stream.trainer.training_data import News, candidate, news, read
from stream.trainer.trigger import Trigger

log = logging.getLogger("anabranch.trainer")

LOOK_EVERY_S = 1.0


class Trainer:
    """Learns in cycles: after so many new events, so many seconds, on drift, or on command."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._view = View(config.data, config.topics.clicks, config.state)
        self._pointers = Pointers()
        self._champion: Version | None = None
        self._published: Version | None = None
        self._heard_ts = 0
        self._commands = Commands()
        self._waiting: list[Command] = []
        self._serving: list[Command] = []
        self._trigger = Trigger(config.trainer, time.monotonic())
        self._drift = Drift(config.trainer.drift_delta, config.trainer.drift_quiet_s)
        self._counted: dict[int, int] | None = None
        self._health = TrainerStatus(since_ts=now_ms())

    async def run(self) -> None:
        """Listen and learn, for ever."""
        config = self._config
        self._producer = AIOKafkaProducer(**connection(config), acks="all")
        self._listener = AIOKafkaConsumer(**connection(config), enable_auto_commit=False)
        await self._producer.start()
        await self._listener.start()
        try:
            topics = (config.topics.models, config.topics.commands)
            listened = [TopicPartition(t, p) for t in topics for p in await consumer_partitions(self._listener, t)]
            self._listener.assign(listened)
            await self._listener.seek_to_end(*listened)
            await self._follow(await read_pointers(config))
            served = self._pointers.champion
            log.info("trainer ready: %s", served.version if served else "no version yet")
            listening = asyncio.create_task(self._listen())
            try:
                while True:
                    await self._cycle_if_due()
                    if listening.done():
                        listening.result()
                    await asyncio.sleep(LOOK_EVERY_S)
            finally:
                listening.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await listening
        finally:
            await self._listener.stop()
            await self._producer.stop()
            self._view.close()

    async def _listen(self) -> None:
        while True:
            for partition, records in (await self._listener.getmany(timeout_ms=500)).items():
                for record in records:
                    if partition.topic == self._config.topics.models:
                        await self._hear_pointer(decode_pointer(record.value))
                    else:
                        await self._hear(record.value)

    async def _hear(self, value: bytes | None) -> None:
        command = self._commands.accept(value)
        if command is None or command.command != "retrain":
            return
        self._waiting.append(command)
        if self._health.doing == "learning":
            told = f"a cycle is under way ({self._health.share:.0%} done); yours begins when it has ended"
            await self._reply(command, "waiting", told)
        else:
            await self._reply(command, "started", "a cycle begins")

    async def _hear_pointer(self, arrived: Pointer | None) -> None:
        """The topic's order decides, for us as for the workers: also our own pointers count when they come back."""
        if arrived is None:
            return
        before = self._pointers.champion
        await self._follow(apply_pointer(self._pointers, arrived))
        if arrived.role != "champion":
            return
        self._heard_ts = max(self._heard_ts, arrived.moved_ts)
        crossed = (
            before is not None and before.pinned and arrived.by == "trainer" and arrived.moved_ts > before.moved_ts
        )
        if crossed and before is not None:
            # Ours crossed the operator's on its way. Workers heed the pin, but compaction would keep ours.
            await self._send_pointer(msgspec.structs.replace(before, moved_ts=arrived.moved_ts + 1, by="operator"))

    async def _follow(self, pointers: Pointers) -> None:
        """Take a moved pointer (a rollback, another trainer's version) as the champion to learn on from."""
        champion, self._pointers = pointers.champion, pointers
        if champion is None or (self._champion is not None and self._champion.manifest.version == champion.version):
            return
        if self._published is not None and self._published.manifest.version == champion.version:
            self._champion = self._published
            return
        try:
            self._champion = await asyncio.to_thread(fetch_version, champion, self._config)
        except ArtifactError as error:
            log.error("cannot learn on from version %s: %s", champion.version, error)
            self._told(failure=f"cannot learn on from version {champion.version}: {error}")

    async def _cycle_if_due(self) -> None:
        try:
            await asyncio.to_thread(self._look)
        except StateError as error:
            log.error("the state cannot be read: %s", error)
            self._told(failure=str(error))
            return
        why = self._trigger.due(time.monotonic())
        if not self._waiting and why is None:
            return
        if self._pointers.champion is not None and self._champion is None:
            await self._follow(self._pointers)  # the artifact store was away: its version is what to learn on from
            if self._champion is None and not await self._begin_anew():
                return
        new = await asyncio.to_thread(news, self._view, self._champion)
        self._serving, self._waiting = self._waiting, []
        if not new.upto:
            for command in self._serving:
                await self._reply(command, "failed", "nothing has been learned from yet: no events have arrived")
            self._serving = []
            return
        self._trigger.began(time.monotonic())
        self._told(doing="learning", what=why or "an operator's word", share=0.0, events=0)
        telling = asyncio.create_task(self._tell())
        try:
            status, told, version = await self._cycle(new)
        except Exception as error:
            log.exception("cycle failed; the champion goes on serving")
            await self._failed(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)
            return
        finally:
            telling.cancel()
        self._trigger.ended()
        log.info(told)
        self._told(doing="waiting", what="", share=0.0, last=told, last_ts=now_ms(), failures=0, failure="")
        for command in self._serving:
            await self._reply(command, status, told, version)
        self._serving = []

    async def _begin_anew(self) -> bool:
        """Where the champion cannot be loaded: only an artifact store that answers and has nothing is begun anew."""
        try:
            left = await asyncio.to_thread(list_versions, self._config.artifacts_url, MODEL_NAME)
        except ArtifactError as error:
            await self._failed(f"the champion cannot be loaded: {error}")
            return False
        if left:
            await self._failed(f"the champion cannot be loaded; `anabranch rollback {left[-1].version}` serves another")
            return False
        log.warning("the artifact store holds no version any more: learning begins from nothing")
        return True

    async def _failed(self, why: str) -> None:
        pause = self._trigger.failed(time.monotonic())
        told = f"the cycle failed ({why}); the champion goes on serving, the next try is in {pause:.0f} s"
        self._told(doing="waiting", what=told, share=0.0, failures=self._health.failures + 1, failure=why)
        serving, self._serving = self._serving + self._waiting, []
        self._waiting = []
        for command in serving:
            await self._reply(command, "failed", told)

    async def _cycle(self, new: News) -> tuple[str, str, str | None]:
        """Learn, publish, and serve or not; the status, a sentence, and the version that serves for it."""
        config, champion = self._config, self._champion
        started = time.monotonic()
        trained = await asyncio.to_thread(candidate, config, self._view, champion, new, self._progress)
        learned_s = time.monotonic() - started
        shadow = any(c.shadow for c in self._serving)
        trained = trained._replace(verdict=self._decided(trained, shadow))
        version = await asyncio.to_thread(publish, config.artifacts_url, MODEL_NAME, trained, new.upto)
        name = version.manifest.version
        told = f"version {name}, {new.events:,} new events in {learned_s:.1f} s: {trained.verdict.reason}"
        if not trained.verdict.promoted:
            if shadow and not trained.verdict.reason.startswith("not scored"):
                after = self._pointers.candidate
                await self._send_pointer(pointer_to(config, name, after, role="candidate", by="trainer"))
            await self._prune(trained)
            return "kept", told, None
        self._published = version
        pointer = pointer_to(config, name, self._pointers.champion, by="trainer")
        await self._send_pointer(pointer)
        for _ in range(100):
            if self._heard_ts >= pointer.moved_ts:
                break
            await asyncio.sleep(0.1)
        await self._prune(trained)
        return "done", told, name

    def _decided(self, trained: Trained, shadow: bool) -> Verdict:
        """The gate's verdict, but a pinned champion stays, and what was learned to be watched is watched."""
        served, verdict = self._pointers.champion, trained.verdict
        if shadow and served is not None:
            if not verdict.promoted:
                return Verdict(False, f"not scored beside the champion: {verdict.reason}")
            return Verdict(False, f"scored beside the champion, not served (retrain --shadow); {verdict.reason}")
        if served is not None and served.pinned and verdict.promoted:
            reason = f"champion kept: version {served.version} is pinned until `anabranch rollback --unpin`; else "
            return Verdict(False, reason + verdict.reason)
        return verdict

    async def _prune(self, trained: Trained) -> None:
        pointers = self._pointers
        needed = [p.version for p in (pointers.champion, pointers.candidate) if p is not None]
        needed += [trained.parent] if trained.parent else []
        keep = self._config.trainer.keep_versions
        await asyncio.to_thread(prune, self._config.artifacts_url, MODEL_NAME, keep, needed)

    def _look(self) -> None:
        """Count what has come since the last look, and watch how well it was foretold."""
        self._view.refresh()
        upto = {number: p.read_progress().next_offset for number, p in self._view.partitions.items()}
        if self._counted is None:
            self._counted = dict(news(self._view, self._champion).since)
        since = {number: min(self._counted.get(number, 0), end) for number, end in upto.items()}
        if upto != since:
            self._trigger.arrived(read(self._view, since, upto)["user"])
        self._counted = upto
        scores = total([decode_scores(p.prequential()) for p in self._view.partitions.values()])
        model = scores.get(MODEL, Score())
        told = self._drift.look(model.events, model.hits, time.monotonic())
        if told is not None:
            log.info(told)
            self._trigger.drifted(told)
        if self._trigger.events != self._health.events or self._drift.fired != self._health.drifts:
            self._told(events=self._trigger.events, drifts=self._drift.fired)

    def _progress(self, share: float, what: str) -> None:
        self._health.share, self._health.what = share, what

    async def _tell(self) -> None:
        """Say how far the cycle is, once a second, to whoever waits for it."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            health.write(self._config.data, self._health)
            for command in self._serving:
                await self._reply(command, "progress", self._health.what, share=self._health.share)

    def _told(self, **what: object) -> None:
        if what.get("doing", self._health.doing) != self._health.doing:
            what["since_ts"] = now_ms()
        self._health = msgspec.structs.replace(self._health, **what)
        health.write(self._config.data, self._health)

    async def _send_pointer(self, pointer: Pointer) -> None:
        await self._producer.send_and_wait(self._config.topics.models, encode(pointer), key=key_of(pointer))

    async def _reply(
        self, command: Command, status: str, message: str, version: str | None = None, share: float | None = None
    ) -> None:
        """Answer; a broker that is away for it is no reason to stop learning."""
        reply = CommandReply(command.id, status, message, version, share)
        try:
            await self._producer.send_and_wait(
                self._config.topics.command_replies, encode(reply), key=command.id.encode()
            )
        except KafkaError as error:
            log.warning("nobody could be told %r: %s", message, error)


def now_ms() -> int:
    """The wall clock."""
    return time.time_ns() // 1_000_000
