"""Checkpoints on a timer: each store is copied by hard links in a moment, and uploaded while the worker goes on."""

import asyncio
import logging
import shutil
import time
from pathlib import Path

from state.checkpoint import CheckpointStore, take
from state.identity import Identity
from stream.config import Config
from stream.kafka.lease import Lease
from stream.stores.partition_stores import PartitionStores

log = logging.getLogger("anabranch.checkpoints")

COPIES = "copies"
"""Where in the data directory a store's copy lies while it is uploaded."""


class Checkpoints:
    """Takes, uploads and prunes the checkpoints of one worker's stores."""

    def __init__(self, config: Config, partitions: PartitionStores, lease: Lease) -> None:
        self._config, self._partitions, self._lease = config, partitions, lease
        self._stores: dict[int, tuple[Identity, CheckpointStore]] = {}

    async def run(self) -> None:
        """Every `checkpoints.every_s`, for ever; at once returns where no artifact store is set."""
        if not self._config.artifacts:
            log.info("no checkpoints: `artifacts` names no store that would outlive this machine")
            return
        while True:
            await asyncio.sleep(self._config.checkpoints.every_s)
            for number in list(self._partitions.stores):
                try:
                    await self._checkpoint(number)
                except Exception as error:  # an object store raises what it likes; the next turn tries again
                    log.error("partition %d: no checkpoint this time: %s", number, error)

    async def copy(self, number: int, folder: Path) -> bool:
        """Copy a store into `folder` without stopping the worker; False where it is not open."""
        async with self._partitions.reading:
            store = self._partitions.stores.get(number)
            if store is None:
                return False
            taking = asyncio.create_task(asyncio.to_thread(take, store, folder))
            try:
                await asyncio.shield(taking)
            finally:
                if not taking.done():  # told to stop: the store cannot be closed before the thread has let go of it
                    await asyncio.wait([taking])
            return True

    async def copy_all(self, folder: Path) -> int:
        """Copy every open store into a folder of its own below `folder`; return how many."""
        copied = 0
        for number, store in list(self._partitions.stores.items()):
            copied += await self.copy(number, folder / store.path.name)
        return copied

    async def _checkpoint(self, number: int) -> None:
        started = time.monotonic()
        store = self._partitions.stores.get(number)
        identity = store.identity if store is not None else None
        if identity is None:
            return
        folder = self._config.data / COPIES / f"{identity.topic}-{number}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(exist_ok=True)
        try:
            if await self.copy(number, folder):
                known = self._stores.get(number)
                if known is None or known[0] != identity:  # another topic of the same name, made meanwhile
                    known = self._stores[number] = identity, CheckpointStore(self._config.artifacts, identity)
                await asyncio.to_thread(self._upload, known[1], folder, number, started)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _upload(self, checkpoints: CheckpointStore, folder: Path, number: int, started: float) -> None:
        uploaded = checkpoints.upload(folder, self._config.state, may=lambda: self._lease.held)
        if uploaded is None:
            return
        checkpoints.prune(self._config.checkpoints.keep)
        log.info(
            "partition %d: checkpoint at offset %d in %.1f s",
            number, uploaded.progress.log_offset, time.monotonic() - started,
        )  # fmt: skip
