"""A click in, a recommendation out: the whole path, with a real worker on a real broker."""

import json

import pytest

from state.view import View
from stream.config import Config
from tests.e2e.conftest import anabranch, read_all, until

pytestmark = pytest.mark.broker


def click(producer, config: Config, user: str, item: str, **more: object) -> None:
    value = json.dumps({"user": user, "item": item} | more).encode()
    producer.send(config.topics.clicks, key=user.encode(), value=value)
    producer.flush()


def answers(config: Config) -> dict[str, dict]:
    return {r.key.decode(): json.loads(r.value) for r in read_all(config, config.topics.recommendations)}


def test_each_click_is_answered_and_other_messages_go_to_the_dead_letters(config, producer):
    with anabranch(config, "worker"):
        click(producer, config, "ann", "milk")
        click(producer, config, "bob", "bread")
        producer.send(config.topics.clicks, key=b"eve", value=b"not json")
        producer.flush()
        found = until(lambda: (a := answers(config)).keys() >= {"ann", "bob"} and a)
        assert found["ann"]["source"] == "popularity"
        assert {i["item"] for i in found["ann"]["items"]} <= {"milk", "bread"}

        dead = until(lambda: read_all(config, config.topics.dead_letters))
        assert dead[0].value == b"not json"
        headers = dict(dead[0].headers)
        assert headers["reason"].startswith(b"not JSON")
        assert headers["topic"] == config.topics.clicks.encode()

        for question in ({"user": "ann", "id": "question-1"}, {"user": 7, "id": 2}):
            key = str(question["user"]).encode()
            producer.send(config.topics.requests, key=key, value=json.dumps(question).encode())
        producer.flush()
        replies = until(
            lambda: len(r := read_all(config, config.topics.replies)) == 2 and [json.loads(x.value) for x in r]
        )
        by_user = {reply["user"]: reply for reply in replies}
        assert by_user["ann"]["id"] == "question-1"
        assert by_user["7"]["id"] == 2
        assert all(reply["items"] for reply in replies)


@pytest.mark.slow  # test_crash.py kills after every step, in the default suite
def test_after_a_kill_every_sequence_is_equal_to_the_log(config, producer):
    log: dict[str, list[str]] = {}
    with anabranch(config, "worker") as first:
        for n in range(3000):
            user, item = f"user-{n % 37}", f"item-{n}"
            log.setdefault(user, []).append(item)
            value = json.dumps({"user": user, "item": item, "ts": 1_600_000_000_000 + n}).encode()
            producer.send(config.topics.clicks, key=user.encode(), value=value)
            if n == 1500:
                producer.flush()
                until(lambda: any((config.data).glob(f"{config.topics.clicks}-*/CURRENT")))
                first.kill()  # SIGKILL: nothing is flushed, nothing is closed
        producer.flush()
    with anabranch(config, "worker"):

        def applied() -> int:
            with View(config.data, config.topics.clicks, config.state) as view:
                return sum(p.read_progress().applied for p in view.partitions.values())

        until(lambda: applied() == 3000)
        newest = {user: items[-1] for user, items in log.items()}
        last_click = {r.key.decode(): (r.partition, r.offset) for r in read_all(config, config.topics.clicks)}

        def all_answered() -> bool:
            found = answers(config)
            return all(
                user in found and (found[user]["partition"], found[user]["offset"]) >= last_click[user]
                for user in newest
            )

        until(all_answered)
    with View(config.data, config.topics.clicks, config.state) as view:
        for user, items in log.items():
            user_hash, own = view.ids.of_many([user.encode()]), [view.ids.of(i) for i in items]
            steps = next(s for p in view.partitions.values() if len(s := p.sequences(user_hash).of(0)["item"]))
            assert steps.tolist() == own[-config.state.sequence_events :]


def test_a_version_is_trained_published_and_served(config, producer):
    quick = {
        "ANABRANCH_TRAINER__EVERY_EVENTS": "400",
        "ANABRANCH_TRAINING__EPOCHS": "2",
        "ANABRANCH_TRAINING__WARM_UP_EPOCHS": "2",
    }
    with anabranch(config, "worker"), anabranch(config, "trainer", env=quick):
        for n in range(600):
            click_value = {"user": f"user-{n % 20}", "item": f"item-{n % 7}", "ts": 1_600_000_000_000 + n}
            producer.send(
                config.topics.clicks, key=click_value["user"].encode(), value=json.dumps(click_value).encode()
            )
        producer.flush()
        # The trainer has low priority: on a busy machine its first cycle takes minutes.
        until(lambda: "serving version 000001" in (config.data / "worker.log").read_text(), within_s=300)
        click(producer, config, "user-3", "item-5")
        found = until(lambda: (a := answers(config)["user-3"])["model"] == "000001" and a)
        assert found["source"] in ("ranker", "model")
        assert len(found["items"]) == 7
        assert set(found["items"][0]["because"]) <= {f"item-{n}" for n in range(7)}
