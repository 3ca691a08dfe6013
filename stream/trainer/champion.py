"""The champion that the trainer continues from, and the pointers that name it."""

import asyncio
import logging
from functools import partial
from typing import Protocol

import msgspec

from model.errors import ArtifactError, NoSuchVersion
from model.learning.manifests import list_versions
from model.learning.versions import Version, prune
from state.artifact_store import beside
from stream.config import Config
from stream.kafka.messages import Pointer, encode
from stream.kafka.pointers import MODEL_NAME, Pointers, apply_pointer, key_of, pointer_to, ts_after
from stream.kafka.signing import signed
from stream.stores.artifacts import fetch_version

log = logging.getLogger("anabranch.trainer")

CAME_BACK_CHECKS, CAME_BACK_EVERY_S = 100, 0.1


class Publisher(Protocol):
    """The part of a Kafka producer that the trainer needs."""

    async def send_and_wait(self, topic: str, value: bytes, key: bytes) -> object:
        """Send a message and wait until the broker has it."""


class CannotContinue(Exception):
    """The champion cannot be loaded, and the artifact store has other versions or does not answer."""


class ChampionFollower:
    """Follows the topic of pointers, loads the champion, and publishes pointers to new versions.

    The topic's order decides, for the trainer as for the workers: its own pointers count when they come back.
    """

    def __init__(self, config: Config, publisher: Publisher) -> None:
        self._config, self._publisher = config, publisher
        self._published: Version | None = None
        self._received_ts = 0
        self.pointers = Pointers()
        self.version: Version | None = None
        """The champion, loaded."""

    async def on_pointer(self, pointer: Pointer | None) -> None:
        """Follow a pointer from the topic. Raises ArtifactError where its version cannot be loaded."""
        if pointer is None:
            return
        before = self.pointers.champion
        try:
            await self.follow(apply_pointer(self.pointers, pointer))
        finally:
            if pointer.role == "champion":
                self._received_ts = max(self._received_ts, pointer.moved_ts)
                await self._repeat_pin(before, pointer)

    async def _repeat_pin(self, before: Pointer | None, pointer: Pointer) -> None:
        """Send an operator's pin again where our pointer crossed it on its way.

        Workers follow the pin all the same, but compaction would keep our pointer and drop the pin.
        """
        crossed = pointer.by == "trainer" and before is not None and pointer.moved_ts > before.moved_ts
        if before is not None and before.pinned and crossed:
            await self._send(msgspec.structs.replace(before, moved_ts=ts_after(pointer), by="operator"))

    async def follow(self, pointers: Pointers) -> None:
        """Continue from the champion of these pointers: a new version, a rollback, another trainer's version.

        Raises ArtifactError where it cannot be loaded; the champion before it stays loaded.
        """
        champion, self.pointers = pointers.champion, pointers
        if champion is None or (self.version is not None and self.version.manifest.version == champion.version):
            return
        if self._published is not None and self._published.manifest.version == champion.version:
            self.version = self._published
            return
        version = await beside(fetch_version, champion, self._config)
        now = self.pointers.champion
        if now is not None and now.version == champion.version:  # else a pointer came meanwhile, and loads its version
            self.version = version

    async def ensure_loaded(self) -> None:
        """Load the champion where it could not be loaded before; raise CannotContinue where it still cannot.

        Learning starts from scratch only where the artifact store answers that it has neither this version nor any
        other.
        """
        if self.pointers.champion is None or self._is_loaded():
            return
        why: ArtifactError | None = None
        try:
            await self.follow(self.pointers)
        except ArtifactError as error:
            log.error("cannot load version %s: %s", self.pointers.champion.version, error)
            why = error
        if self._is_loaded():
            return
        try:
            keys = self._config.kafka.signing_keys
            left = await beside(list_versions, self._config.artifacts_url, MODEL_NAME, keys)
        except ArtifactError as error:
            raise CannotContinue(f"the champion cannot be loaded: {error}") from None
        if left:
            newest = left[-1].version
            raise CannotContinue(f"the champion cannot be loaded; `anabranch rollback {newest}` serves another version")
        if not isinstance(why, NoSuchVersion):
            raise CannotContinue(f"the champion cannot be loaded: {why or 'another version is named meanwhile'}")
        log.warning("the artifact store no longer holds any version: learning starts from scratch")

    def _is_loaded(self) -> bool:
        return self.version is not None

    async def promote(self, version: Version) -> None:
        """Point to a version as the champion, and wait until the pointer has come back."""
        self._published = version
        after = self.pointers.champion
        pointer = await beside(partial(pointer_to, self._config, version.manifest.version, after, by="trainer"))
        await self._send(pointer)
        for _ in range(CAME_BACK_CHECKS):
            if self._received_ts >= pointer.moved_ts:
                break
            await asyncio.sleep(CAME_BACK_EVERY_S)

    async def score_beside(self, version: Version) -> None:
        """Point to a version as the candidate that is scored beside the champion."""
        name, before = version.manifest.version, self.pointers.candidate
        await self._send(await beside(partial(pointer_to, self._config, name, before, role="candidate", by="trainer")))

    async def prune(self, also_keep: str | None) -> None:
        """Remove old versions; the champion, the candidate and `also_keep` stay."""
        needed = [p.version for p in (self.pointers.champion, self.pointers.candidate) if p is not None]
        needed += [also_keep] if also_keep else []
        keep, keys = self._config.trainer.keep_versions, self._config.kafka.signing_keys
        try:
            await beside(prune, self._config.artifacts_url, MODEL_NAME, keep, needed, keys)
        except ArtifactError as error:
            log.warning("no old versions are removed this time: %s", error)

    async def _send(self, pointer: Pointer) -> None:
        pointer = signed(pointer, self._config.kafka.signing_keys)
        await self._publisher.send_and_wait(self._config.topics.models, encode(pointer), key=key_of(pointer))
