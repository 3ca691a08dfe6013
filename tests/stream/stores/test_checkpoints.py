"""Checkpoints of a worker's stores, whatever becomes of their topic."""

import asyncio
import threading
import time

import pytest

from state.checkpoint import CheckpointStore
from stream.config import Config
from stream.kafka.lease import Lease
from stream.kafka.topics import Log
from stream.stores.checkpoints import Checkpoints
from stream.stores.partition_stores import PartitionStores
from tests.stream.stores.test_partition_stores import add_events


@pytest.fixture
def config(tmp_path) -> Config:
    return Config(data=tmp_path / "data", artifacts=str(tmp_path / "artifacts"))


def test_a_topic_made_anew_gets_checkpoints_of_its_own(config):
    lease = Lease(60_000)
    lease.confirmed(lease.now())
    partitions = PartitionStores(config)
    checkpoints = Checkpoints(config, partitions, lease)

    def checkpoint(topic_id: str, count: int) -> list[int]:
        log = Log("here", topic_id, 2, 0, 10**6)
        if 0 in partitions.stores:
            partitions.close(0)
        store = partitions.stores[0] = partitions.open(0, log)
        add_events(store, count)
        asyncio.run(checkpoints._checkpoint(0))
        found = CheckpointStore(config.artifacts, store.identity).usable()
        return [manifest.progress.next_offset for manifest in found]

    assert checkpoint("first", 40) == [40]
    assert checkpoint("second", 10) == [10]
    assert checkpoint("second", 10) == [20, 10]
    partitions.close_all()


def test_a_store_is_let_go_of_before_a_checkpoint_that_is_told_to_stop_has_stopped(config, monkeypatch):
    partitions, let_go = PartitionStores(config), threading.Event()
    partitions.stores[0] = partitions.open(0, Log("here", "first", 2, 0, 10**6))

    def slow(*_: object) -> None:
        time.sleep(0.3)
        let_go.set()

    monkeypatch.setattr("stream.stores.checkpoints.take", slow)

    async def stopped_in_the_middle() -> None:
        copying = asyncio.create_task(Checkpoints(config, partitions, Lease(60_000)).copy(0, config.data / "copy"))
        await asyncio.sleep(0.1)
        copying.cancel()
        async with partitions.reading:
            assert let_go.is_set()

    asyncio.run(stopped_in_the_middle())
    partitions.close_all()
