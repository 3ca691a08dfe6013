"""An installation from before the id key gets one: a running worker goes on, and after its restart nobody collides."""

import asyncio
import json

import pytest

from state.id_hash import IdHash
from state.view import View, id_keys_in
from stream.config import Config
from stream.kafka.id_key_record import IdKey, publish_record, read_record
from tests.e2e.conftest import anabranch, progress, read_all, succeed, until

pytestmark = pytest.mark.broker

VICTIM, COLLIDER = "user-1131", "%ay{G7VA"
"""Two ids of the same hash where there is no key."""


def items_of(config: Config, user: str) -> list[str]:
    return [step["item"] for step in json.loads(succeed(config, "user", user, "--json").stdout)["sequence"]]


@pytest.mark.slow
def test_after_the_migration_a_collider_sees_nothing_of_its_victim(config, producer):
    def click(user: str, item: str) -> None:
        value = json.dumps({"user": user, "item": item}).encode()
        producer.send(config.topics.clicks, key=user.encode(), value=value, partition=0)

    def applied() -> int:
        with View(config.data, config.topics.clicks, config.state) as view:
            return progress(view)

    now = read_record(config).record
    asyncio.run(publish_record(config, IdKey("", [now.ids.fingerprint])))
    with anabranch(config, "worker"):
        click(VICTIM, "pills")
        click(COLLIDER, "bread")
        producer.flush()
        until(lambda: applied() == 2)
        assert items_of(config, COLLIDER) == ["pills", "bread"], "the collider reads its victim's history"
        assert "ids are hashed without a key" in succeed(config, "status").stderr

        made = succeed(config, "init", "--id-key", "new")
        key = read_record(config).record.id_key
        assert IdHash(key).fingerprint in made.stdout
        assert "restart every worker and trainer" in made.stderr
        assert "not swapped in: " in succeed(config, "replay", "--from", "earliest").stdout
        click(COLLIDER, "butter")
        producer.flush()
        until(lambda: applied() == 3)
        assert set(id_keys_in(config.data, config.topics.clicks, config.state).values()) == {""}

    with anabranch(config, "worker"):
        until(lambda: set(id_keys_in(config.data, config.topics.clicks, config.state).values()) == {key})
        until(lambda: applied() == 3)
        assert items_of(config, COLLIDER) == ["bread", "butter"]
        assert items_of(config, VICTIM) == ["pills"]
        click(VICTIM, "tea")
        producer.flush()
        until(lambda: any(r.key == VICTIM.encode() for r in read_all(config, config.topics.recommendations)))
        status = succeed(config, "status", "--json")
        assert json.loads(status.stdout)["id_keys"] == [IdHash(key).fingerprint]
        assert status.stderr == ""
    texts = [made.stdout, made.stderr, status.stdout, (config.data / "worker.log").read_text()]
    assert not any(key in text for text in texts), "the secret is printed nowhere"
