"""The global temporal protocol: which events are learned, which are tested, and that nothing leaks between them."""

import msgspec
import numpy as np
import pytest
import torch

from model.encoders.create import Create
from model.evaluation import global_temporal as evaluation
from model.evaluation.global_temporal import (
    CountScorer,
    ModelScorer,
    Split,
    breadth,
    global_temporal,
    ranked_tests,
    rivals,
    sequence_encoder_as_long,
    split_stream,
)
from model.evaluation.recorded_stream import as_events
from model.evaluation.reports import Epochs
from model.fusion_weights.holdout import slice_sequences
from model.learning.cycle import CycleSettings
from model.learning.trained import Trained
from model.ranking.fusion import INITIAL_FUSION, Fusion
from model.settings import ModelSettings, RankingSettings, TrainingSettings
from state.events import Records
from state.graph import MemoryGraph
from state.sequences import Sequences
from state.settings import StateSettings

DAY_MS = 86_400_000
TRAINING = TrainingSettings(warm_up_epochs=1, epochs=2, negatives=8)
SETTINGS = CycleSettings(ModelSettings(dim=8), TRAINING, RankingSettings(), StateSettings())


def stream(events: int = 400, seed: int = 0) -> tuple[list[str], list[str], np.ndarray]:
    draw = np.random.default_rng(seed)
    users = [f"user-{u}" for u in draw.integers(0, 20, events)]
    items = [f"item-{i}" for i in draw.integers(0, 30, events)]
    return users, items, 1_500_000_000_000 + np.arange(events) * 1000


def test_events_of_one_moment_lie_on_the_same_side_of_the_split():
    users, items, _ = stream(100)
    ts = np.repeat(np.arange(10), 10) * 1000 + 1_500_000_000_000
    split = split_stream(*as_events(users, items, ts), 0.85, StateSettings())
    assert len(split.past.steps) == 90
    assert split.past.steps["ts"].max() == ts[89]


def test_events_of_one_moment_keep_the_files_order():
    seconds = [
        (40, 10, 30, 20)[n % 4] for n in range(100)
    ]  # enough events that an unstable sort would change the order
    users, items = [f"user-{n % 3}" for n in range(100)], [f"item-{n}" for n in range(100)]
    events, names = as_events(users, items, np.array(seconds) * 1000 + 1_500_000_000_000)
    assert events["offset"].tolist() == list(range(100))
    assert [names[i] for i in events["item"].tolist()] == items
    split = split_stream(events, names, 0.5, StateSettings())
    in_order = sorted(range(100), key=seconds.__getitem__)
    assert split.future["offset"].tolist() == in_order[50:]
    for row, user in enumerate(split.past.users.tolist()):
        own = [items[n] for n in in_order[:50] if events["user"][n] == user]
        assert [names[i] for i in split.past.of(row)["item"].tolist()] == own


def test_a_successive_test_has_all_earlier_events_of_its_user_and_last_is_the_newest():
    users = ["ann"] * 10
    items = [f"item-{n % 4}" for n in range(10)]
    split = split_stream(*as_events(users, items, 1_500_000_000_000 + np.arange(10) * 1000), 0.65, StateSettings())
    assert np.diff(split.tests.indptr).tolist() == [6, 7, 8, 9]
    assert split.last.tolist() == [False, False, False, True]


def test_the_graph_at_the_split_has_the_events_before_it_only():
    events, names = as_events(*stream())
    split = split_stream(events, names, 0.5, StateSettings())
    past = MemoryGraph(StateSettings())
    past.apply(events[:200])
    items = np.unique(events["item"])
    for found, expected in zip(split.graph.rows(items), past.rows(items), strict=True):
        np.testing.assert_array_equal(found, expected)


class RecordingScorer:
    """Scores all items 0 and records the times of the events before each test."""

    def __init__(self, split: Split) -> None:
        self._items, self._arrived = len(split.vocabulary), split.future[:0]
        self.known: list[np.ndarray] = []

    def scores(self, part: Sequences, moments: np.ndarray) -> torch.Tensor:
        assert (moments > part.steps["ts"][part.indptr[1:] - 1]).all()
        self.known += [self._arrived["ts"]] * len(part.users)
        return torch.zeros(len(part.users), self._items + 1)

    def update(self, events: Records) -> None:
        self._arrived = np.concatenate([self._arrived, events])


def test_a_scorer_gets_the_events_before_a_test_and_none_of_the_same_time(monkeypatch):
    monkeypatch.setattr(evaluation, "TESTS_PER_BATCH", 1)
    split = split_stream(*as_events(*stream()), 0.5, StateSettings())
    scorer = RecordingScorer(split)
    ranked_tests(split, scorer)
    assert len(scorer.known) == len(split.ts) > 100
    for ts, known in zip(split.ts, scorer.known, strict=True):
        assert known.tolist() == split.future["ts"][split.future["ts"] < ts].tolist()


def test_a_live_graph_applies_the_events_between_tests_and_a_frozen_graph_does_not():
    events, names = as_events(*stream())
    split = split_stream(events, names, 0.5, StateSettings())
    evidence = Fusion(model=0.0, evidence=1.0, repeat=0.0, popularity=0.0)
    trained = Trained(Create(len(split.vocabulary), ModelSettings(dim=4)), split.vocabulary, evidence, {}, None)
    later = split.graph.fork()
    later.apply(split.future)
    part = slice_sequences(split.tests, 0, 20)
    expected = [
        ModelScorer(split._replace(graph=graph), trained, evidence, RankingSettings()).scores(part).clone()
        for graph in (later, split.graph)
    ]
    assert not torch.allclose(*expected)
    for live, scores in zip((True, False), expected, strict=True):
        scorer = ModelScorer(split, trained, evidence, RankingSettings(), live=live)
        scorer.scores(part)
        scorer.update(split.future)
        torch.testing.assert_close(scorer.scores(part), scores)


def test_events_of_items_that_are_new_after_the_split_are_counted_as_cold():
    users, items, ts = stream()
    items[-3:] = ["new-1", "new-2", "new-3"]
    assert split_stream(*as_events(users, items, ts), 0.9, StateSettings()).cold == 3


def test_a_seen_item_is_filtered_unless_it_is_the_target():
    users, items, ts = ["ann"] * 6, ["a", "a", "b", "c", "a", "b"], 1_500_000_000_000 + np.arange(6) * 1000
    split = split_stream(*as_events(users, items, ts), 0.7, StateSettings())
    scores = torch.tensor([[9.0, 3.0, 2.0, 1.0]])
    order = [split.vocabulary.ids.index(i) + 1 for i in "abc"]
    item_scores = torch.zeros(1, 4)
    item_scores[0, order] = scores[0, 1:]
    ranks = ranked_tests(split, CountScorer(split, lambda histories: item_scores.expand(len(histories), -1)))
    assert ranks["unfiltered"].ranks.tolist() == [0, 1]
    assert ranks["filtered"].ranks.tolist() == [0, 0]


@pytest.fixture
def learned(monkeypatch):
    """All models that the protocol learns, in order."""
    found: list[Trained] = []
    real = evaluation.run_cycle
    monkeypatch.setattr(evaluation, "run_cycle", lambda *a, **k: found.append(real(*a, **k)) or found[-1])
    return found


def same(one: Trained, other: Trained) -> bool:
    pairs = zip(one.model.parameters(), other.model.parameters(), strict=True)
    known = one.vocabulary.ids == other.vocabulary.ids
    return known and one.fusion == other.fusion and all(torch.equal(a, b) for a, b in pairs)


def test_events_after_the_split_do_not_change_what_is_learned(learned):
    users, items, ts = stream(1000)
    past = 900  # events up to the 0.9 quantile of 1000 evenly spaced times
    other_users = [f"user-{n % 7}" if n % 3 else f"new-{n}" for n in range(100)]
    other_items = [f"item-{n % 30}" if n % 2 else f"unknown-{n}" for n in range(100)]
    later = ts[past - 1] + 7 * np.arange(1, 101) ** 2
    global_temporal(users, items, ts, SETTINGS, seed=0)
    global_temporal(
        users[:past] + other_users, items[:past] + other_items, np.append(ts[:past], later), SETTINGS, seed=0
    )
    assert len(learned) == 4
    assert all(same(one, other) for one, other in zip(learned[:2], learned[2:], strict=True))
    assert all(one.fusion != INITIAL_FUSION for one in learned), "enough events are held out to choose the weights"


def test_the_report_has_every_model_and_both_targets():
    found = global_temporal(*stream(), SETTINGS, seed=0)
    last = TRAINING.last_epochs
    assert found.epochs == {"create": Epochs(warm_up=1, joint=2 + last), "sasrec": Epochs(warm_up=0, joint=3 + last)}
    assert {"create", "create+graph", "sasrec", "sasrec+graph", "popularity", "item-kNN"} <= set(found.models)
    leads = {(lead.model, lead.over, lead.target, lead.seen_items) for lead in found.leads}
    assert leads >= {
        ("create", "sasrec", "last", "filtered"),
        ("create+graph", "sasrec+graph", "successive", "unfiltered"),
    }
    assert all(lead.low <= lead.lead <= lead.high for lead in found.leads)
    for of_model in found.models.values():
        assert set(of_model) == {"last", "successive"}
        for seen in ("unfiltered", "filtered"):
            assert 0 < of_model["successive"][seen].coverage <= 1
    assert found.models["create"]["last"]["filtered"] != found.models["create"]["last"]["unfiltered"]


def test_the_json_keys_of_a_report_never_change():
    found = msgspec.to_builtins(global_temporal(*stream(), SETTINGS, seed=0))
    assert list(found) == ["protocol", "events", "seed", "epochs", "models", "leads"]
    assert list(found["events"]) == ["past", "tested", "last", "cold"]
    assert list(found["leads"][0]) == ["model", "over", "target", "seen_items", "lead", "low", "high"]
    metrics = ["ndcg@10", "recall@10", "recall@20", "mrr"]
    for of_model in found["models"].values():
        for seen in ("unfiltered", "filtered"):
            assert list(of_model["last"][seen]) == metrics
            assert list(of_model["successive"][seen]) == [*metrics, "coverage@10", "popularity_bias"]


def test_the_sequence_encoder_alone_is_reported_under_its_name():
    model = ModelSettings(dim=8, sequence_encoder="bert4rec")
    found = global_temporal(*stream(), SETTINGS._replace(model=model), seed=0)
    assert {"bert4rec", "bert4rec+graph"} <= set(found.models)
    assert "sasrec" not in found.models
    assert set(found.epochs) == {"create", "bert4rec"}
    assert ("create", "bert4rec") in {(lead.model, lead.over) for lead in found.leads}


def test_the_sequence_encoder_alone_gets_extra_epochs_for_the_time_of_the_warm_up():
    training = TrainingSettings(warm_up_epochs=12, epochs=6, last_epochs=9)
    alone = sequence_encoder_as_long(training)
    assert (alone.warm_up_epochs, alone.w_transfer, alone.w_global) == (0, 0, 0)
    assert (alone.epochs, alone.last_epochs) == (9, 9)


def test_the_popularity_rival_shows_all_users_the_same_items_with_a_popularity_bias_above_1():
    split = split_stream(*as_events(*stream()), 0.9, StateSettings())
    shown = ranked_tests(split, CountScorer(split, rivals(split)["popularity"]))["unfiltered"].shown
    found = breadth(split, shown)
    assert found["coverage@10"] == round(10 / len(split.vocabulary), 4)
    assert found["popularity_bias"] > 1
    targets_as_lists = np.repeat(split.targets.numpy()[:, None], 10, 1)
    assert breadth(split, targets_as_lists)["popularity_bias"] == 1.0


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("popularity", {"a": 3, "b": 2, "c": 1}),
        (
            "recent popularity",
            {"a": 1 + 2**-2 + 2**-5, "b": 2**-1 + 2**-4, "c": 2**-3},
        ),  # one half-life between two clicks
        ("transitions", {"a": 0.5, "b": 2, "c": 0.5}),  # b followed a twice; a and c followed two steps later
        ("item-kNN", {"a": 0, "b": 1, "c": 2**-0.5}),  # ann and bob have a and b; only ann has c
    ],
)
def test_a_rival_scores_items_by_its_counts(name, expected):
    users = ["ann", "ann", "ann", "bob", "bob", "bob", "cid", "cid"]
    items = ["a", "b", "c", "a", "b", "a", "a", "b"]
    split = split_stream(*as_events(users, items, 1_500_000_000_000 + np.arange(8) * 3 * DAY_MS), 0.8, StateSettings())
    scores = CountScorer(split, rivals(split)[name]).scores(split.tests)
    found = {i: scores[-1, 1 + split.vocabulary.ids.index(i)].item() for i in "abc"}
    assert found == pytest.approx(expected, rel=1e-3)
