"""Recommendations from a store: by the champion, by a candidate beside it or instead of it, with unknown items."""

import msgspec
import numpy as np
import pytest

from model.learning.cycle import CycleInput, CycleSettings, run_cycle
from model.learning.trained import Trained
from model.ranking.fusion import Fusion
from model.ranking.stages import Stages
from model.settings import ModelSettings, RankingSettings, TrainingSettings
from state.events import EVENT, EventBatch, hash_id, hash_ids
from state.identity import Identity
from state.kinds import code_of
from state.pending import Unanswered
from state.settings import StateSettings
from state.store import Applied, Store
from state.titles import Titles
from stream.config import Config, WorkerSettings
from stream.kafka.messages import Recommendation
from stream.live_metrics import LiveMetrics, ScoreKey, Scores
from stream.operate.model_report import learned_weights
from stream.worker import online_weights as weights
from stream.worker.recommender import Recommender
from stream.worker.served_versions import ServedVersion, in_candidates_arm

STATE = StateSettings(neighbours_per_item=8, sequence_events=20)
USERS = [f"user-{n}" for n in range(60)]


class Stall:
    """A store, recommenders over it, and versions for it."""

    def __init__(self, folder) -> None:
        self.store = Store(folder / "clicks-0", Identity("cluster", "clicks", 0, 1, 20, 8), STATE)
        for lap in range(8):
            self.click(USERS, [f"item-{(lap + n) % 12}" for n in range(len(USERS))])

    def click(self, users: list[str], items: list[str], kind: str = "click") -> Applied:
        start = self.store.progress.next_offset
        events = np.zeros(len(users), EVENT)
        names = [u.encode() for u in users], [i.encode() for i in items]
        events["user"], events["item"] = hash_ids(names[0]), hash_ids(names[1])
        events["offset"] = start + np.arange(len(users))
        events["ts"] = 1_600_000_000_000 + 1000 * events["offset"]
        events["kind"] = code_of(kind)
        return self.store.apply(EventBatch(events, *names, {}), start + len(users))

    def recommender(self, **worker) -> Recommender:
        config = Config(state=STATE, worker=WorkerSettings(**worker), data=self.store.path.parent)
        return Recommender(config, {0: self.store}, None)

    def learning_recommender(self, data) -> Recommender:
        ranking = RankingSettings(online_clicks=50, popularity_weight=1.0)
        return Recommender(Config(state=STATE, ranking=ranking, data=data), {0: self.store}, None)

    def following(self) -> np.ndarray:
        """The next click of every user if the laps continue."""
        events = np.zeros(len(USERS), EVENT)
        events["user"] = hash_ids([u.encode() for u in USERS])
        events["item"] = hash_ids([f"item-{(8 + n) % 12}".encode() for n in range(len(USERS))])
        return events

    def trained(self, seed: int) -> Trained:
        users = np.sort(hash_ids([u.encode() for u in USERS]))
        items = self.store.all_items()
        names = {h: i.decode() for h, i in zip(items.tolist(), self.store.item_ids(items), strict=True)}
        training = TrainingSettings(warm_up_epochs=1, epochs=1, last_epochs=1)
        settings = CycleSettings(ModelSettings(dim=8), training, RankingSettings(), STATE)
        return run_cycle(None, CycleInput(self.store.sequences(users), names, self.store.rows, seed), settings)

    def pending(self, *users: str) -> dict[int, Unanswered]:
        return {hash_id(u): Unanswered(0, self.store.progress.next_offset - 1, 0) for u in users}


@pytest.fixture(scope="module")
def stall(tmp_path_factory):
    made = Stall(tmp_path_factory.mktemp("stall"))
    yield made
    made.store.close()


@pytest.fixture(scope="module")
def versions(stall):
    return [stall.trained(seed) for seed in (0, 1)]


def serving(version: str, trained: Trained, fusion: Fusion | None = None) -> ServedVersion:
    settings = RankingSettings()
    return ServedVersion(version, 0, Stages(trained.model, trained.vocabulary, fusion or trained.fusion, settings))


def answered(recommender: Recommender, stall: Stall, *users: str) -> dict[str, Recommendation]:
    answers = recommender.recommend(0, stall.pending(*users))
    return {a.user_id.decode(): msgspec.json.decode(a.message, type=Recommendation) for a in answers}


def test_an_item_that_no_version_knows_is_recommended_to_others_within_one_batch(stall, versions):
    recommender = stall.recommender()
    recommender.versions.serve(serving("000001", versions[0]))
    before = answered(recommender, stall, "user-3")["user-3"]
    assert "never-seen" not in {i.item for i in before.items}
    last = stall.store.sequences(np.array([hash_id("user-3")], np.uint64)).of(0)["item"][-1]
    name = stall.store.item_ids(np.array([last], np.uint64))[0].decode()
    passers_by = [f"passer-by-{n}" for n in range(20)]
    recommender.update(stall.click(passers_by * 2, [name] * 20 + ["never-seen"] * 20))
    after = answered(recommender, stall, "user-3")["user-3"]
    found = {i.item: i for i in after.items}
    assert "never-seen" in found
    assert found["never-seen"].because[0] == name
    assert found["never-seen"].why == "followed"


def test_a_candidate_is_scored_on_the_events_that_the_champion_answered_and_shown_to_nobody(stall, versions):
    recommender = stall.recommender()
    recommender.versions.serve(serving("000001", versions[0]))
    alone = answered(recommender, stall, *USERS)
    recommender.versions.score(serving("000002", versions[1], Fusion(0.0, 0.0, -9.0, -1.0)))
    metrics, scores = LiveMetrics(100), Scores()
    for answer in recommender.recommend(0, stall.pending(*USERS)):
        metrics.remember(answer.user, answer.last_recommendation)
        message = msgspec.json.decode(answer.message, type=Recommendation)
        assert message.model == "000001"
        assert message.items == alone[message.user].items
    tests = np.zeros(len(USERS), EVENT)
    tests["user"] = hash_ids([u.encode() for u in USERS])
    tests["item"] = hash_id("item-3")
    metrics.test(tests, scores)
    champion, candidate = (scores[ScoreKey(v, "shadow", ("000001", "000002"))] for v in ("000001", "000002"))
    assert champion.events == candidate.events == len(USERS)
    assert champion.ndcg != candidate.ndcg
    assert ScoreKey("000002") not in scores
    recommender.versions.score(None)
    assert all(not a.last_recommendation.compared for a in recommender.recommend(0, stall.pending(*USERS)))


def test_an_item_that_a_user_hides_is_recommended_to_others_only_by_every_version(stall, versions):
    recommender = stall.recommender()
    recommender.versions.serve(serving("000001", versions[0]))
    recommender.versions.score(serving("000002", versions[1]))
    first = answered(recommender, stall, "user-5")["user-5"].items[0].item
    recommender.update(stall.click(["user-5"], [first], "hide"))
    after = answered(recommender, stall, "user-5", "user-6")
    assert after["user-5"].source == "model"
    assert first not in {i.item for i in after["user-5"].items}
    assert first in {i.item for i in after["user-6"].items}
    [answer] = recommender.recommend(0, stall.pending("user-5"))
    assert all(hash_id(first) not in shown for shown in answer.last_recommendation.compared.values())
    fallen_back = answered(stall.recommender(), stall, "user-5")["user-5"]
    assert fallen_back.source == "popularity"
    assert first not in {i.item for i in fallen_back.items}


def test_a_title_comes_with_its_item_and_changes_with_it(stall, versions, tmp_path):
    titles = Titles(tmp_path)
    titles.apply({hash_id("item-4"): "Milk, 1 l"}, "id", {0: 1})
    recommender = Recommender(Config(state=STATE, data=stall.store.path.parent), {0: stall.store}, titles)
    recommender.versions.serve(serving("000001", versions[0]))
    found = {i.item: i.title for i in answered(recommender, stall, "user-3")["user-3"].items}
    assert found.pop("item-4") == "Milk, 1 l"
    assert set(found.values()) == {None}
    titles.apply({hash_id("item-4"): "Milk, 2 l"}, "id", {0: 2})
    recommender.names.forget([hash_id("item-4")])
    found = {i.item: i.title for i in answered(recommender, stall, "user-3")["user-3"].items}
    assert found["item-4"] == "Milk, 2 l"
    titles.close()


def test_in_an_a_b_test_a_share_of_users_gets_the_candidate_and_always_the_same_ones(stall, versions):
    recommender = stall.recommender(ab=0.3)
    recommender.versions.serve(serving("000001", versions[0]))
    recommender.versions.score(serving("000002", versions[1]))
    first, again = (answered(recommender, stall, *USERS) for _ in range(2))
    by = {user: message.model for user, message in first.items()}
    assert by == {user: message.model for user, message in again.items()}
    assert {u for u, v in by.items() if v == "000002"} == {u for u in USERS if in_candidates_arm(hash_id(u), 0.3)}
    assert set(by.values()) == {"000001", "000002"}
    assert len(by) == len(USERS)


def test_the_candidates_arm_has_its_share_of_users_and_grows_with_it():
    users = [hash_id(f"user-{n}") for n in range(4000)]
    small, large = ({u for u in users if in_candidates_arm(u, share)} for share in (0.1, 0.5))
    assert 0.08 < len(small) / len(users) < 0.12
    assert small < large
    assert not any(in_candidates_arm(u, 0.0) for u in users)


WEIGHTS = Fusion(1.0, 1.0, 0.0, 1.0, 0.0)


def test_clicks_move_the_serving_weights_and_a_restart_and_a_new_version_continue_from_them(
    stall, versions, tmp_path, monkeypatch
):
    monkeypatch.setattr("stream.worker.served_versions.LEARN_EVERY_S", 0.0)
    recommender = stall.learning_recommender(tmp_path)
    recommender.versions.serve(serving("000001", versions[0], WEIGHTS))
    for _ in range(5):
        recommender.learn(stall.store, stall.following())
    moved = recommender.versions.champion.stages.fusion
    assert moved.evidence > WEIGHTS.evidence
    assert (moved.repeat, moved.popularity, moved.before) == (0.0, 1.0, 0.0)  # no weight, set by hand, not learned
    again = stall.learning_recommender(tmp_path)
    again.versions.serve(serving("000001", versions[0], WEIGHTS))
    assert again.versions.champion.stages.fusion == moved
    again.versions.serve(serving("000002", versions[1], msgspec.structs.replace(WEIGHTS, evidence=2.0)))
    assert again.versions.champion.stages.fusion.evidence == pytest.approx(moved.evidence + 1.0)


def test_a_candidates_weights_are_as_far_from_its_own_as_the_champions_are_from_theirs(
    stall, versions, tmp_path, monkeypatch
):
    monkeypatch.setattr("stream.worker.served_versions.LEARN_EVERY_S", 0.0)
    recommender = stall.learning_recommender(tmp_path)
    recommender.versions.serve(serving("000001", versions[0], WEIGHTS))
    for _ in range(4):
        recommender.learn(stall.store, stall.following())
    recommender.versions.score(serving("000002", versions[1], msgspec.structs.replace(WEIGHTS, evidence=2.0)))
    for _ in range(3):
        champions, candidates = (
            v.stages.fusion.evidence for v in (recommender.versions.champion, recommender.versions.candidate)
        )
        assert champions > WEIGHTS.evidence
        assert candidates == pytest.approx(champions + 1.0)
        recommender.learn(stall.store, stall.following())


def test_status_shows_the_weights_of_the_version_that_serves(stall, versions, tmp_path, monkeypatch):
    monkeypatch.setattr("stream.worker.served_versions.LEARN_EVERY_S", 0.0)
    recommender = stall.learning_recommender(tmp_path)
    recommender.versions.serve(serving("000001", versions[0], WEIGHTS))
    for _ in range(4):
        recommender.learn(stall.store, stall.following())
    config = Config(data=tmp_path, ranking=RankingSettings(online_clicks=50))
    shown = learned_weights(config, "000001")["0"]
    assert shown.clicks == 64
    assert shown.chosen.evidence == 1.0 != shown.now.evidence
    off = Config(data=tmp_path, ranking=RankingSettings(online_clicks=0))
    assert learned_weights(config, "000002") == learned_weights(off, "000001") == {}


def test_the_weights_move_again_only_after_some_time(stall, versions, tmp_path):
    recommender = stall.learning_recommender(tmp_path)
    recommender.versions.serve(serving("000001", versions[0], WEIGHTS))
    for _ in range(3):
        recommender.learn(stall.store, stall.following())
    assert weights.read(tmp_path)["0"].learned.clicks == 16


def test_without_clicks_to_choose_on_the_weights_stay(stall, versions, tmp_path):
    config = Config(state=STATE, ranking=RankingSettings(online_clicks=0), data=tmp_path)
    recommender = Recommender(config, {0: stall.store}, None)
    recommender.versions.serve(serving("000001", versions[0], WEIGHTS))
    recommender.learn(stall.store, stall.following())
    assert recommender.versions.champion.stages.fusion == WEIGHTS


@pytest.mark.parametrize("with_version", [True, False], ids=["model", "popularity"])
def test_a_withdrawn_item_is_recommended_to_nobody_until_it_is_brought_back(stall, versions, tmp_path, with_version):
    titles = Titles(tmp_path)
    recommender = Recommender(Config(state=STATE, data=tmp_path), {0: stall.store}, titles)
    if with_version:
        recommender.versions.serve(serving("000001", versions[0]))

    def shown() -> dict[str, set[str]]:
        found = answered(recommender, stall, "user-1", "user-2", "user-3")
        return {user: {i.item for i in message.items} for user, message in found.items()}

    def reasons() -> set[str]:
        found = answered(recommender, stall, "user-1", "user-2", "user-3").values()
        return {reason for message in found for item in message.items for reason in item.because}

    before, because = shown(), reasons()
    withdrawn = set.union(*before.values()) - {"item-11"}
    titles.apply({}, "topic", {0: 1}, {item.encode(): True for item in withdrawn} | {b"unknown": True})
    assert not set.union(*shown().values()) & withdrawn
    assert not reasons() & withdrawn
    titles.apply({}, "topic", {0: 2}, {item.encode(): False for item in withdrawn})
    assert (shown(), reasons()) == (before, because)
    titles.close()


def test_a_fresh_item_can_be_withdrawn(stall, versions, tmp_path):
    titles = Titles(tmp_path)
    recommender = Recommender(Config(state=STATE, data=tmp_path), {0: stall.store}, titles)
    recommender.versions.serve(serving("000001", versions[0]))
    people = [f"person-{n}" for n in range(20)]
    recommender.update(stall.click(people * 2, ["item-3"] * 20 + ["fresh"] * 20))
    recommender.update(stall.click(["user-9"], ["item-3"]))
    assert "fresh" in {i.item for i in answered(recommender, stall, "user-9")["user-9"].items}
    titles.apply({}, "topic", {0: 1}, {b"fresh": True})
    assert "fresh" not in {i.item for i in answered(recommender, stall, "user-9")["user-9"].items}
    titles.close()


def test_a_bot_does_not_fill_the_popular_items_of_a_new_user(tmp_path):
    stall = Stall(tmp_path)
    for n in range(20):
        stall.click(["bot"] * 50, [f"spam-{(n + m) % 10}" for m in range(50)])
    [answer] = stall.recommender().recommend(0, stall.pending("nobody"))
    shown = [i.item for i in msgspec.json.decode(answer.message, type=Recommendation).items]
    assert all(item.startswith("item-") for item in shown)
    stall.store.close()
