"""The parts of a worker start and stop in an order in which no older answer follows a newer one."""

import asyncio

from state.id_hash import UNKEYED
from stream.config import Config
from stream.kafka.pointers import Pointers
from stream.worker import service
from tests.stream.fakes import FakeProducer, Owner


class Client(FakeProducer):
    """A client that begins and ends."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...


def test_a_worker_that_stops_has_given_up_its_stores_when_it_leaves_the_group(tmp_path, monkeypatch):
    """The next owner may answer then. What this worker still ranked would be older."""
    open_when_left: list[int] = []

    async def run() -> None:
        config = Config(data=tmp_path)
        owner = Owner(config, monkeypatch)

        async def leave() -> None:
            open_when_left.append(len(owner.assignment.stores))

        async def no_pointers(_: Config) -> Pointers:
            return Pointers()

        owner.consumer.start, owner.consumer.stop = Client().start, leave
        monkeypatch.setattr(service, "Assignment", lambda *_: owner.assignment)
        monkeypatch.setattr(service, "click_consumer", lambda _: owner.consumer)
        monkeypatch.setattr(service, "producer", lambda _: Client())
        monkeypatch.setattr(service, "title_consumer", lambda _: Client())
        monkeypatch.setattr(service, "read_pointers", no_pointers)
        worker = service.WorkerService(config, UNKEYED, embedded=True)
        await worker.on_start()
        await owner.assign()
        assert owner.assignment.stores
        await worker.on_stop()
        await owner.close()

    asyncio.run(run())
    assert open_when_left == [0]
