"""The parts of a worker start and stop in an order in which nothing is missed and no older answer follows a newer."""

import asyncio
from collections.abc import Iterator

import pytest

from state.id_hash import UNKEYED
from stream.config import Config
from stream.kafka.messages import Pointer
from stream.kafka.pointers import Pointers, read_last_pointers
from stream.worker import service
from tests.stream.fakes import FakeProducer, Owner


class Client(FakeProducer):
    """A client that begins and ends."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...


@pytest.fixture
def started(tmp_path, monkeypatch):
    """A function that starts a worker; `pointers` are what each look at the topic `models` finds."""

    async def start(pointers: Iterator[Pointers]) -> tuple[Owner, service.WorkerService]:
        config = Config(data=tmp_path)
        owner = Owner(config, monkeypatch)

        async def read_pointers(_: Config) -> Pointers:
            return next(pointers)

        owner.consumer.start, owner.consumer.stop = Client().start, Client().stop
        monkeypatch.setattr(service, "Assignment", lambda *_: owner.assignment)
        monkeypatch.setattr(service, "click_consumer", lambda _: owner.consumer)
        monkeypatch.setattr(service, "producer", lambda _: Client())
        monkeypatch.setattr(service, "title_consumer", lambda _: Client())
        monkeypatch.setattr(service, "read_pointers", read_pointers)
        worker = service.WorkerService(config, UNKEYED, embedded=True)
        return owner, worker

    return start


def test_a_pointer_that_came_while_the_worker_subscribed_is_followed(started, monkeypatch):
    """The agent begins at the end of the topic, so it does not get it."""
    monkeypatch.setattr(service, "SUBSCRIBED_WITHIN_S", 0.0)
    promoted = Pointer("create", "000001", "nowhere", "0" * 64, 1)

    async def run() -> Pointers:
        owner, worker = await started(iter([Pointers(), Pointers(promoted)]))
        await worker.on_start()
        await worker.read_pointers_again()
        await worker.on_stop()
        return read_last_pointers(owner.config.data)

    assert asyncio.run(run()) == Pointers(promoted)


def test_a_worker_that_stops_has_given_up_its_stores_when_it_leaves_the_group(started):
    """The next owner may answer then. What this worker still ranked would be older."""
    open_when_left: list[int] = []

    async def run() -> None:
        owner, worker = await started(iter([Pointers()]))

        async def leave() -> None:
            open_when_left.append(len(owner.assignment.stores))

        owner.consumer.stop = leave
        await worker.on_start()
        await owner.assign()
        assert owner.assignment.stores
        await worker.on_stop()
        await owner.close()

    asyncio.run(run())
    assert open_when_left == [0]
