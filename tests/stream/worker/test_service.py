"""The parts of a worker start and stop in an order in which nothing is missed and no older answer follows a newer."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import ClientSession
from aiokafka.errors import KafkaConnectionError

from state.id_hash import UNKEYED
from stream.config import Config, WorkerSettings
from stream.http.server import CannotListen
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

    async def start(pointers: Iterator[Pointers], http: str = "") -> tuple[Owner, service.WorkerService]:
        config = Config(data=tmp_path, worker=WorkerSettings(http=http))
        owner = Owner(config, monkeypatch)

        async def read_pointers(_: Config) -> Pointers:
            return next(pointers)

        owner.consumer.start, owner.consumer.stop = Client().start, Client().stop
        monkeypatch.setattr(service, "Assignment", lambda *_: owner.assignment)
        monkeypatch.setattr(service, "Lease", lambda _: owner.lease)
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


def free_address() -> str:
    """An address on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return f"127.0.0.1:{free.getsockname()[1]}"


@asynccontextmanager
async def asking(address: str):
    """A function that asks a page for its status and its problems."""
    async with ClientSession() as session:

        async def ask(path: str) -> tuple[int, list[str]]:
            async with session.get(f"http://{address}{path}") as answer:
                return answer.status, (await answer.json())["problems"]

        yield ask


def test_the_pages_of_a_worker_follow_it_from_its_start_to_its_end(started):
    address = free_address()

    async def run() -> None:
        owner, worker = await started(iter([Pointers()]), address)
        async with asking(address) as ask:
            await worker.on_start()
            assert await ask("/startupz") == (200, [])
            status, [waiting] = await ask("/readyz")
            assert (status, "has not assigned" in waiting) == (503, True)
            await owner.assign()
            assert await ask("/readyz") == (503, ["partition 0 is catching up, not answering"])
            await owner.assignment.catch_up()
            assert await ask("/readyz") == (200, [])
            owner.lease.held = False  # the broker is away
            assert (await ask("/readyz"))[0] == 503
            assert await ask("/livez") == (200, [])
            await worker.on_stop()
            with pytest.raises(OSError, match="Cannot connect"):
                await ask("/livez")
            await owner.close()

    asyncio.run(run())


def test_a_worker_whose_broker_is_away_at_its_start_is_alive_and_says_what_it_waits_for(started, monkeypatch):
    address, asked = free_address(), asyncio.Event()

    async def run() -> None:
        owner, worker = await started(iter([Pointers()]), address)

        async def away() -> None:
            asked.set()
            raise KafkaConnectionError("no broker")

        owner.consumer.start = away
        starting = asyncio.create_task(worker.on_start())
        async with asking(address) as ask:
            await asked.wait()
            assert await ask("/livez") == await ask("/startupz") == (200, [])
            status, [problem] = await ask("/readyz")
            assert (status, "broker" in problem) == (503, True)
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        await worker.on_stop()

    asyncio.run(run())


async def forever(*_: object) -> None:
    await asyncio.Event().wait()


async def fails(*_: object) -> None:
    raise KeyError("a mistake of ours")


@pytest.mark.parametrize(
    ("titles", "problem"),
    [
        (forever, "its task 'consume' has ended"),
        (fails, "an error that it does not know has ended it: KeyError"),
    ],
)
def test_a_worker_with_a_task_that_has_stopped_is_not_alive(started, monkeypatch, titles, problem):
    """Kafka's client can end the loop that polls: nothing is applied from then on, and only a restart helps."""
    address = free_address()
    monkeypatch.setattr(service, "read_titles", titles)
    monkeypatch.setattr(service.TopicWatch, "run", forever)

    async def run() -> None:
        owner, worker = await started(iter([Pointers()]), address)
        await worker.start()  # with its tasks; the stand-in for the consumer has nothing to poll and stops
        async with asking(address) as ask:
            for _ in range(500):
                status, problems = await ask("/livez")
                if problems == [problem]:
                    break
                await asyncio.sleep(0.01)
            assert (status, problems) == (503, [problem])
        await worker.stop()
        await owner.close()

    asyncio.run(run())


def test_a_worker_whose_address_is_taken_ends_with_the_reason(started):
    async def run() -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            address = f"127.0.0.1:{taken.getsockname()[1]}"
            _, worker = await started(iter([Pointers()]), address)
            with pytest.raises(CannotListen, match=r"worker\.http = .*another process listens there"):
                await worker.on_start()
            assert isinstance(worker.failure, CannotListen)
            await worker.on_stop()

    asyncio.run(run())
