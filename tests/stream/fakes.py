"""Stand-ins for Kafka: a consumer, a producer and a lease that do what a test tells them."""

import asyncio
from collections import deque
from dataclasses import dataclass
from types import SimpleNamespace

from aiokafka import TopicPartition
from aiokafka.errors import ConsumerStoppedError, IllegalStateError, KafkaError, MessageSizeTooLargeError

from stream.config import Config
from stream.kafka.topics import Log
from stream.stores.assignment import Assignment, Phase
from stream.stores.partition_stores import PartitionStores

CLICKS, REQUESTS = TopicPartition("clicks", 0), TopicPartition("requests", 0)


@dataclass
class FakeLease:
    """Held until a test sets `held` to False."""

    held: bool = True
    was_held: bool = True

    def now(self) -> float:
        return 0.0

    def confirmed(self, asked_at: float) -> None:
        self.held = True


class FakeBatch:
    """A batch of one message."""

    def append(self, timestamp, key, value, headers):
        self.key, self.value, self.headers = key, value, headers


class FakeProducer:
    """A broker that acknowledges while `acknowledges` is set; `on_send` is called before each message is sent."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, bytes | None, bytes | None]] = []
        self.headers: list[dict[str, bytes]] = []
        self.acknowledges = asyncio.Event()
        self.acknowledges.set()
        self.away = False
        self.max_bytes = 1 << 20
        """Largest message, as its topic takes it."""
        self.on_send = lambda topic: None

    async def send(self, topic, value, key=None, headers=None):
        assert not (value is None and key is None), "the client sends no such message"
        self.on_send(topic)
        if self.away:
            raise KafkaError
        headers = headers or []
        if len(value or b"") + len(key or b"") + sum(len(v) for _, v in headers) > self.max_bytes:
            refused = asyncio.get_running_loop().create_future()
            refused.set_exception(MessageSizeTooLargeError())
            return refused
        self.sent.append((topic, key, value))
        self.headers.append(dict(headers))

        async def acknowledged() -> None:
            await self.acknowledges.wait()

        return asyncio.ensure_future(acknowledged())

    async def send_and_wait(self, topic, value, key=None, headers=None):
        await (await self.send(topic, value, key, headers))

    def create_batch(self):
        return FakeBatch()

    async def partitions_for(self, topic):
        return {0}

    async def send_batch(self, batch, topic, partition):
        return await self.send(topic, batch.value, batch.key, batch.headers)

    def to(self, topic: str) -> list[tuple[bytes | None, bytes | None]]:
        """Keys and values of the messages sent to a topic."""
        return [(key, value) for sent_to, key, value in self.sent if sent_to == topic]


class FakeConsumer:
    """Polls what a test puts into `polls`, then stops."""

    def __init__(self) -> None:
        self.assigned: set[TopicPartition] = set()
        self.paused: set[TopicPartition] = set()
        self.positions: dict[TopicPartition, int] = {}
        self.sought: list[int] = []
        self.committed: dict[TopicPartition, int] = {}
        self.begin = self.end = self.stable_end = 0
        self.polls: deque[dict[TopicPartition, list] | Exception] = deque()
        """An exception is raised, as aiokafka does where it cannot read a batch."""

    @property
    def _subscription(self):
        """The positions of the partitions that have one, where aiokafka keeps them."""

        def state_value(partition):
            return SimpleNamespace(has_valid_position=True, position=self.positions[partition])

        tps = self.assigned & self.positions.keys()
        return SimpleNamespace(
            subscription=SimpleNamespace(assignment=SimpleNamespace(tps=tps, state_value=state_value))
        )

    def subscribe(self, topics, listener):
        pass

    def highwater(self, partition):
        return self.end

    def last_stable_offset(self, partition):
        return self.stable_end

    def assignment(self):
        return self.assigned

    def seek(self, partition, offset):
        if partition not in self.assigned:
            raise IllegalStateError
        self.sought.append(offset)
        self.positions[partition] = offset

    def pause(self, *partitions):
        self.paused |= set(partitions)

    def resume(self, *partitions):
        self.paused -= set(partitions)

    async def position(self, partition):
        return self.positions.get(partition, 0)

    async def beginning_offsets(self, partitions):
        return dict.fromkeys(partitions, self.begin)

    async def end_offsets(self, partitions):
        return dict.fromkeys(partitions, self.end)

    async def commit(self, offsets):
        self.committed = offsets

    async def getmany(self, *partitions, timeout_ms, max_records):
        await asyncio.sleep(0)
        if partitions:
            return {}
        if not self.polls:
            raise ConsumerStoppedError
        polled = self.polls.popleft()
        if isinstance(polled, Exception):
            raise polled
        for partition, records in polled.items():
            self.positions[partition] = records[-1].offset + 1
        return polled


class Owner:
    """An assignment over a stand-in `log`, with partition 0 to be assigned."""

    def __init__(self, config: Config, monkeypatch) -> None:
        self.config, self.monkeypatch, self.log = config, monkeypatch, Log("here", "", 1, 0, 0)
        self.consumer, self.lease = FakeConsumer(), FakeLease()
        self.assignment = Assignment(config, self.consumer, PartitionStores(config), self.lease, "here")
        self.tasks: list[asyncio.Task] = []

        async def read_logs(config, cluster, partitions):
            return dict.fromkeys(partitions, self.log)

        monkeypatch.setattr("stream.stores.opener.read_logs", read_logs)
        monkeypatch.setattr("stream.stores.assignment.OPEN_AGAIN_S", 0.05)

    def start(self, coroutine) -> asyncio.Task:
        """Run the coroutine beside the test; `close` cancels it."""
        self.tasks.append(asyncio.create_task(coroutine))
        return self.tasks[-1]

    async def assign(self) -> None:
        """Assign the partition, and wait until its store is open."""
        if not self.tasks:
            self.start(self.assignment.open_assigned())
        self.consumer.assigned |= {CLICKS, REQUESTS}
        await self.assignment.on_partitions_assigned([CLICKS, REQUESTS])
        await until(lambda: self.assignment.phase(0) is Phase.CATCHING_UP)

    async def revoke(self) -> None:
        """Revoke the partition; returns when the assignment has given it up."""
        await self.assignment.on_partitions_revoked([CLICKS, REQUESTS])
        self.consumer.assigned.clear()

    async def close(self) -> None:
        """Cancel the tasks and close the stores."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await self.assignment.close_all()


async def until(condition) -> None:
    """Wait until a condition is true; fail the test if it never is."""
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("the condition was not true in time")


def scenario_with(open_owner):
    """A decorator that runs a coroutine as a test. It gets what `open_owner(config, monkeypatch)` returns, open."""

    def decorate(scenario):
        def test(tmp_path, monkeypatch):
            async def run() -> None:
                owner = await open_owner(Config(data=tmp_path), monkeypatch)
                try:
                    await scenario(owner)
                finally:
                    await owner.close()

            asyncio.run(run())

        test.__name__ = scenario.__name__
        return test

    return decorate
