"""The prequential protocol: what each model sees, what is counted, and that no model reads ahead."""

from typing import Any

import msgspec
import numpy as np
import pytest

from model.evaluation import learner as learner_module
from model.evaluation import prequential as protocol
from model.evaluation.learner import AfterEvents, Learner, NeverDue
from model.evaluation.live_rivals import LIVE_RIVALS
from model.evaluation.prequential import NOT_FOUND, Moment, ServedModel, kinds_of_tests, prequential, run
from model.evaluation.prequential_figures import RunResult, report, rolling
from model.evaluation.recorded_stream import RecordedStream, as_events
from model.learning.cycle import CycleSettings
from model.learning.gate import Verdict
from model.ranking.fusion import MODEL_ONLY
from model.settings import GateSettings, ModelSettings, RankingSettings, TrainingSettings
from state.events import Records, hash_id
from state.settings import StateSettings

TRAINING = TrainingSettings(warm_up_epochs=1, epochs=2, last_epochs=1, negatives=8)
SETTINGS = CycleSettings(
    ModelSettings(dim=8), TRAINING, RankingSettings(online_clicks=50), StateSettings(user_item_cap=0)
)


def stream(count: int = 420, seed: int = 0) -> Records:
    draw = np.random.default_rng(seed)
    users = [f"user-{u}" for u in draw.integers(0, 20, count)]
    items = [f"item-{i}" for i in draw.integers(0, 10 + np.arange(count) // 20)]
    return as_events(users, items, 1_500_000_000_000 + np.arange(count) * 1000)[0]


def clicks(*pairs: str) -> Records:
    """Events of "user item", a second apart."""
    users, items = zip(*(p.split() for p in pairs), strict=True)
    return as_events(list(users), list(items), 1_500_000_000_000 + np.arange(len(pairs)) * 1000)[0]


def run_all_models(events: Records) -> tuple[RunResult, Learner]:
    past = RecordedStream(SETTINGS.state)
    past.append(events[:100])
    versions = {
        "create": Learner(SETTINGS, AfterEvents(64)),
        "full retrain": Learner(SETTINGS, AfterEvents(128), "retrain"),
    }
    for learner in versions.values():
        learner.begin(past)
    rows = {name: ServedModel(past, v, SETTINGS.ranking) for name, v in versions.items()}
    rows |= {name: rival(past, 20) for name, rival in LIVE_RIVALS.items()}
    return run(events, past, versions, rows), versions["create"]


def shifted(events: Records) -> Records:
    return np.concatenate([events[:292], events[310:]])


def permuted(events: Records) -> Records:
    changed = events.copy()
    for name in ("user", "item"):
        changed[name][292:] = np.random.default_rng(1).permutation(events[name][292:])
    return changed


@pytest.fixture(scope="module")
def few_examples_are_enough():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("model.learning.ranker_in_cycle.MIN_EXAMPLES", 20)
        yield


@pytest.fixture(scope="module")
def unchanged_run(few_examples_are_enough) -> tuple[RunResult, Learner]:
    return run_all_models(stream())


@pytest.mark.parametrize("changed", [shifted, permuted])
def test_later_events_do_not_change_earlier_tests(unchanged_run, changed):
    (one, learned), (other, learned_otherwise) = unchanged_run, run_all_models(changed(stream()))
    before = one.at < 292  # the end of a batch
    assert before.sum() > 100
    for name, ranks in one.ranks.items():
        other_ranks = other.ranks[name][: before.sum()]
        assert ranks[before].tolist() == other_ranks.tolist(), name
        assert ranks[~before].tolist() != other.ranks[name][before.sum() :].tolist(), name
    measured = [[c.metrics["ndcg@10"] for c in v.cycles] for v in (learned, learned_otherwise)]
    assert measured[0][:4] == measured[1][:4]
    assert measured[0] != measured[1]
    assert learned.cycles[2].metrics["ranker"] == 1.0, "a ranker has ranked these tests"


def test_a_candidate_that_the_gate_rejects_does_not_serve(monkeypatch):
    real, verdicts = learner_module.run_cycle, iter([Verdict(True), Verdict(False, "kept"), Verdict(True)])
    monkeypatch.setattr(learner_module, "run_cycle", lambda *a, **k: real(*a, **k)._replace(verdict=next(verdicts)))
    events, past = stream(), RecordedStream(SETTINGS.state)
    past.append(events[:300])
    versions = Learner(SETTINGS, AfterEvents(50))
    first = versions.begin(past)
    past.append(events[300:350])
    assert versions.learn_if_due(past)
    assert versions.serving is first
    past.append(events[350:400])
    assert versions.learn_if_due(past)
    assert versions.serving is not first
    assert [c.promoted for c in versions.cycles] == [True, False, True]


def test_after_a_rejected_candidate_the_next_cycle_learns_its_events_again(monkeypatch):
    learned_from, real = [], learner_module.run_cycle

    def reject_after_the_first(champion, cycle_input, settings):
        learned_from.append(len(cycle_input.new_events))
        return real(champion, cycle_input, settings)._replace(verdict=Verdict(champion is None, ""))

    monkeypatch.setattr(learner_module, "run_cycle", reject_after_the_first)
    events, past = stream(), RecordedStream(SETTINGS.state)
    past.append(events[:300])
    versions = Learner(SETTINGS, AfterEvents(50))
    versions.begin(past)
    for end in (350, 400):
        past.append(events[past.count : end])
        assert versions.learn_if_due(past)
    assert learned_from == [300, 50, 100]


def test_a_frozen_model_with_a_frozen_graph_never_changes_its_recommendations():
    events, past = stream(), RecordedStream(SETTINGS.state)
    past.append(events[:300])
    versions = Learner(SETTINGS, NeverDue())
    versions.begin(past)
    frozen, live = (ServedModel(past, versions, RankingSettings(), live=live) for live in (False, True))
    sequences = past.sequences(past.users[:5])
    before = frozen.rank(sequences), live.rank(sequences)
    past.append(events[300:])
    for row in (frozen, live):
        row.update(events[300:])
    assert (frozen.rank(sequences) == before[0]).all()
    assert (live.rank(sequences) != before[1]).any()


def served(moment: Moment = "asked", **ranking: Any) -> tuple[ServedModel, RecordedStream]:
    """A row of a first version with a ranker, after 300 events."""
    past = RecordedStream(SETTINGS.state)
    past.append(stream()[:300])
    versions = Learner(SETTINGS, NeverDue())
    versions.begin(past)
    assert versions.serving.ranker is not None
    return ServedModel(past, versions, RankingSettings(**ranking), moment=moment), past


def test_a_ranker_learns_online_from_the_events_that_it_has_ranked_and_one_that_stands_still_does_not(
    few_examples_are_enough,
):
    lists = {}
    for online in (True, False):
        row, past = served(online_ranker=online, fresh_items=0)
        again = past.sequences(past.users[:5])
        before = row.rank(again)
        for start in range(300, 420, 60):
            tests = past.tests(stream()[start : start + 60])
            row.rank(tests.before, tests.ts)
            row.learn(tests)
        assert (row.rank(again) == before).all() != online
        lists[online] = before
        taken = np.concatenate([past.tests(stream()[300:360]).targets, past.tests(stream()[360:420]).targets])
        assert {int(example.items[0]) for example in row.examples} <= set(taken.tolist())
        assert len(row.examples) > 80
    assert (lists[True] == lists[False]).all()


def test_a_list_that_was_pushed_knows_the_time_of_the_event_before_and_one_that_is_asked_for_its_own(
    few_examples_are_enough,
):
    moments = {}
    for moment in ("asked", "pushed"):
        row, past = served(moment)
        tests = past.tests(stream()[300:360])
        tests = tests._replace(ts=tests.ts + 5 * 86_400_000)
        row.rank(tests.before, tests.ts)
        row.learn(tests)
        moments[moment] = [(example.user, example.moment) for example in row.examples]
        newest = tests.before.steps["ts"][tests.before.indptr[1:] - 1].tolist()
        times = tests.ts.tolist() if moment == "asked" else newest
        assert set(moments[moment]) <= set(zip(tests.before.users.tolist(), times, strict=True))
    assert moments["asked"] != moments["pushed"]


def test_the_next_cycle_gets_the_examples_of_its_own_row(few_examples_are_enough, monkeypatch):
    inputs, real = [], learner_module.run_cycle
    monkeypatch.setattr(learner_module, "run_cycle", lambda *a, **k: inputs.append(a[1]) or real(*a, **k))
    run_all_models(stream())
    counts = [len(given.examples) for given in inputs]
    assert counts[:2] == [0, 0], "first versions have none"
    assert max(counts) > 150
    for given in inputs:
        assert all(example.ts <= given.new_events["ts"].max() for example in given.examples)


def test_each_test_is_known_by_the_users_history_and_the_age_of_its_item():
    past = RecordedStream(SETTINGS.state)
    past.append(clicks("ann a", "ann b", "bob b"))
    tests = past.tests(clicks("ann a", "bob a", "bob c", "eve b", "ann a"))
    own, age_ms, history = kinds_of_tests(tests, past.graph.rows(tests.targets))
    assert own.tolist() == [True, False, False, True]
    assert history.tolist() == [2, 1, 2, 3]
    assert age_ms.tolist() == [0, 1000, -1, 4000]


def test_an_item_that_no_version_knows_is_recommended_after_its_first_clicks():
    events = np.concatenate([stream(300), clicks(*[f"user-{n % 20} brand-new" for n in range(200)])])
    past = RecordedStream(SETTINGS.state)
    past.append(events[:300])
    versions = {"create": Learner(SETTINGS, NeverDue())}
    versions["create"].begin(past)
    rows = {"create": ServedModel(past, versions["create"], RankingSettings())}
    rows["without"] = ServedModel(past, versions["create"], RankingSettings(fresh_items=0))
    rows["alone"] = ServedModel(past, versions["create"], RankingSettings(), fusion=MODEL_ONLY)
    tested = run(events, past, versions, rows)
    assert tested.new.sum() == 200 - protocol.TESTS_PER_BATCH
    assert (tested.ranks["create"][tested.new] < 10).mean() > 0.9
    assert (tested.ranks["without"] == NOT_FOUND).all()


def recommended(name: str, user: str, *pairs: str) -> str:
    """Items that a rival recommends to a user after these clicks, best first."""
    past = RecordedStream(StateSettings())
    past.append(clicks(*pairs))
    named = {hash_id(i): i for i in "abcdexyz"}
    sequences = past.sequences(np.array([hash_id(user)], np.uint64))
    return "".join(named[h] for h in LIVE_RIVALS[name](past, 3).rank(sequences)[0].tolist() if h)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("popularity", "ab"),
        ("recent popularity", "ab"),
        ("own", "ad"),
        ("transitions", "bc"),
    ],
)
def test_rivals_recommend_by_their_counts(name, expected):
    found = recommended(name, "dan", "ann a", "ann b", "bob a", "bob c", "cid a", "cid b", "dan d", "dan a")
    assert found[:2] == expected


def test_transitions_follow_the_newest_item_and_own_items_are_ranked_by_count_then_recency():
    assert recommended("transitions", "eve", "ann a", "ann b", "ann c", "eve b") == "c"
    assert recommended("own", "ann", "ann a", "ann b", "ann c", "ann b", "ann a", "ann b") == "bac"


def test_item_knn_recommends_nothing_without_a_similar_item():
    assert set(recommended("item-kNN", "dan", "ann a", "ann b", "dan a", "eve e")) == {"b"}
    assert recommended("item-kNN", "eve", "ann a", "ann b", "dan a", "eve e") == ""


def test_session_knn_prefers_neighbours_who_share_newer_items_and_have_few_others():
    shared = ("ann x", "ann a", "bob y", "bob b", "bob c", "eve x", "eve y")
    found = recommended("session-kNN", "eve", *shared)  # ann scores 1/2 / √2 for x, bob 1 / √3 for y
    assert set(found[:2]) < {"y", "b", "c"}
    assert found != recommended("session-kNN", "eve", *shared[:5], "eve y", "eve x")
    assert recommended("session-kNN", "eve", "ann y", "ann a", "bob y", "bob b", "bob c", "bob d", "eve y")[:2] == "ya"


def test_session_knn_looks_for_neighbours_among_the_last_users_of_an_item(monkeypatch):
    monkeypatch.setattr("model.evaluation.live_rivals.RECENT_USERS", 2)
    found = recommended("session-kNN", "cid", "ann a", "ann x", "bob b", "bob x", "ann x", "cid x")
    assert set(found) == {"x", "a"}, "cid and ann are the last two users of x"


@pytest.mark.parametrize("name", LIVE_RIVALS)
def test_a_rival_recommends_the_same_after_updates_as_with_all_events_from_the_start(name):
    events, early, late = stream(2100), RecordedStream(StateSettings()), RecordedStream(StateSettings())
    early.append(events)
    late.append(events[:100])
    rival = LIVE_RIVALS[name](late, 10)
    late.append(events[100:])
    rival.update(events[100:])
    sequences = early.sequences(early.users[:5])
    assert (rival.rank(sequences) == LIVE_RIVALS[name](early, 10).rank(sequences)).all()


def test_rolling_hits_count_the_newest_tests():
    ranks = np.array([0, NOT_FOUND, 9, 10])
    assert rolling(ranks, 2).tolist() == [1.0, 0.5, 0.5, 0.5]


def test_the_report_has_every_model_with_its_curve_and_versions():
    found = prequential(stream(), SETTINGS, cycles=2, with_retrain=True)
    assert {"create", "frozen", "frozen, graph too", "fusion", "full retrain", *LIVE_RIVALS} == set(found.models)
    assert set(found.curves.rolling_hit) == set(found.models)
    assert [c.at for c in found.versions["create"]] == [84, 276]


def test_the_json_keys_of_a_report_never_change():
    found = msgspec.to_builtins(prequential(stream(200), SETTINGS, seed=1, cycles=1))
    keys = ["protocol", "events", "models", "versions", "curves", "every_events", "seed", "warm_up"]
    assert list(found) == [*keys, "moment", "leads", "groups"]
    assert list(found["leads"]["own"]) == ["hit@10_difference", "ndcg@10_relative"]
    assert list(found["groups"]["repeats"]) == ["tested", "models", "leads"]
    assert list(found["groups"]["repeats"]["models"]["own"]) == ["hit@10", "ndcg@10", "mrr"]
    assert list(found["events"]) == ["tested", "of_new_items"]
    assert list(found["models"]["own"]) == ["hit@10", "ndcg@10", "mrr", "last_quarter_hit@10", "new_items_hit@10"]
    assert list(found["versions"]["create"][0]) == ["at", "cpu_s", "promoted", "reason", "fusion", "metrics"]
    assert list(found["versions"]["create"][0]["fusion"]) == ["model", "evidence", "repeat", "popularity", "before"]
    assert list(found["curves"]) == ["event", "rolling_hit@10"]


def test_a_cycle_of_the_evaluation_selects_users_as_in_production(monkeypatch):
    """The trainer's source and the recorded stream are inputs of the same function."""
    inputs = []
    real = learner_module.collect_input
    monkeypatch.setattr(learner_module, "collect_input", lambda *a, **k: inputs.append(real(*a, **k)) or inputs[-1])
    events, past = stream(), RecordedStream(SETTINGS.state)
    past.append(events[:300])
    versions = Learner(SETTINGS._replace(replay_users=4, gate=GateSettings(old_users=2)), AfterEvents(10))
    versions.begin(past)
    past.append(events[300:310])
    assert versions.learn_if_due(past)
    first, second = inputs
    assert len(first.sequences.users) == len(past.users)
    new = len(np.unique(events["user"][300:310]))
    assert new < len(second.sequences.users) + len(second.gate_users.users) <= new + 6
    assert not set(second.sequences.users.tolist()) & set(second.gate_users.users.tolist())


def test_tests_of_new_items_are_also_counted_separately():
    ranks = np.array([0, NOT_FOUND, 3, NOT_FOUND])
    new = np.array([True, True, False, False])
    tested = RunResult({"a": ranks}, np.arange(4), np.ones(4, np.uint64), new, ~new, np.arange(4), np.arange(4))
    found = report(tested, {}).models["a"]
    assert (found.hit, found.new_items_hit, found.last_quarter_hit) == (0.5, 0.5, 0.0)
