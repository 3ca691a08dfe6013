"""Checkpoints of a worker's stores, whatever happens to their topic."""

import asyncio
import threading
import time

from state.checkpoint import CheckpointStore
from stream.config import Config
from stream.stores.checkpoints import Checkpoints
from tests.stream.fakes import Owner
from tests.stream.stores.test_partition_stores import add_events


def test_a_topic_that_was_created_again_gets_checkpoints_of_its_own(tmp_path, monkeypatch):
    config = Config(data=tmp_path / "data", artifacts=str(tmp_path / "artifacts"))

    async def run() -> None:
        owner = Owner(config, monkeypatch)
        checkpoints = Checkpoints(config, owner.assignment, owner.lease)

        async def checkpoint(topic_id: str, count: int) -> list[int]:
            await owner.revoke()
            owner.log = owner.log._replace(topic_id=topic_id, end=10**6)
            await owner.assign()
            store = owner.assignment.stores[0]
            add_events(store, count)
            await checkpoints.checkpoint(0)
            return [found.progress.next_offset for found in CheckpointStore(config.artifacts, store.identity).usable()]

        assert await checkpoint("first", 40) == [40]
        assert await checkpoint("second", 10) == [10]
        assert await checkpoint("second", 10) == [20, 10]
        await owner.close()

    asyncio.run(run())


def test_a_store_closes_only_after_the_thread_of_a_cancelled_copy_has_ended(tmp_path, monkeypatch):
    config, taken = Config(data=tmp_path / "data"), threading.Event()

    def slow(*_: object) -> None:
        time.sleep(0.3)
        taken.set()

    monkeypatch.setattr("stream.stores.checkpoints.take", slow)

    async def run() -> None:
        owner = Owner(config, monkeypatch)
        await owner.assign()
        copying = asyncio.create_task(Checkpoints(config, owner.assignment, owner.lease).copy(0, config.data / "copy"))
        await asyncio.sleep(0.1)
        copying.cancel()
        await owner.revoke()
        assert taken.is_set()
        await owner.close()

    asyncio.run(run())
