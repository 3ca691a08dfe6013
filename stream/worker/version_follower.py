"""Follows the `models` topic: which version answers, and which candidate is scored beside it."""

import asyncio
import contextlib
import logging
import time

from model.errors import ArtifactError
from state.artifact_store import beside
from state.id_hash import UNKEYED, IdHash
from stream.config import Config
from stream.kafka.messages import Pointer
from stream.kafka.pointers import Pointers, apply_pointer, write_last_pointers
from stream.stores.artifacts import versions_before
from stream.stores.assignment import Assignment
from stream.worker import served_file
from stream.worker.served_file import Served
from stream.worker.served_versions import ServedVersion, ServedVersions, load_version

log = logging.getLogger("anabranch.worker")

FETCH_AGAIN_S, MAX_FETCH_AGAIN_S = 5.0, 300.0
"""Pause after a version could not be fetched. Each further try waits twice as long, up to the maximum."""
BEGIN_WITHIN_S = 10.0
"""A starting worker waits this long for a version from a remote store, and then answers without it until it comes."""
MAX_FALLBACKS = 3
"""How many versions before the named one are tried where that one cannot be loaded."""


class VersionFollower:
    """Loads the versions that the pointers name.

    A version that cannot be loaded leaves the old one serving. A worker that has just started has none: it serves the
    newest promoted version before the named one.
    """

    def __init__(
        self, config: Config, versions: ServedVersions, assignment: Assignment, id_hash: IdHash = UNKEYED
    ) -> None:
        self._config, self._versions, self._assignment, self._id_hash = config, versions, assignment, id_hash
        self._pointers = Pointers()
        self._loading = asyncio.Lock()
        self._beginning: asyncio.Task[None] | None = None
        self._why = ""
        self._retry_at = 0.0
        self._retry_after_s = FETCH_AGAIN_S

    @property
    def unserved(self) -> str:
        """Why no version answers, although one is named; empty where one does, or popular items are meant."""
        named = self._pointers.champion
        if named is None or self._versions.champion is not None:
            return ""
        return served_file.not_loaded(named.version, self._why)

    @property
    def problem(self) -> str:
        """Why the version that the pointer names does not answer; empty if it does, or none is named."""
        named, now = self._pointers.champion, self._versions.champion
        served = named is None or (now is not None and now.version == named.version)
        return "" if served else self._why or "it is being fetched"

    async def begin(self, pointers: Pointers) -> None:
        """Follow these pointers; go on after BEGIN_WITHIN_S while a remote artifact store still does not answer."""
        self._pointers = pointers
        self._beginning = asyncio.create_task(self.follow(pointers))
        remote = "://" in self._config.artifacts_url
        done, _ = await asyncio.wait([self._beginning], timeout=BEGIN_WITHIN_S if remote else None)
        if done:
            self._beginning.result()
        else:
            log.warning("the version is still being fetched: the worker goes on, and serves it when it has come")

    async def close(self) -> None:
        """Wait for no version any longer."""
        if self._beginning is not None:
            self._beginning.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._beginning

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
            if champion is None and self._pointers.champion is not None:
                champion = await self._load_one_before(self._pointers.champion)
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
            self._write_served()

    async def retry(self) -> None:
        """Try again to load the missing versions, if it is time: an artifact store that was away may be back."""
        if not self._loading.locked() and self._missing() and time.monotonic() > self._retry_at:
            await self.follow(self._pointers)

    async def _load(self, pointer: Pointer | None, now: ServedVersion | None) -> ServedVersion | None:
        if pointer is None:
            return None
        if now is not None and (now.version, now.sha256) == (pointer.version, pointer.sha256):
            return now
        try:
            return await beside(load_version, pointer, self._config, self._id_hash)
        except ArtifactError as error:
            if pointer is self._pointers.champion:  # else it is about a candidate that is not scored
                self._why = str(error)
            goes_on = ", the one before goes on" if now is not None else ""
            log.error("version %s is not served%s: %s", pointer.version, goes_on, error)
            return now

    async def _load_one_before(self, named: Pointer) -> ServedVersion | None:
        """The newest promoted version before the named one that can be loaded; None if there is none."""
        try:
            for pointer in (await beside(versions_before, named, self._config))[:MAX_FALLBACKS]:
                with contextlib.suppress(ArtifactError):
                    found = await beside(load_version, pointer, self._config, self._id_hash)
                    log.warning(
                        "version %s is served in its place, the newest promoted one before it; `anabranch rollback "
                        "%s` makes that the one that is named", found.version, found.version,
                    )  # fmt: skip
                    return found
        except ArtifactError as error:
            log.error("no version before %s can be served either: %s", named.version, error)
        return None

    def _missing(self) -> bool:
        wanted = (
            (self._pointers.champion, self._versions.champion),
            (self._pointers.scored, self._versions.candidate),
        )
        return any(p is not None and (now is None or now.version != p.version) for p, now in wanted)

    def _write_served(self) -> None:
        named, now = self._pointers.champion, self._versions.champion
        if named is not None:
            version = now.version if now is not None else None
            why = "" if version == named.version else self._why
            served_file.write(self._config.data, Served(named.version, named.sha256, version, why))
