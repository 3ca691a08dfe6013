"""The trainer: a process of its own that keeps learning from the state the workers write.

One cycle: see what is new (never all of history), learn from the users it touched and a replayed sample of others,
publish the version, move the pointer. The workers' stores are read as RocksDB secondaries; the loop that listens
for commands never waits for torch.
"""

import asyncio
import contextlib
import logging
import time
from typing import NamedTuple

import msgspec
import numpy as np
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from model.increment import Trained, learn
from model.versions import ArtifactError, Version, load, prune, publish
from state.events import EVENT, Ids
from state.view import View
from stream.config import Config
from stream.messages import Command, CommandReply, Pointer, encode
from stream.pointers import MODEL_NAME, consumer_partitions, decode_pointer, newer, read_champion

log = logging.getLogger("anabranch.trainer")

LOOK_EVERY_S = 1.0


class News(NamedTuple):
    """What has been applied since the champion last learned."""

    events: int
    upto: dict[int, int]
    """Next offset of each partition's state."""
    since: dict[int, int]


class Trainer:
    """Learns in cycles: after so many new events, so many seconds, or on command."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._view = View(config.data, config.topics.clicks, config.state)
        self._pointer: Pointer | None = None
        self._champion: Version | None = None
        self._waiting: list[Command] = []
        self._learned_at = time.monotonic()

    async def run(self) -> None:
        """Listen and learn, for ever."""
        config = self._config
        self._producer = AIOKafkaProducer(bootstrap_servers=config.broker, acks="all")
        self._listener = AIOKafkaConsumer(bootstrap_servers=config.broker, enable_auto_commit=False)
        await self._producer.start()
        await self._listener.start()
        try:
            topics = (config.topics.models, config.topics.commands)
            listened = [TopicPartition(t, p) for t in topics for p in await consumer_partitions(self._listener, t)]
            self._listener.assign(listened)
            await self._listener.seek_to_end(*listened)
            await self._follow(await read_champion(config))
            log.info("trainer ready: %s", self._pointer.version if self._pointer else "no version yet")
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
                        await self._follow(decode_pointer(record.value))
                    else:
                        await self._hear(record.value)

    async def _hear(self, value: bytes | None) -> None:
        try:
            command = msgspec.json.decode(value or b"", type=Command)
        except msgspec.MsgspecError as error:
            log.warning("commands topic: no command: %s", error)
            return
        if command.command == "retrain":
            await self._reply(command, "started", "a cycle begins as soon as none is under way")
            self._waiting.append(command)

    async def _follow(self, pointer: Pointer | None) -> None:
        """Take a moved pointer (a rollback, another trainer's version) as the champion to learn on from."""
        champion = newer(self._pointer, pointer)
        if champion is None or champion is self._pointer:
            return
        self._pointer = champion
        if self._champion is not None and self._champion.manifest.version == champion.version:
            return
        try:
            self._champion = await asyncio.to_thread(load, champion.url, MODEL_NAME, champion.version, champion.sha256)
        except ArtifactError as error:
            log.error("cannot learn on from version %s: %s", champion.version, error)

    async def _cycle_if_due(self) -> None:
        waiting, self._waiting = self._waiting, []
        news = await asyncio.to_thread(self._news)
        trainer = self._config.trainer
        due_by_time = time.monotonic() - self._learned_at >= trainer.every_s and news.events >= trainer.min_events
        if not (waiting and news.upto) and news.events < trainer.every_events and not due_by_time:
            for command in waiting:
                await self._reply(command, "failed", "nothing has been learned from yet: no events have arrived")
            return
        self._learned_at = time.monotonic()
        try:
            pointer, told = await self._cycle(news)
        except Exception as error:
            log.exception("cycle failed; the champion goes on serving")
            for command in waiting:
                await self._reply(command, "failed", f"the cycle failed: {error}")
            return
        log.info(told)
        for command in waiting:
            await self._reply(command, "done" if pointer else "kept", told, pointer.version if pointer else None)

    async def _cycle(self, news: News) -> tuple[Pointer | None, str]:
        started = time.monotonic()
        candidate = await asyncio.to_thread(self._learn, news)
        learned_s = time.monotonic() - started
        version = await asyncio.to_thread(publish, self._config.artifacts_url, MODEL_NAME, candidate, news.upto)
        told = f"version {version.manifest.version}, {news.events:,} new events in {learned_s:.1f} s"
        if not candidate.verdict.promoted:
            return None, f"{told}, {candidate.verdict.reason}"
        pointer = Pointer(
            MODEL_NAME,
            version.manifest.version,
            self._config.artifacts_url,
            version.manifest_sha256,
            time.time_ns() // 1_000_000,
        )
        self._champion, self._pointer = version, pointer
        await self._producer.send_and_wait(self._config.topics.models, encode(pointer), key=MODEL_NAME.encode())
        needed = [pointer.version, *([candidate.parent] if candidate.parent else [])]
        await asyncio.to_thread(
            prune, self._config.artifacts_url, MODEL_NAME, self._config.trainer.keep_versions, needed
        )
        return pointer, f"{told}, {candidate.verdict.reason}"

    def _news(self) -> News:
        self._view.refresh()
        upto = {number: p.marks().next_offset for number, p in self._view.partitions.items()}
        since = self._champion.manifest.offsets if self._champion else {}
        # A store rebuilt or moved here may be behind what the champion has seen: then nothing is new.
        since = {number: min(since.get(number, 0), end) for number, end in upto.items()}
        return News(sum(upto[n] - since[n] for n in upto), {n: e for n, e in upto.items() if e}, since)

    def _learn(self, news: News) -> Trained:
        config = self._config
        arrived = np.concatenate(
            [
                np.empty(0, EVENT),
                *(self._view.partitions[n].journal(news.since[n], end) for n, end in news.upto.items()),
            ]
        )
        fresh: Ids = np.unique(arrived["user"])
        seed = sum(news.upto.values())
        others = np.setdiff1d(self._view.some_users(config.trainer.replay_users + config.gate.old_users, seed), fresh)
        # Spread over all: drawn users come in order of their hashes.
        apart = np.linspace(0, len(others), min(config.gate.old_users, len(others) // 4), endpoint=False).astype(int)
        old, replayed = others[apart], np.delete(others, apart)
        sequences = self._view.positives(np.concatenate([fresh, replayed]))
        champion = self._champion
        known = champion.trained.vocabulary if champion else None
        items = np.unique(sequences.steps["item"])
        named = items if known is None else items[known.lookup(items) == 0]
        ids = self._view.item_ids(named)
        names = {h: i.decode() for h, i in zip(named.tolist(), ids, strict=True) if i is not None}
        return learn(
            champion.trained if champion else None,
            champion.manifest.version if champion else None,
            sequences,
            names,
            self._view.rows,
            model=config.model,
            training=config.training,
            ranking=config.ranking,
            state=config.state,
            gate=config.gate,
            seed=seed % 2**31,
            arrived=arrived,
            old=self._view.positives(old),
            gone=self._gone(champion, news),
        )

    def _gone(self, champion: Version | None, news: News) -> Ids:
        """Items of the champion that no graph has any more; none while the state is behind what the champion saw."""
        offsets = champion.manifest.offsets if champion else {}
        if champion is None or any(news.upto.get(number, 0) < seen for number, seen in offsets.items()):
            return np.empty(0, np.uint64)
        return np.setdiff1d(champion.trained.vocabulary.hashes, self._view.all_items())

    async def _reply(self, command: Command, status: str, message: str, version: str | None = None) -> None:
        reply = CommandReply(command.id, status, message, version)
        await self._producer.send_and_wait(self._config.topics.command_replies, encode(reply), key=command.id.encode())
