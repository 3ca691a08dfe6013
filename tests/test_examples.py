"""The examples run as in the README."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from stream.config import Config
from stream.kafka.topics import ensure

ROOT = Path(__file__).parent.parent


@pytest.mark.broker
def test_a_click_published_by_the_example_is_read_back_from_its_partition(broker, tmp_path):
    ensure(Config(broker=broker, data=tmp_path))
    example = subprocess.run(
        [sys.executable, "-W", "ignore", str(ROOT / "examples/publish.py"), broker, "alice", "milk"],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert example.stdout.startswith("published to clicks, partition ")


@pytest.mark.broker
def test_the_subscriber_prints_recommendations(broker, tmp_path):
    from kafka import KafkaProducer

    ensure(Config(broker=broker, data=tmp_path))
    producer = KafkaProducer(bootstrap_servers=broker)
    message = b'{"user": "alice", "items": [{"item": "milk"}], "model": null, "source": "popularity"}'
    producer.send("recommendations", key=b"alice", value=message).get(timeout=10)
    producer.close()
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", str(ROOT / "examples/subscribe.py"), broker],
        stdout=subprocess.PIPE, text=True,
    ) as reader:  # fmt: skip
        assert reader.stdout is not None
        line = reader.stdout.readline()
        reader.terminate()
    assert line == "alice: milk  (by popularity)\n"


@pytest.mark.broker
def test_the_request_example_waits_for_its_own_answer(broker, tmp_path):
    from kafka import KafkaConsumer, KafkaProducer

    ensure(Config(broker=broker, data=tmp_path))
    requests = KafkaConsumer(
        "requests", bootstrap_servers=broker, auto_offset_reset="earliest", consumer_timeout_ms=60_000
    )
    producer = KafkaProducer(bootstrap_servers=broker)
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", str(ROOT / "examples/request.py"), broker, "alice"],
        stdout=subprocess.PIPE, text=True,
    ) as example:  # fmt: skip
        request = json.loads(next(iter(requests)).value)
        assert request["user"] == "alice"
        for number, item in (("another", "tea"), (request["id"], "milk")):
            answer = {"user": "alice", "items": [{"item": item}], "model": "000001", "source": "model", "id": number}
            producer.send("replies", key=number.encode(), value=json.dumps(answer).encode()).get(timeout=10)
        output, _ = example.communicate(timeout=60)
    requests.close()
    producer.close()
    assert output.split() == ["milk", "(by", "000001)"]
