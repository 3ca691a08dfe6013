"""Publishing: as messages come, at their pace, and past one that is too large."""

import asyncio
import os
import threading
from typing import Any

import pytest
from aiokafka.errors import MessageSizeTooLargeError

from stream.config import ClickSettings, Config
from stream.kafka import publish
from stream.kafka.publish import Message, Pace, send
from stream.operate.event_files import EventFile

CONFIG = Config(broker="x:1")


class FakeProducer:
    """Takes messages in batches of three. A batch with one of more than 50 bytes is refused, as a broker does."""

    def __init__(self, **_: Any) -> None:
        self.accepted: list[bytes] = []
        self._batch: list[tuple[bytes, asyncio.Future[None]]] = []
        FakeProducer.last = self

    last: "FakeProducer"
    arrived: threading.Semaphore

    async def start(self) -> None:
        pass

    async def stop(self) -> None:
        pass

    async def send(self, topic: str, value: bytes, key: bytes) -> asyncio.Future[None]:
        if len(value) > 200:
            raise MessageSizeTooLargeError  # the client's own limit
        self.arrived.release()
        sent = asyncio.get_running_loop().create_future()
        self._batch.append((value, sent))
        asyncio.get_running_loop().call_later(0.01, self._flush)
        if len(self._batch) == 3:
            self._flush()
        return sent

    async def send_and_wait(self, topic: str, value: bytes, key: bytes) -> None:
        if len(value) > 50:
            raise MessageSizeTooLargeError
        self.accepted.append(value)

    def _flush(self) -> None:
        batch, self._batch = self._batch, []
        refused = any(len(value) > 50 for value, _ in batch)
        for value, sent in batch:
            if refused:
                sent.set_exception(MessageSizeTooLargeError())
            else:
                self.accepted.append(value)
                sent.set_result(None)


@pytest.fixture(autouse=True)
def _fake_producer(monkeypatch):
    monkeypatch.setattr(publish, "AIOKafkaProducer", FakeProducer)
    monkeypatch.setattr(FakeProducer, "arrived", threading.Semaphore(0), raising=False)


@pytest.mark.parametrize("live", [True, False])
def test_a_message_that_is_too_large_costs_only_itself(live):
    sizes = [10, 20, 60, 30, 300, 40, 50, 51]
    messages = [Message(b"ann", b"x" * size, None, line) for line, size in enumerate(sizes, 2)]
    refused: list[tuple[int, str]] = []
    count = asyncio.run(
        send(CONFIG, "clicks", messages, Pace(None), on_refused=lambda *about: refused.append(about), live=live)
    )
    assert count == 5
    assert sorted(map(len, FakeProducer.last.accepted)) == [10, 20, 30, 40, 50]
    assert sorted(line for line, _ in refused) == [4, 6, 9]
    assert "a message of 60 bytes is larger than the broker accepts for 'clicks'" in dict(refused)[4]


def test_a_line_of_a_pipe_is_sent_before_the_next_one_comes(monkeypatch):
    reader, writer = os.pipe()
    with os.fdopen(reader) as source, os.fdopen(writer, "w", buffering=1) as sink:
        monkeypatch.setattr("sys.stdin", source)
        messages = EventFile("-", ClickSettings()).messages(lambda *_: None)
        counts: list[int] = []
        in_time: list[bool] = []

        def write() -> None:
            for item in ("milk", "tea"):
                sink.write(f'{{"user": "ann", "item": "{item}"}}\n')
                in_time.append(FakeProducer.arrived.acquire(timeout=30))
            sink.close()

        thread = threading.Thread(target=write)
        thread.start()
        count = asyncio.run(send(CONFIG, "clicks", messages, Pace(None), on_progress=counts.append, live=True))
        thread.join()
    assert (count, in_time) == (2, [True, True])
    assert FakeProducer.last.accepted == [b'{"user":"ann","item":"milk"}', b'{"user":"ann","item":"tea"}']


@pytest.mark.parametrize("live", [True, False])
def test_an_error_of_the_file_ends_the_publishing_with_it(live):
    def broken() -> Any:
        yield Message(b"ann", b"{}")
        raise KeyError("file")

    with pytest.raises(KeyError, match="file"):
        asyncio.run(send(CONFIG, "clicks", broken(), Pace(None), live=live))
    assert FakeProducer.last is not None


@pytest.mark.parametrize("speed", ["", "x", "0", "-1", "nan", "inf", "1e999", "0x", "nanx", "fast"])
def test_an_impossible_speed_is_refused(speed):
    with pytest.raises(ValueError):
        Pace(speed)


def test_a_pace_follows_the_events_own_time(monkeypatch):
    monkeypatch.setattr(publish.time, "monotonic", lambda: 1000.0)
    pace = Pace("2x")
    first = 1_795_000_000_000
    due = [pace.due_s(n, ts) for n, ts in enumerate((first, first + 10_000, None, first - 10_000))]
    assert due == [0.0, 5.0, 0.0, -5.0]
    per_second = Pace("4")
    assert [per_second.due_s(n, None) for n in range(3)] == [0.0, 0.25, 0.5]
    assert Pace(None).due_s(7, 1) == 0.0
