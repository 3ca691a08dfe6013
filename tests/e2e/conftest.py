"""Workers and commands as processes of their own, as an operator runs them."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from state.view import View
from stream.config import Config
from stream.kafka.connection import connection

WITHIN_S = 120.0
POLLS_OF_EMPTY_PARTITION = 10
"""A partition without records reports no end to its reader. After this many polls it counts as empty."""


def flags_of(config: Config) -> dict[str, str]:
    """The test's configuration as the environment of a child process."""
    state = {
        name.upper(): getattr(config.state, name) for name in ("window_s", "dedup_window_events", "neighbours_per_item")
    }
    for name, kind in config.state.kinds.items():
        state |= {f"KINDS__{name.upper()}__ROLE": kind.role, f"KINDS__{name.upper()}__WEIGHT": kind.weight}
    names = {f"ANABRANCH_TOPICS__{k.upper()}": str(getattr(config.topics, k)) for k in config.topics.__struct_fields__}
    names |= {f"ANABRANCH_KAFKA__{k.upper()}": getattr(config.kafka, k) for k in config.kafka.__struct_fields__}
    names |= {f"ANABRANCH_STATE__{name}": str(value) for name, value in state.items()}
    return {**names, "ANABRANCH_GROUP": config.group}


def command_line(config: Config, *command: str) -> list[str]:
    """`anabranch COMMAND` on the test's data directory and broker."""
    return [sys.executable, "-m", "stream.cli", *command, "--data", str(config.data), "--broker", config.broker]


def run(
    config: Config, *command: str, env: dict[str, str] | None = None, within_s: float = WITHIN_S
) -> subprocess.CompletedProcess[str]:
    """Run `anabranch COMMAND` to its end."""
    return subprocess.run(
        command_line(config, *command), capture_output=True, text=True, timeout=within_s, stdin=subprocess.DEVNULL,
        env={**os.environ, **flags_of(config), **(env or {})},
    )  # fmt: skip


def succeed(
    config: Config, *command: str, env: dict[str, str] | None = None, within_s: float = WITHIN_S
) -> subprocess.CompletedProcess[str]:
    """As `run`; fail the test if the command fails."""
    done = run(config, *command, env=env, within_s=within_s)
    assert done.returncode == 0, done.stderr + done.stdout
    return done


@contextmanager
def anabranch(config: Config, *command: str, env: dict[str, str] | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """Run `anabranch COMMAND` until the block ends; its log is <data>/<command>.log."""
    config.data.mkdir(parents=True, exist_ok=True)
    with (config.data / f"{command[0]}.log").open("ab") as log:
        process = subprocess.Popen(
            command_line(config, *command),
            stdout=log, stderr=subprocess.STDOUT, env={**os.environ, **flags_of(config), **(env or {})},
        )  # fmt: skip
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def until(condition: Callable[[], Any], within_s: float = WITHIN_S) -> Any:
    """Wait until `condition` returns something; fail the test if it does not within `within_s`."""
    deadline = time.monotonic() + within_s
    while not (found := condition()):
        assert time.monotonic() < deadline, "the condition was not true in time"
        time.sleep(0.1)
    return found


def progress(view: View) -> int:
    """Records that the stores of a view have read, valid or not."""
    return sum(p.read_progress().log_offset for p in view.partitions.values())


def read_all(config: Config, topic: str) -> list[Any]:
    """Every record a topic holds now, partition after partition."""
    consumer = KafkaConsumer(**connection(config), enable_auto_commit=False, group_id=None)
    try:
        partitions = [TopicPartition(topic, p) for p in sorted(consumer.partitions_for_topic(topic) or ())]
        consumer.assign(partitions)
        consumer.seek_to_beginning(*partitions)
        ends = consumer.end_offsets(partitions)
        records: list[Any] = []
        deadline, asked = time.monotonic() + WITHIN_S, 0

        def to_the_end(partition: TopicPartition) -> bool:
            # The embedded broker reports the beginning of its last batch as the end; a reader gets the right end.
            known = consumer.highwater(partition)
            return consumer.position(partition) >= max(ends[partition], known or 0) and (
                known is not None or asked >= POLLS_OF_EMPTY_PARTITION
            )

        while not all(map(to_the_end, partitions)):
            assert time.monotonic() < deadline, f"{topic} could not be read to its end"
            asked += 1
            for part in consumer.poll(timeout_ms=200).values():
                records += part
        return records
    finally:
        consumer.close()


@pytest.fixture
def producer(broker: str) -> Iterator[KafkaProducer]:
    made = KafkaProducer(bootstrap_servers=broker)
    yield made
    made.close()
