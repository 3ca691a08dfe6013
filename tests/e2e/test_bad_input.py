"""No message stops the worker, and none is lost: it is answered or goes to the dead letters with its reason."""

import json
from pathlib import Path

import pytest
from kafka import KafkaAdminClient, KafkaProducer
from kafka.admin import ConfigResource, ConfigResourceType

from model.learning.versions import publish
from state.view import View
from stream.kafka.messages import Pointer, encode
from stream.kafka.pointers import MODEL_NAME, pointer_to
from tests.e2e.conftest import anabranch, read_all, until
from tests.model.examples import cycling, learned

pytestmark = pytest.mark.broker

DAY_MS = 86_400_000
BAD_MESSAGES = [
    (b"not json", "not JSON"),
    (b"\xff\xfe\x00", "not JSON"),
    (b"[1]", "not a JSON object"),
    (None, "tombstone"),
    (b'{"item": "milk"}', "user is missing"),
    (b'{"user": "", "item": "milk"}', "user is empty"),
    (b'{"user": "ann", "item": null}', "item is missing or null"),
    (b'{"user": 1.5, "item": "milk"}', "neither text nor a whole number"),
    (json.dumps({"user": "x" * 10_000, "item": "milk"}).encode(), "10000 bytes long"),
    (b'{"user": "ann", "item": "milk", "ts": -5}', "negative"),
    (b'{"user": "ann", "item": "milk", "ts": 1700000}', "too small to give its unit away"),
    (b'{"user": "ann", "item": "milk", "ts": "9999-12-31T23:59:59Z"}', "ahead of the broker's clock"),
    (b'{"user": "ann", "item": "milk", "ts": NaN}', "not JSON"),
    (b'{"user": "ann", "item": "milk", "event": "teleport"}', "unknown event kind"),
    (b'{"user": "ann", "item": "milk", "x": ' + b"[" * 2000 + b"]" * 2000 + b"}", "nested too deeply"),
    (b'{"user": "ann", "item": "milk", "ts": 1' + b"0" * 400 + b"}", "too large to be a time"),
    (b'{"user": "ann", "item": "' + b"m" * (5 << 20) + b'"}', "max_message_bytes"),
]
LARGE_KEY = b"k" * (5 << 20)
GOOD_MESSAGES = [
    ("7", b'{"user": 7, "item": 12}'),
    ("émile 🛒", '{"user": "émile 🛒", "item": "fromage"}'.encode()),
    ("a\x01b", b'{"user": "a\\u0001b", "item": "milk"}'),
    ("iso", b'{"user": "iso", "item": "milk", "ts": "2024-02-29T12:00:00+01:00"}'),
    ("naive", b'{"user": "naive", "item": "milk", "ts": "2024-02-29T12:00:00"}'),
]


def allow_large_messages(broker: str, topic: str) -> None:
    """Kafka itself refuses what is larger than its topic takes; the embedded broker has no such setting."""
    admin = KafkaAdminClient(bootstrap_servers=broker)
    try:
        admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, {"max.message.bytes": str(16 << 20)})])
    except Exception as error:
        print(f"{topic} stays as it is: {error!r}")
    finally:
        admin.close()


def test_every_bad_message_goes_to_the_dead_letters_with_its_reason_and_every_good_one_is_answered(config, broker):
    allow_large_messages(broker, config.topics.clicks)
    producer = KafkaProducer(bootstrap_servers=broker, max_request_size=16 << 20)
    with anabranch(config, "worker"):
        for value, _ in BAD_MESSAGES:
            producer.send(config.topics.clicks, key=b"somebody", value=value)
        producer.send(config.topics.clicks, key=LARGE_KEY, value=b"not json")
        for user, value in GOOD_MESSAGES:
            producer.send(config.topics.clicks, key=user.encode(), value=value)
        producer.send(config.topics.clicks, key=b"not-bob", value=b'{"user": "bob", "item": "milk"}')
        producer.flush()
        dead = until(
            lambda: len(found := read_all(config, config.topics.dead_letters)) == len(BAD_MESSAGES) + 1 and found
        )
        wanted = {*(user for user, _ in GOOD_MESSAGES), "bob"}
        until(lambda: {json.loads(r.value)["user"] for r in read_all(config, config.topics.recommendations)} == wanted)
    producer.close()

    *dead, of_large_key = sorted(dead, key=lambda r: int(dict(r.headers)["offset"]))
    assert of_large_key.value == b"not json"
    if "truncated_key" in (headers := dict(of_large_key.headers)):
        assert int(headers["truncated_key"]) == len(LARGE_KEY)
        assert of_large_key.key == LARGE_KEY[: len(of_large_key.key)]
    for (value, reason), letter in zip(BAD_MESSAGES, dead, strict=True):
        headers = dict(letter.headers)
        assert reason in headers["reason"].decode()
        if "truncated" in headers:  # larger than the dead-letter topic takes
            assert int(headers["truncated"]) == len(value)
            assert letter.value == value[: len(letter.value)]
        else:
            assert letter.value == value
    with View(config.data, config.topics.clicks, config.state) as view:
        progresses = [p.read_progress() for p in view.partitions.values()]
    assert sum(m.dead for m in progresses) == len(BAD_MESSAGES) + 1
    assert sum(m.applied for m in progresses) == len(GOOD_MESSAGES) + 1
    assert sum(m.key_mismatch for m in progresses) == 1


@pytest.mark.slow
def test_bad_messages_on_all_other_topics_are_skipped(config, producer):
    latin = '{"user": "José", "item": "José", "title": "José"}'.encode("latin-1")
    topics, log = config.topics, config.data / "worker.log"

    def click(user: str) -> None:
        producer.send(topics.clicks, key=user.encode(), value=json.dumps({"user": user, "item": "milk"}).encode())
        producer.flush()

    def answers() -> list:
        return read_all(config, topics.recommendations)

    with anabranch(config, "worker"):
        click("ann")
        until(answers)  # the stores are open
        for topic in (topics.items, topics.requests, topics.models, topics.commands):
            for junk in (latin, b"[" * 5000, None):
                producer.send(topic, key=b"ann", value=junk)
        producer.send(topics.items, key=b"milk", value=b'{"item": "milk", "title": "Milk"}')
        producer.flush()
        until(lambda: "no title" in log.read_text())  # one line a minute
        until(lambda: len(read_all(config, topics.dead_letters)) == 3)
        click("ann")
        answer = until(lambda: len(found := answers()) == 2 and found[-1])
        assert json.loads(answer.value)["items"][0]["title"] == "Milk"
    with anabranch(config, "worker"):  # what is there is read again at the next start
        click("bob")
        until(lambda: len(answers()) == 3)
    assert "Traceback" not in log.read_text()


def test_a_version_that_differs_from_its_pointer_is_not_served(config, producer):
    bad = Pointer("create", "000007", str(config.data / "models"), "0" * 64, 1_700_000_000_000)
    folder = config.data / "models/create/000007"
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text("{}")
    with anabranch(config, "worker"):
        producer.send(config.topics.models, key=b"create", value=encode(bad))
        producer.flush()
        log = config.data / "worker.log"
        until(lambda: "version 000007 is not served" in log.read_text())
        assert "sha256" in log.read_text()
        producer.send(config.topics.clicks, key=b"ann", value=b'{"user": "ann", "item": "milk"}')
        producer.flush()
        answer = until(lambda: read_all(config, config.topics.recommendations))[0]
        assert json.loads(answer.value)["source"] == "popularity"
    assert "Traceback" not in log.read_text()


@pytest.mark.slow
def test_a_version_whose_artifact_store_was_away_is_served_when_it_is_back(config, producer):
    publish(config.artifacts_url, MODEL_NAME, learned(cycling()), {})
    pointer, store = pointer_to(config, "000001", None), Path(config.artifacts_url)
    away = store.rename(store.with_name("away"))
    with anabranch(config, "worker"):
        producer.send(config.topics.models, key=b"create", value=encode(pointer))
        producer.flush()
        log = config.data / "worker.log"
        until(lambda: "version 000001 is not served" in log.read_text())
        away.rename(store)
        until(lambda: "serving version 000001" in log.read_text())
