"""`anabranch recommend USER` and the running worker: the same items, scores, reasons, version and source."""

import json
from typing import Any

import msgspec
import pytest

from model.learning.versions import list_versions
from model.ranking.fusion import Learned
from state.view import View
from stream.config import Config
from stream.kafka.pointers import MODEL_NAME, read_last_pointers
from stream.worker import online_weights
from stream.worker.served_versions import in_candidates_arm
from tests.e2e.conftest import anabranch, read_all, succeed, until

pytestmark = [pytest.mark.broker, pytest.mark.slow]

SHARE = 0.5
USERS, ITEMS = [f"user-{n}" for n in range(20)], 7
QUICK_TRAINING = {
    "ANABRANCH_TRAINER__EVERY_EVENTS": "100",
    "ANABRANCH_TRAINER__MIN_EVENTS": "100",
    "ANABRANCH_TRAINING__EPOCHS": "2",
    "ANABRANCH_TRAINING__WARM_UP_EPOCHS": "2",
}
SCORE_TOLERANCE = 2e-4
"""Scores may differ by this much: the worker counts clicks in memory, and the state rounds them differently."""


class Session:
    """Clicks, requests and commands on one configuration."""

    def __init__(self, config: Config, producer: Any) -> None:
        self.config, self.producer, self.clicks = config, producer, 0

    def click(self, user: str, item: str, event: str = "click") -> None:
        value = {"user": user, "item": item, "event": event, "ts": 1_600_000_000_000 + self.clicks}
        self.producer.send(self.config.topics.clicks, key=user.encode(), value=json.dumps(value).encode())
        self.clicks += 1

    def click_all(self, laps: int) -> None:
        for lap in range(laps):
            for n, user in enumerate(USERS):
                self.click(user, f"item-{(lap + n * n) % ITEMS}")
        self.producer.flush()

    def command(self, *arguments: str, **env: str) -> dict[str, Any]:
        return json.loads(succeed(self.config, *arguments, "--json", env=env).stdout)

    def reply(self, user: str) -> dict[str, Any]:
        """The worker's answer to a request."""
        asked = f"{user} after {self.clicks} clicks"
        value = json.dumps({"user": user, "id": asked}).encode()
        self.producer.send(self.config.topics.requests, key=user.encode(), value=value)
        self.producer.flush()
        replies = self.config.topics.replies
        return until(
            lambda: next((m for r in read_all(self.config, replies) if (m := json.loads(r.value))["id"] == asked), None)
        )

    def last_messages(self) -> dict[str, dict[str, Any]]:
        records = read_all(self.config, self.config.topics.recommendations)
        return {r.key.decode(): json.loads(r.value) for r in records}

    def answered(self) -> bool:
        """Whether all clicks are applied and answered."""
        with View(self.config.data, self.config.topics.clicks, self.config.state) as view:
            progress = [(p.read_progress(), p.answered()) for p in view.partitions.values()]
        return sum(p.next_offset for p, _ in progress) == self.clicks and all(
            answered >= p.next_offset for p, answered in progress
        )


def assert_same_recommendation(ours: dict[str, Any], workers: dict[str, Any]) -> None:
    """Fail if the two messages recommend differently."""
    assert (ours["model"], ours["source"]) == (workers["model"], workers["source"])
    assert [i["item"] for i in ours["items"]] == [i["item"] for i in workers["items"]]
    assert [i.get("because") for i in ours["items"]] == [i.get("because") for i in workers["items"]]
    scores = [[i["score"] for i in message["items"]] for message in (ours, workers)]
    assert scores[0] == pytest.approx(scores[1], abs=SCORE_TOLERANCE)


def learn_two_versions(session: Session) -> None:
    """A champion, 000001, and a candidate that is only scored, 000002."""
    config = session.config
    with anabranch(config, "worker"), anabranch(config, "trainer", env=QUICK_TRAINING):
        session.click_all(8)
        until(lambda: (p := read_last_pointers(config.data).champion) and p.version == "000001")
        session.click_all(2)
        session.command("retrain", "--wait", "--shadow")
        until(lambda: read_last_pointers(config.data).scored)


def test_the_command_recommends_what_the_running_worker_does(config, producer):
    session = Session(config, producer)
    learn_two_versions(session)
    chosen = next(v.fusion for v in list_versions(config.artifacts_url, MODEL_NAME) if v.version == "000001")
    moved = msgspec.structs.replace(chosen, model=3 * chosen.model + 0.5, popularity=0.5 * chosen.popularity)
    online_weights.write(config.data, "one", "000001", Learned(chosen, moved, 200))
    env = {"ANABRANCH_WORKER__AB": str(SHARE)}
    with View(config.data, config.topics.clicks, config.state) as view:
        is_candidates = {user: in_candidates_arm(view.ids.of(user), SHARE) for user in USERS}
    by_champion, another = [user for user in USERS if not is_candidates[user]][:2]
    by_candidate = next(user for user in USERS if is_candidates[user])
    with anabranch(config, "worker", "--instance", "one", env=env):
        session.click_all(1)
        until(session.answered)
        hidden = {user: session.last_messages()[user]["items"][0]["item"] for user in (by_champion, by_candidate)}
        for user, item in hidden.items():
            session.click(user, item, "hide")
        producer.flush()
        until(session.answered)
        session.click(another, "item-3")  # the last message is of this state
        producer.flush()
        until(session.answered)
        last = session.command("recommend", another, **env)
        assert_same_recommendation(last, session.last_messages()[another])

        for user, version in ((by_champion, "000001"), (by_candidate, "000002")):
            ours = session.command("recommend", user, **env)
            assert ours["model"] == version
            assert hidden[user] not in {i["item"] for i in ours["items"]}
            assert_same_recommendation(ours, session.reply(user))

        nobody = session.command("recommend", "nobody", **env)
        assert (nobody["model"], nobody["source"]) == (None, "popularity")
        assert_same_recommendation(nobody, session.reply("nobody"))

        own_weights = session.command("recommend", by_champion, **env, ANABRANCH_RANKING__ONLINE_CLICKS="0")
        learned = session.command("recommend", by_champion, **env)
        assert [i["score"] for i in own_weights["items"]] != pytest.approx(
            [i["score"] for i in learned["items"]], abs=SCORE_TOLERANCE
        ), "the learned weights count"
