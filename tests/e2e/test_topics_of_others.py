"""Topics that others create: brokers that create one when it is named, and shapes that lose messages."""

import contextlib
import functools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from kafka import KafkaAdminClient
from kafka.admin import NewTopic

from stream.config import Config, TopicSettings
from stream.kafka.shapes import SHAPES
from tests.e2e import conftest
from tests.e2e.conftest import anabranch, until
from tests.kafka import kafka, missing
from tests.stream.cli.small_shop import make_small_shop

pytestmark = [pytest.mark.broker, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
LOOKING = [
    ["status"], ["models"], ["recommend", "ann"], ["user", "ann"], ["watch"], ["pause"], ["rollback", "000001"],
    ["forget", "ann", "--within", "1"], ["publish", "-"],
]  # fmt: skip


@pytest.fixture(scope="module")
def creating() -> Iterator[str]:
    """A Kafka with Kafka's own default: a topic that a client names is created."""
    if reason := missing():
        pytest.skip(reason)
    with kafka(**{"auto.create.topics.enable": "true"}) as address:
        yield address


def topics_of(address: str) -> set[str]:
    with contextlib.closing(KafkaAdminClient(bootstrap_servers=address)) as admin:
        return set(admin.list_topics())


def named(address: str, data: Path, tag: str) -> Config:
    names = {field: f"{field}-{tag}" for field in SHAPES}
    return Config(broker=address, data=data, group=f"group-{tag}", topics=TopicSettings(**names))


run = functools.partial(conftest.run, within_s=60)


def test_looking_creates_no_topic(creating, tmp_path):
    config = msgspec.structs.replace(
        named(creating, tmp_path / "data", "looked-at"), topics=TopicSettings(requests="requests-of-others")
    )  # the examples look at the other default names
    make_small_shop(config.data)
    before = topics_of(creating)
    for command in LOOKING:
        done = run(config, *command)
        assert "Traceback" not in done.stderr, command
        assert topics_of(creating) - before == set(), command
    for example in (
        ["publish.py", creating, "ann", "milk"],
        ["request.py", creating, "ann"],
        ["subscribe.py", creating],
    ):
        with contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run(
                [sys.executable, "-W", "ignore", ROOT / "examples" / example[0], *example[1:]], timeout=5, check=False
            )
        assert topics_of(creating) - before == set(), example
    for process in ("worker", "trainer"):
        done = run(config, process)
        assert done.returncode == 1
        assert "run `anabranch init`" in done.stderr
        assert topics_of(creating) - before == set(), process


def test_a_deleted_clicks_topic_is_reported_and_comes_back_as_init_creates_it(creating, tmp_path):
    config = named(creating, tmp_path / "data", "deleted")
    assert run(config, "init").returncode == 0
    with anabranch(config, "worker"), contextlib.closing(KafkaAdminClient(bootstrap_servers=creating)) as admin:
        log = config.data / "worker.log"
        until(lambda: (config.data / f"{config.topics.clicks}-1" / "CURRENT").exists())
        admin.delete_topics([config.topics.clicks])
        until(lambda: f"has no topic {config.topics.clicks!r}: run `anabranch init`" in log.read_text())
        assert config.topics.clicks not in topics_of(creating)
        assert run(config, "init").stdout.count("created") == 1
        clicks = tmp_path / "clicks.jsonl"
        clicks.write_text("".join(f'{{"user": "user-{n}", "item": "milk"}}\n' for n in range(40)))
        assert run(config, "publish", str(clicks)).returncode == 0
        done = run(config, "watch", "user-7", "--from-start", "--limit", "1", "--json")
        assert '"user":"user-7"' in done.stdout
        status = msgspec.json.decode(run(config, "status", "--json").stdout)
        assert [p["lag"] for p in status["partitions"]] == [0, 0]


def test_init_and_worker_refuse_topics_that_lose_what_we_need(creating, tmp_path):
    config = named(creating, tmp_path / "data", "misshapen")
    topics = config.topics
    with contextlib.closing(KafkaAdminClient(bootstrap_servers=creating)) as admin:
        admin.create_topics(
            [
                NewTopic(topics.models, 1, 1),
                NewTopic(topics.clicks, 3, 1, topic_configs={"cleanup.policy": "compact", "retention.ms": "3600000"}),
                NewTopic(topics.dead_letters, 1, 1, topic_configs={"max.message.bytes": "100000"}),
            ]
        )
    done = run(config, "init")
    assert done.returncode == 1
    assert f"created  {topics.requests} (3 partitions)" in done.stdout
    assert f"the topic {topics.models!r} has cleanup.policy=delete" in done.stderr
    assert f"the topic {topics.clicks!r} has cleanup.policy=compact" in done.stderr
    assert f"--entity-name {topics.models} --add-config cleanup.policy=compact" in done.stderr
    assert f"{topics.clicks!r} accepts messages of 1,048,588 bytes, {topics.dead_letters!r} of 100,000" in done.stderr
    assert "keeps its producers' clocks" in done.stderr
    refused = run(config, "worker")
    assert refused.returncode == 1
    assert "has cleanup.policy=compact" in refused.stderr
