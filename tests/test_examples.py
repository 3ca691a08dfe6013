"""The examples run as in the README."""

import json
import os
import re
import runpy
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from stream.config import Config, KafkaSettings
from stream.kafka.topics import ensure
from stream.local.embedded_broker import free_port

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


def example(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    name, *rest = arguments
    return subprocess.run(
        [sys.executable, "-W", "ignore", str(ROOT / "examples" / name), *rest],
        capture_output=True, text=True, timeout=40, env={**os.environ, **(env or {})},
    )  # fmt: skip


EXAMPLES = {"publish.py": ["alice", "milk"], "request.py": ["alice"], "subscribe.py": []}


@pytest.mark.medium
def test_an_example_ends_with_a_sentence_where_no_broker_answers():
    address = f"127.0.0.1:{free_port()}"
    with ThreadPoolExecutor() as threads:
        for ended in threads.map(lambda name: example(name, address, *EXAMPLES[name]), EXAMPLES):
            assert (ended.returncode, ended.stdout) == (1, "")
            assert re.fullmatch(rf"Kafka at {address} did not serve this within 5 s: .+\n", ended.stderr)


@pytest.mark.broker
@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_ends_with_a_sentence_where_its_topic_is_missing_and_creates_none(broker, name):
    for _ in range(2):
        ended = example(name, broker, *EXAMPLES[name], "--topic", "of-another-name")
        assert (ended.returncode, ended.stdout) == (1, "")
        assert re.match(rf"there is no topic (\w+ and no )?of-another-name at {broker}: `anabranch init", ended.stderr)


@pytest.mark.broker
def test_an_example_takes_the_name_of_its_topic(config):
    ended = example("publish.py", config.broker, "alice", "milk", "--topic", config.topics.clicks)
    assert ended.stdout.startswith(f"published to {config.topics.clicks}, partition ")


@pytest.mark.broker
def test_a_request_without_an_answer_ends_with_a_sentence(config):
    topics = ["--topic", config.topics.requests, "--replies", config.topics.replies]
    ended = example("request.py", config.broker, "alice", *topics)
    assert ended.returncode == 1
    assert ended.stderr == "no answer in 2 s: does a worker run? `anabranch status` shows its lag\n"


@pytest.mark.parametrize(
    ("broker", "env", "sentence"),
    [
        ("localhost", {}, "'localhost' is not HOST:PORT"),
        ("localhost:kafka", {}, "'localhost:kafka' is not HOST:PORT"),
        ("x:1", {"ANABRANCH_KAFKA__SECURITY": "tls"}, "ANABRANCH_KAFKA__SECURITY is one of plaintext, ssl, "),
        ("x:1", {"ANABRANCH_KAFKA__CA_FILE": "/none"}, "ssl_cafile = '/none': there is no such file"),
    ],
)
def test_a_wrong_address_or_variable_is_refused_with_its_value(broker, env, sentence):
    ended = example("publish.py", broker, "alice", "milk", env=env)
    assert ended.returncode == 1
    assert ended.stderr.startswith(sentence)
    assert ended.stderr.count("\n") == 1


def test_the_examples_read_the_variables_of_the_settings(monkeypatch):
    connect = runpy.run_path(str(ROOT / "examples/connect.py"))
    of_clients = [name for name in KafkaSettings.__struct_fields__ if name != "signing_key"]
    sections = {f"ANABRANCH_KAFKA__{name.upper()}" for name in of_clients}
    assert connect["VARIABLES"].keys() == sections
    monkeypatch.setenv("ANABRANCH_KAFKA__SECURITY", "sasl_ssl")
    monkeypatch.setenv("ANABRANCH_KAFKA__SASL_USER", "ann")
    monkeypatch.setenv("ANABRANCH_KAFKA__SASL_PASSWORD", "x")
    made = connect["client"]("kafka:9092")
    made.pop("bootstrap_timeout_ms")
    assert made == {
        "bootstrap_servers": "kafka:9092",
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "PLAIN",
        "sasl_plain_username": "ann",
        "sasl_plain_password": "x",
    }
