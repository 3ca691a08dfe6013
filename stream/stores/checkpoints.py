"""Checkpoints on a timer: each store is copied by hard links in a moment, and uploaded while the worker goes on."""

import asyncio
import logging
import shutil
import time
from pathlib import Path

from state.artifact_store import beside
from state.checkpoint import CheckpointStore, take
from state.identity import Identity
from stream.config import Config
from stream.kafka.lease import Lease
from stream.stores.assignment import Assignment
from stream.times import now_ms

log = logging.getLogger("anabranch.checkpoints")

COPIES_FOLDER = "copies"
"""Folder of the data directory that holds a store's copy during its upload."""


class Checkpoints:
    """Takes, uploads and prunes the checkpoints of one worker's stores."""

    def __init__(self, config: Config, assignment: Assignment, lease: Lease) -> None:
        self._config, self._assignment, self._lease = config, assignment, lease
        self._uploads: dict[int, tuple[Identity, CheckpointStore]] = {}
        self._copying = asyncio.Lock()
        self.completed_ts: dict[int, int] = {}
        """When the newest checkpoint of each partition by this process was complete, ms."""
        self.failures = 0

    async def run(self) -> None:
        """Take checkpoints every `checkpoints.every_s`, forever. Returns at once where no artifact store is set."""
        if not self._config.artifacts:
            log.info("no checkpoints: `artifacts` is not set, and a copy on this machine would be lost with it")
            return
        while True:
            await asyncio.sleep(self._config.checkpoints.every_s)
            self.completed_ts = {n: ts for n, ts in self.completed_ts.items() if n in self._assignment.stores}
            for number in list(self._assignment.stores):
                try:
                    await self.checkpoint(number)
                except Exception as error:  # of the store or its copy, too: the next round tries again
                    self.failures += 1
                    log.error("partition %d: no checkpoint this time: %s", number, error)

    async def checkpoint(self, number: int) -> None:
        """Take and upload a checkpoint of one partition's store, if it is open."""
        started = time.monotonic()
        store = self._assignment.stores.get(number)
        identity = store.identity if store is not None else None
        if identity is None:
            return
        folder = self._config.data / COPIES_FOLDER / f"{identity.topic}-{number}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(exist_ok=True)
        try:
            if await self.copy(number, folder):
                known = self._uploads.get(number)
                if known is None or known[0] != identity:  # the topic was created again under the same name
                    known = self._uploads[number] = (
                        identity,
                        CheckpointStore(self._config.artifacts, identity, self._config.kafka.signing_keys),
                    )
                await beside(self._upload, known[1], folder, number, started)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    async def copy(self, number: int, folder: Path) -> bool:
        """Copy a store into `folder` without stopping the worker; False where it is not open."""
        async with self._copying, self._assignment.keep_open():
            store = self._assignment.stores.get(number)
            if store is None:
                return False
            taking = asyncio.create_task(asyncio.to_thread(take, store, folder))
            try:
                await asyncio.shield(taking)
            finally:
                if not taking.done():  # cancelled: the store must not close before the thread has ended
                    await asyncio.wait([taking])
            return True

    async def copy_all(self, folder: Path) -> int:
        """Copy every open store into a folder of its own below `folder`; return how many."""
        copied = 0
        for number, store in list(self._assignment.stores.items()):
            copied += await self.copy(number, folder / store.path.name)
        return copied

    def _upload(self, checkpoints: CheckpointStore, folder: Path, number: int, started: float) -> None:
        uploaded = checkpoints.upload(folder, self._config.state, may_continue=lambda: self._lease.held)
        if uploaded is None:
            return
        self.completed_ts[number] = now_ms()
        checkpoints.prune(self._config.checkpoints.keep)
        log.info(
            "partition %d: checkpoint at offset %d in %.1f s",
            number, uploaded.progress.log_offset, time.monotonic() - started,
        )  # fmt: skip
