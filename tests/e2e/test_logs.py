"""Logs as other producers write them: compressed, and with transactions."""

import asyncio
import json
from collections.abc import Awaitable, Callable

import pytest
from aiokafka import AIOKafkaProducer

from state.titles import Titles
from state.view import View
from stream.config import Config
from stream.kafka.connection import connection
from tests.e2e.conftest import anabranch, succeed, until

pytestmark = [pytest.mark.broker, pytest.mark.slow]

CODECS = ["gzip", "snappy", "lz4", "zstd"]
RECOMMENDATION = json.dumps(
    {
        "user": "zoe", "items": [], "model": None, "model_age_s": None, "source": "popularity",
        "event_ts": 1, "emitted_ts": 1, "partition": 0, "offset": 0,
    }
).encode()  # fmt: skip


def click(user: str, item: str = "milk") -> bytes:
    return json.dumps({"user": user, "item": item}).encode()


def title(item: str) -> bytes:
    return json.dumps({"item": item, "title": item}).encode()


def send(config: Config, work: Callable[[AIOKafkaProducer], Awaitable[None]], **options: str) -> None:
    """Do `work` with a producer that has these options."""

    async def run() -> None:
        async with AIOKafkaProducer(**connection(config), **options) as producer:
            await work(producer)

    asyncio.run(run())


def applied(config: Config) -> int:
    with View(config.data, config.topics.clicks, config.state) as view:
        return sum(p.read_progress().applied for p in view.partitions.values())


def output_of(config: Config, *command: str) -> str:
    return succeed(config, *command, within_s=60).stdout


def test_messages_of_every_codec_are_read_from_every_topic(config):
    topics = config.topics

    def publish(codec: str) -> None:
        async def work(producer: AIOKafkaProducer) -> None:
            await producer.send_and_wait(topics.clicks, click(codec), key=codec.encode())
            await producer.send_and_wait(topics.items, title(codec), key=codec.encode())
            await producer.send_and_wait(topics.requests, json.dumps({"user": codec, "id": codec}).encode())
            await producer.send_and_wait(topics.models, b"no pointer", key=codec.encode())
            await producer.send_and_wait(topics.commands, b"no command")
            await producer.send_and_wait(topics.command_replies, b"no reply")
            await producer.send_and_wait(topics.recommendations, RECOMMENDATION, key=b"zoe")

        send(config, work, compression_type=codec)

    for codec in CODECS:
        publish(codec)
    log = config.data / "worker.log"
    with anabranch(config, "worker") as worker:
        until(lambda: applied(config) == len(CODECS))
        output_of(config, "resume")  # the command and its reply come behind compressed ones
        for codec in CODECS:
            publish(codec)
        until(lambda: applied(config) == 2 * len(CODECS))
        output_of(config, "pause")
        assert worker.poll() is None
    output_of(config, "status")
    with View(config.data, config.topics.clicks, config.state) as view:
        items = view.ids.of_many([codec.encode() for codec in CODECS])
    titles = Titles(config.data, view.ids, read_only=True)
    assert titles.get(items) == CODECS
    titles.close()
    shown = output_of(config, "watch", "--from-start", "--json", "--limit", str(2 * len(CODECS)), "zoe")
    assert len(shown.splitlines()) == 2 * len(CODECS)
    assert "Traceback" not in log.read_text()


@pytest.fixture
def with_transactions(request: pytest.FixtureRequest) -> None:
    if request.config.getoption("--broker") == "embedded":
        pytest.skip("the embedded broker has no transactions")


def partitions(config: Config) -> list[dict]:
    return json.loads(output_of(config, "status", "--json"))["partitions"]


@pytest.mark.usefixtures("with_transactions")
def test_only_what_was_committed_is_applied_and_nothing_lags_or_is_lost(config):
    async def work(producer: AIOKafkaProducer) -> None:
        for outcome in [True, False, True, False]:
            await producer.begin_transaction()
            for n in range(20):
                await producer.send(config.topics.clicks, click("tina", f"{outcome}-{n}"), key=b"tina")
            if not outcome:  # carried out, it would keep the worker from reading what is committed next
                await producer.send(config.topics.commands, b'{"command": "pause", "id": "aborted"}')
            await (producer.commit_transaction() if outcome else producer.abort_transaction())

    with anabranch(config, "worker"):
        output_of(config, "resume")  # the worker reads commands
        send(config, work, transactional_id=f"shop-{config.group}")
        until(lambda: applied(config) == 40)
        until(lambda: [p["lag"] for p in partitions(config)] == [0, 0])
    assert json.loads(output_of(config, "status", "--json"))["events"]["lost"] == 0
    sequence = json.loads(output_of(config, "user", "tina", "--json"))["sequence"]
    assert {step["item"].split("-")[0] for step in sequence} == {"True"}


@pytest.mark.usefixtures("with_transactions")
def test_an_open_transaction_of_somebody_else_silences_no_partition(config, producer):
    async def work(other: AIOKafkaProducer) -> None:
        await other.begin_transaction()
        for number in range(2):
            await other.send_and_wait(config.topics.clicks, click("zoe"), partition=number)
        with anabranch(config, "worker"):
            answered = "--from-start", "--json", "--limit", "1"
            shown = await asyncio.to_thread(output_of, config, "watch", *answered)
            assert json.loads(shown)["user"] == "ann"
            assert [p["lag"] for p in await asyncio.to_thread(partitions, config)] == [0, 0]
        await other.abort_transaction()

    producer.send(config.topics.clicks, click("ann"), key=b"ann")
    producer.flush()
    send(config, work, transactional_id=f"shop-{config.group}")
