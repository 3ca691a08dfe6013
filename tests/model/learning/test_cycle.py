"""A cycle: items come and go, events come late, and what is kept back stays unseen until it has been foretold."""

import numpy as np
import torch

from model.fusion_weights.holdout import Holdout, split_holdout
from model.learning import cycle as increment_module
from model.learning.cycle import Trained, learn
from model.ranking.fusion import Fusion
from model.settings import ModelSettings, RankingSettings, TrainingSettings
from state.events import EVENT, Records
from state.graph import MemoryGraph
from state.sequences import from_events
from state.settings import StateSettings
from tests.model.examples import cycling, learned

STATE = StateSettings(neighbours_per_item=8)
MODEL = ModelSettings(dim=16, dropout=0.0)
HOUR_MS = 3_600_000


def increment(champion: Trained, events: Records, arrived: Records, gone: tuple[int, ...] = ()) -> Trained:
    graph = MemoryGraph(STATE)
    graph.apply(events)
    new = np.setdiff1d(events["item"], champion.vocabulary.hashes)
    return learn(
        champion, "000001", from_events(events), {i: str(i) for i in new.tolist()}, graph.rows,
        model=MODEL, training=TrainingSettings(increment_epochs=1, increment_last_epochs=0, distil=0.0),
        ranking=RankingSettings(), state=STATE, seed=0, arrived=arrived, gone=np.array(gone, np.uint64),
    )  # fmt: skip


def test_weights_are_chosen_while_the_index_of_an_item_that_is_gone_is_free():
    events = cycling(users=60, items=20)
    champion = learned(events)
    arrived = cycling(users=60, items=20)
    arrived["ts"] += HOUR_MS
    left = np.concatenate([events, arrived])
    left = left[left["item"] != 103]
    candidate = increment(champion, left, arrived[arrived["item"] != 103], gone=(103,))
    assert candidate.vocabulary.free.tolist() == [champion.vocabulary.lookup(np.array([103], np.uint64))[0]]
    assert candidate.metrics["ndcg@10"] > 0
    assert candidate.fusion != champion.fusion


def test_an_item_met_only_in_what_is_kept_back_is_not_placed_by_it(monkeypatch):
    events = cycling(users=60, items=20)
    champion = learned(events)
    arrived = cycling(users=60, items=20)
    arrived["ts"] += HOUR_MS
    arrived["item"][-60:] = 999  # the newest event of every user
    rows = {}

    def answers(holdout, model, vocabulary, *rest, real=Holdout.answers):
        index = vocabulary.lookup(np.array([999], np.uint64))[0]
        rows.setdefault("measured", model.items.weight[index].detach().clone())
        return real(holdout, model, vocabulary, *rest)

    monkeypatch.setattr(Holdout, "answers", answers)
    candidate = increment(champion, np.concatenate([events, arrived]), arrived)
    index = candidate.vocabulary.lookup(np.array([999], np.uint64))[0]
    published = candidate.model.items.weight[index]
    neighbours = candidate.model.items.weight[1:21].detach()
    assert not torch.equal(rows["measured"], published)
    assert nearest(published, neighbours) > 0.5 > nearest(rows["measured"], neighbours)


def nearest(row: torch.Tensor, rows: torch.Tensor) -> float:
    return torch.nn.functional.cosine_similarity(row[None], rows.mean(0)[None]).item()


def test_a_candidate_is_tested_with_weights_that_other_users_chose(monkeypatch):
    events = cycling(users=60, items=20)
    champion = learned(events)
    arrived = cycling(users=60, items=20)
    arrived["ts"] += HOUR_MS
    answered, crosses, judged = {}, [], []

    def cross(*asked, real=increment_module.cross_fit_fusion):
        crosses.append(real(*asked)._replace(halves=(Fusion(1.0, 0.0, 0.0, 0.0), Fusion(0.0, 0.0, 0.0, 1.0))))
        return crosses[-1]

    def answers(holdout, model, vocabulary, fusion, settings, real=Holdout.answers):
        answered[fusion] = real(holdout, model, vocabulary, fusion, settings)
        return answered[fusion]

    def seconds(_holdout, versions, _settings):
        return [[1.0 if model is champion.model else 3.0] for model, _ in versions]

    monkeypatch.setattr(Holdout, "seconds", seconds)
    monkeypatch.setattr(increment_module, "cross_fit_fusion", cross)
    monkeypatch.setattr(Holdout, "answers", answers)
    monkeypatch.setattr(increment_module, "judge", lambda measured, *_, **__: judged.append(measured))
    increment(champion, np.concatenate([events, arrived]), arrived)
    of_first, of_second = (answered[fusion].ranks for fusion in crosses[0].halves)
    first = crosses[0].half == 0
    assert 0 < first.sum() < len(first)
    assert (of_first != of_second)[first].any()
    assert judged[0].seconds == ([1.0], [3.0])
    assert judged[0].newest.candidate.tolist() == np.where(first, of_second, of_first).tolist()


def test_a_first_version_and_an_increment_have_epochs_and_a_rate_of_their_own(monkeypatch):
    trained = []

    def train(net, histories, settings, *, real=increment_module.train, **named):
        ties = settings.w_transfer > 0
        trained.append((ties, *(named[name] for name in ("warm_up_epochs", "epochs", "learning_rate", "fresh"))))
        return real(net, histories, settings, **named)

    monkeypatch.setattr(increment_module, "train", train)
    events = cycling(users=20, items=10)
    graph = MemoryGraph(STATE)
    graph.apply(events)
    training = TrainingSettings(
        warm_up_epochs=1, epochs=2, last_epochs=3, learning_rate=0.004,
        increment_warm_up_epochs=4, increment_epochs=5, increment_last_epochs=6, increment_learning_rate=0.007,
    )  # fmt: skip
    champion = None
    for names in ({i: str(i) for i in np.unique(events["item"]).tolist()}, {}):
        champion = learn(
            champion, None, from_events(events), names, graph.rows, model=MODEL, training=training,
            ranking=RankingSettings(), state=STATE, seed=0,
        )  # fmt: skip
    # What came last is learned by the sequence encoder alone.
    assert trained == [
        (True, 1, 2, 0.004, True), (False, 0, 3, 0.004, False), (True, 4, 5, 0.007, False), (False, 0, 6, 0.007, False),
    ]  # fmt: skip


def test_a_candidate_whose_weights_are_not_all_numbers_stays_outside(monkeypatch):
    events = cycling(users=60, items=20)
    champion = learned(events)
    arrived = cycling(users=60, items=20)
    arrived["ts"] += HOUR_MS

    def train(net, *asked, real=increment_module.train, **named):
        spent = real(net, *asked, **named)
        if named["epochs"] == 0:  # the last epochs, after which nothing is measured any more
            with torch.no_grad():
                net.items.weight[3, 0] = torch.nan
        return spent

    monkeypatch.setattr(increment_module, "train", train)
    verdict = increment(champion, np.concatenate([events, arrived]), arrived).verdict
    assert (verdict.promoted, verdict.reason) == (False, "champion kept: the candidate's weights are not all numbers")


def test_what_came_late_is_no_history_of_what_was_before_it():
    events = np.zeros(40, EVENT)
    events["user"], events["item"] = np.arange(40) % 2 + 1, np.arange(40) % 9 + 100
    events["ts"] = 1_000_000_000_000 + np.arange(40) * 1000
    sequences = from_events(events)
    new = sequences.steps["ts"] % 3 == 0  # what the champion knows lies between what has come
    holdout = Holdout(*split_holdout(sequences, 5, new), STATE)
    assert len(holdout.targets) > 1
    for row, ts in enumerate(holdout.times):
        history = holdout.sequences.of(row)["ts"]
        assert len(history)
        assert (np.diff(history) > 0).all()
        assert history[-1] < ts
