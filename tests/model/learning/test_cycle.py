"""A cycle: its users, new and removed items, late events, and held-out events that it must not learn."""

from typing import Any

import msgspec
import numpy as np
import torch

from model.evaluation.recorded_stream import RecordedStream
from model.fusion_weights.holdout import Holdout, Weights, split_holdout
from model.learning import cycle as cycle_module
from model.learning import measure
from model.learning.cycle import CycleInput, CycleSettings, collect_input, run_cycle, select_training_users
from model.learning.trained import Trained
from model.ranking.fusion import Fusion
from model.settings import GateSettings, ModelSettings, RankingSettings, TrainingSettings
from state.events import EVENT, Records
from state.graph import MemoryGraph
from state.sequences import from_events
from state.settings import StateSettings
from tests.model.examples import cycling, learned

STATE = StateSettings(neighbours_per_item=8, user_item_cap=0)
MODEL = ModelSettings(dim=16, dropout=0.0)
HOUR_MS = 3_600_000


def increment(
    champion: Trained, events: Records, arrived: Records, gone: tuple[int, ...] = (), **ranking: Any
) -> Trained:
    graph = MemoryGraph(STATE)
    graph.apply(events)
    new = np.setdiff1d(events["item"], champion.vocabulary.hashes)
    training = TrainingSettings(increment_epochs=1, increment_last_epochs=0)
    settings = CycleSettings(MODEL, training, RankingSettings(**ranking), STATE)
    names = {i: str(i) for i in new.tolist()}
    cycle_input = CycleInput(
        from_events(events), names, graph.rows, 0, new_events=arrived, gone=np.array(gone, np.uint64)
    )
    return run_cycle(champion, cycle_input, settings, parent="000001")


def test_weights_can_be_chosen_while_the_index_of_a_removed_item_is_free():
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


def test_an_item_of_held_out_events_only_does_not_get_its_row_from_them(monkeypatch):
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
    assert similarity_to_mean(published, neighbours) > 0.5 > similarity_to_mean(rows["measured"], neighbours)


def similarity_to_mean(row: torch.Tensor, rows: torch.Tensor) -> float:
    return torch.nn.functional.cosine_similarity(row[None], rows.mean(0)[None]).item()


def test_a_candidate_is_tested_with_weights_chosen_on_other_users(monkeypatch):
    events = cycling(users=60, items=20)
    champion = learned(events)
    arrived = cycling(users=60, items=20)
    arrived["ts"] += HOUR_MS
    answered, crosses, judged = [], [], []

    def cross(*arguments, real=measure.cross_fit_fusion):
        crosses.append(real(*arguments)._replace(halves=(Fusion(1.0, 0.0, 0.0, 0.0), Fusion(0.0, 0.0, 0.0, 1.0))))
        return crosses[-1]

    def answers(holdout, model, vocabulary, fusion, settings, *ranker, real=Holdout.answers):
        if isinstance(fusion, Weights):
            answered.extend(real(holdout, model, vocabulary, half, settings) for half in crosses[0].halves)
        return real(holdout, model, vocabulary, fusion, settings, *ranker)

    def seconds(_holdout, versions, _settings):
        return [[1.0 if model is champion.model else 3.0] for model, *_ in versions]

    monkeypatch.setattr(Holdout, "seconds", seconds)
    monkeypatch.setattr(measure, "cross_fit_fusion", cross)
    monkeypatch.setattr(Holdout, "answers", answers)
    monkeypatch.setattr(cycle_module, "judge", lambda measured, *_, **__: judged.append(measured))
    increment(champion, np.concatenate([events, arrived]), arrived, ranker=False)
    of_first, of_second = (found.ranks for found in answered)
    first = crosses[0].half == 0
    assert 0 < first.sum() < len(first)
    assert (of_first != of_second)[first].any()
    assert judged[0].seconds == ([1.0], [3.0])
    assert judged[0].newest.candidate.tolist() == np.where(first, of_second, of_first).tolist()


def test_a_first_version_and_an_increment_have_their_own_epochs_and_learning_rates(monkeypatch):
    trained = []

    def train(net, histories, settings, schedule, *, real=cycle_module.train, **named):
        scheduled = (schedule.warm_up_epochs, schedule.epochs, schedule.learning_rate, schedule.from_scratch)
        trained.append((settings.w_transfer > 0, *scheduled))
        return real(net, histories, settings, schedule, **named)

    monkeypatch.setattr(cycle_module, "train", train)
    events = cycling(users=20, items=10)
    graph = MemoryGraph(STATE)
    graph.apply(events)
    training = TrainingSettings(
        warm_up_epochs=1, epochs=2, last_epochs=3, learning_rate=0.004,
        increment_warm_up_epochs=4, increment_epochs=5, increment_last_epochs=6, increment_learning_rate=0.007,
    )  # fmt: skip
    champion = None
    for names in ({i: str(i) for i in np.unique(events["item"]).tolist()}, {}):
        settings = CycleSettings(MODEL, training, RankingSettings(), STATE)
        champion = run_cycle(champion, CycleInput(from_events(events), names, graph.rows, 0), settings)
    # Only the sequence encoder learns the newest events.
    assert trained == [
        (True, 1, 2, 0.004, True), (False, 0, 3, 0.004, False), (True, 4, 5, 0.007, False), (False, 0, 6, 0.007, False),
    ]  # fmt: skip


def test_a_candidate_with_weights_that_are_not_finite_is_not_promoted(monkeypatch):
    events = cycling(users=60, items=20)
    champion = learned(events)
    arrived = cycling(users=60, items=20)
    arrived["ts"] += HOUR_MS

    def train(net, histories, settings, schedule, real=cycle_module.train, **named):
        spent = real(net, histories, settings, schedule, **named)
        if schedule.epochs == 0:  # the last epochs: nothing is measured after them
            with torch.no_grad():
                net.items.weight[3, 0] = torch.nan
        return spent

    monkeypatch.setattr(cycle_module, "train", train)
    verdict = increment(champion, np.concatenate([events, arrived]), arrived).verdict
    assert (verdict.promoted, verdict.reason) == (
        False,
        "champion kept: the candidate has weights that are not finite numbers",
    )


def test_a_late_event_is_not_part_of_the_history_of_earlier_events():
    events = np.zeros(40, EVENT)
    events["user"], events["item"] = np.arange(40) % 2 + 1, np.arange(40) % 9 + 100
    events["ts"] = 1_000_000_000_000 + np.arange(40) * 1000
    sequences = from_events(events)
    new = sequences.steps["ts"] % 3 == 0  # learned and new events alternate in time
    holdout = Holdout(*split_holdout(sequences, 5, new), STATE)
    assert len(holdout.targets) > 1
    for row, ts in enumerate(holdout.times):
        history = holdout.sequences.of(row)["ts"]
        assert len(history)
        assert (np.diff(history) > 0).all()
        assert history[-1] < ts


def stream_of(users: int, steps: int) -> RecordedStream:
    stream = RecordedStream(STATE)
    stream.append(cycling(users=users, items=20, steps=steps))
    return stream


SETTINGS = CycleSettings(
    MODEL,
    TrainingSettings(warm_up_epochs=1, epochs=1, last_epochs=0, increment_epochs=1, increment_last_epochs=0),
    RankingSettings(),
    STATE,
    GateSettings(old_users=5),
    replay_users=10,
)


def test_users_with_new_events_and_a_sample_of_others_are_learned_except_held_back_users():
    stream = stream_of(users=60, steps=4)
    champion = learned(stream.events(), model=MODEL)
    new_events = stream.events(stream.count - 20)
    users = select_training_users(stream, new_events, champion, SETTINGS, seed=3)
    assert users.with_new_events.tolist() == np.unique(new_events["user"]).tolist()
    parts = [set(part.tolist()) for part in users]
    assert len(set.union(*parts)) == sum(map(len, parts)), "no user is in two parts"
    assert 0 < len(users.gate_users) <= 5
    assert len(users.replayed) + len(users.gate_users) <= 15
    again = select_training_users(stream, new_events, champion, SETTINGS, seed=3)
    assert all((a == b).all() for a, b in zip(users, again, strict=True))


def test_for_a_first_version_all_users_are_new_and_none_is_held_back():
    stream = stream_of(users=60, steps=4)
    users = select_training_users(stream, stream.events(), None, SETTINGS, seed=3)
    assert len(users.with_new_events) == 60
    assert not len(users.replayed)
    assert not len(users.gate_users)


def test_a_changed_encoder_learns_from_as_many_users_as_a_first_version_does():
    stream = stream_of(users=60, steps=4)
    champion = run_cycle(None, collect_input(stream, stream.events(), None, SETTINGS, 0), SETTINGS)
    changed = SETTINGS._replace(model=msgspec.structs.replace(MODEL, sequence_encoder="bert4rec"))
    new_events = stream.events(stream.count - 20)
    as_before, from_scratch = (
        collect_input(stream, new_events, champion, settings, seed=3) for settings in (SETTINGS, changed)
    )
    assert len(as_before.sequences.users) < 40
    # All except the users on whom the gate measures forgetting.
    assert len(from_scratch.sequences.users) + len(from_scratch.gate_users.users) == 60
    assert len(from_scratch.gate_users.users) == 5
    candidate = run_cycle(champion, from_scratch, changed, parent="000001")
    assert candidate.model.settings.sequence_encoder == "bert4rec"
    assert candidate.metrics["users"] == 55
    assert candidate.vocabulary.ids == champion.vocabulary.ids


def test_a_cycle_reads_the_newest_events_of_a_user_and_names_unknown_items():
    stream = stream_of(users=10, steps=12)
    champion = learned(cycling(users=10, items=5), model=MODEL)
    settings = SETTINGS._replace(user_events=3)
    cycle_input = collect_input(stream, stream.events(), champion, settings, seed=0)
    assert (np.diff(cycle_input.sequences.indptr) == 3).all()
    items = np.unique(cycle_input.sequences.steps["item"])
    assert cycle_input.names.keys() == set(items[champion.vocabulary.lookup(items) == 0].tolist())
