"""Follows the `models` topic: which version answers, and which candidate is scored beside it."""

import asyncio
import logging
import time

from model.errors import ArtifactError
from state.id_hash import UNKEYED, IdHash
from stream.config import Config
from stream.kafka.messages import Pointer
from stream.kafka.pointers import Pointers, apply_pointer, write_last_pointers
from stream.stores.assignment import Assignment
from stream.worker.served_versions import ServedVersion, ServedVersions, load_version

log = logging.getLogger("anabranch.worker")

FETCH_AGAIN_S, MAX_FETCH_AGAIN_S = 5.0, 300.0
"""Pause after a version could not be fetched. Each further try waits twice as long, up to the maximum."""


class VersionFollower:
    """Loads the versions that the pointers name. A version that cannot be loaded leaves the old one serving."""

    def __init__(
        self, config: Config, versions: ServedVersions, assignment: Assignment, id_hash: IdHash = UNKEYED
    ) -> None:
        self._config, self._versions, self._assignment, self._id_hash = config, versions, assignment, id_hash
        self._pointers = Pointers()
        self._loading = asyncio.Lock()
        self._retry_at = 0.0
        self._retry_after_s = FETCH_AGAIN_S

    async def on_pointer(self, pointer: Pointer | None) -> None:
        """Follow a pointer that was read from the topic; None and older ones change nothing."""
        pointers = apply_pointer(self._pointers, pointer)
        if pointers != self._pointers:
            await self.follow(pointers)

    async def follow(self, pointers: Pointers) -> None:
        """Serve the champion and score the candidate."""
        self._pointers = pointers
        versions = self._versions
        async with self._loading:
            champion = await self._load(self._pointers.champion, versions.champion)
            candidate = await self._load(self._pointers.scored, versions.candidate)
            if champion is not None and champion is not versions.champion:
                # The clicks of its items are read from all stores; after a fault of one, `retry` tries again.
                async with self._assignment.hold_all():
                    await asyncio.to_thread(versions.serve, champion)
                    log.info("serving version %s", champion.version)
            if candidate is not versions.candidate:
                async with self._assignment.hold_all():
                    await asyncio.to_thread(versions.score, candidate)
                    log.info("scoring version %s beside it", candidate.version if candidate else "none")
            if self._missing():
                self._retry_at = time.monotonic() + self._retry_after_s
                self._retry_after_s = min(2 * self._retry_after_s, MAX_FETCH_AGAIN_S)
            else:
                self._retry_after_s = FETCH_AGAIN_S
            write_last_pointers(self._config.data, pointers)

    async def retry(self) -> None:
        """Try again to load the missing versions, if it is time: an artifact store that was away may be back."""
        if self._missing() and time.monotonic() > self._retry_at:
            await self.follow(self._pointers)

    async def _load(self, pointer: Pointer | None, now: ServedVersion | None) -> ServedVersion | None:
        if pointer is None:
            return None
        if now is not None and now.version == pointer.version:
            return now
        try:
            return await asyncio.to_thread(load_version, pointer, self._config, self._id_hash)
        except ArtifactError as error:
            log.error("version %s is not served, the one before goes on: %s", pointer.version, error)
            return now

    def _missing(self) -> bool:
        wanted = (
            (self._pointers.champion, self._versions.champion),
            (self._pointers.scored, self._versions.candidate),
        )
        return any(p is not None and (now is None or now.version != p.version) for p, now in wanted)
