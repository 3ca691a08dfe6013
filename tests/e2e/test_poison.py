"""A message that can never be sent or answered keeps nobody waiting, on a broker too."""

import json

import pytest

from tests.e2e.conftest import anabranch, read_all, until

pytestmark = pytest.mark.broker

LONG = "x" * 600_000
POISON = [
    ("items", {"item": "milk", "title": LONG}),
    ("items", {"item": "bread", "title": LONG}),
    ("requests", {"user": "ann", "id": LONG}),
    ("requests", {"user": LONG}),
    ("clicks", {"user": LONG, "item": "milk"}),
    ("commands", {"command": "pause", "id": LONG}),
]


def test_poison_messages_keep_nobody_waiting(config, producer):
    topics = config.topics

    def click(user: str, item: str) -> None:
        producer.send(topics.clicks, key=user.encode(), value=json.dumps({"user": user, "item": item}).encode())
        producer.flush()

    def answered() -> set[str]:
        return {json.loads(r.value)["user"] for r in read_all(config, topics.recommendations)}

    with anabranch(config, "worker"):
        for item in ("milk", "bread"):
            click("ann", item)
        until(lambda: answered() == {"ann"})
        for topic, document in POISON:
            producer.send(getattr(topics, topic), key=b"ann", value=json.dumps(document).encode())
        producer.send(topics.requests, key=b"ann", value=b'{"user": "ann", "id": 7}')
        click("bob", "milk")
        until(lambda: answered() == {"ann", "bob"})
        [reply] = until(lambda: read_all(config, topics.replies))
        assert {"user": "ann", "id": 7, "status": "ok"}.items() <= json.loads(reply.value).items()
        dead = until(lambda: len(found := read_all(config, topics.dead_letters)) == 3 and found)
    assert sorted(dict(r.headers)["reason"].decode() for r in dead) == [
        "no request: id is 600000 bytes long, more than 512",
        "no request: user is 600000 bytes long, more than 512",
        "user is 600000 bytes long, more than 512",
    ]
    log = (config.data / "worker.log").read_text()
    assert "Traceback" not in log
    assert "trying again" not in log
