"""A score is the weighted sum of its signals. Each signal is computed again from its formula, item by item."""

import math

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.encoders.create import Create
from model.encoders.histories import to_histories
from model.encoders.vocabulary import Vocabulary
from model.evaluation.global_temporal import as_events
from model.evaluation.recorded_stream import RecordedStream
from model.ranking.fusion import Fusion, Signal
from model.ranking.stages import Stages
from model.settings import ModelSettings, RankingSettings
from state.settings import StateSettings
from tests.model.ranking.test_catalogue import ids

ITEMS = [f"item-{n}" for n in range(6)]
VOCABULARY = Vocabulary(ids(*ITEMS), ITEMS).release(ids("item-5"))
"""The index of one item is free. Events of that item may still arrive."""
RANKING = RankingSettings(history_items=3, age_decay=0.7, repeat_decay=0.6, because=False)
clicks = st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(ITEMS), st.integers(0, 10**8)), min_size=1)
weights = st.builds(Fusion, *[st.sampled_from([0.0, -1.5, 2.0])] * 4, st.sampled_from([0.0, 0.5, 1.0]))


def recorded(stream: list[tuple[str, str, int]]) -> RecordedStream:
    """A recorded stream of these clicks by time, followed by one newer click."""
    users, items, ts = zip(*sorted(stream, key=lambda click: click[2]), ("c", "item-0", 10**8), strict=True)
    past = RecordedStream(StateSettings(neighbours_per_item=8, popularity_half_life_s=3600.0))
    past.append(as_events(users, items, 1_500_000_000_000 + np.array(ts))[0])
    return past


def untrained() -> Create:
    torch.manual_seed(0)
    return Create(len(ITEMS), ModelSettings(dim=4)).eval()


def evidence(past: RecordedStream, history: list[int], before: float) -> np.ndarray:
    """[H, n] evidence of each newest item of a history for every item: age_decay^a · g_ij / √(n_j · Σ_j g_ij)."""
    rows = past.graph.rows(ids(*ITEMS))
    found = np.zeros((len(history), len(ITEMS)))
    for age, source in enumerate(history):
        i = ids(*ITEMS).tolist().index(source)
        g = dict(zip(rows.nodes[i].tolist(), (rows.after[i] + before * rows.before[i]).tolist(), strict=True))
        for j, item in enumerate(ids(*ITEMS).tolist()):
            if g.get(item):
                found[age, j] = RANKING.age_decay**age * g[item] / math.sqrt(rows.degree[j] * sum(g.values()))
    return found


def signals_of(past: RecordedStream, model: Create, user: int, before: float) -> torch.Tensor:
    """The four signals of every item, [4, n], from the graph's rows and the user's history."""
    sequences, rows = past.sequences(np.array([user], np.uint64)), past.graph.rows(ids(*ITEMS))
    history = sequences.steps["item"].tolist()[::-1]
    found = torch.zeros(len(Signal), len(ITEMS))
    with torch.no_grad():
        found[Signal.MODEL] = model.items.weight[1:] @ model.encode(to_histories(sequences, VOCABULARY))[0]
    of_newest = evidence(past, history[: RANKING.history_items], before).sum(0)
    for j, item in enumerate(ids(*ITEMS).tolist()):
        age_s = (rows.ts.max() - rows.ts[j]) / 1000
        recent = rows.popularity[j] * 0.5 ** (age_s / past.graph.half_lives_s[0])
        repeats = sum(RANKING.repeat_decay**age for age, step in enumerate(history) if step == item)
        found[Signal.REPEAT, j] = math.log1p(repeats)
        found[Signal.POPULARITY, j] = math.log1p(10 * recent)
        found[Signal.EVIDENCE, j] = math.log1p(50 * of_newest[j])
    return found


@settings(deadline=None, max_examples=40)
@given(clicks, weights)
def test_a_score_is_the_weighted_sum_of_the_signals(stream, fusion):
    past, model = recorded(stream), untrained()
    stages = Stages(model, VOCABULARY, fusion, RANKING)
    for user in past.users.tolist():
        expected = signals_of(past, model, user, fusion.before)
        sequences = past.sequences(np.array([user], np.uint64))
        found = stages.signals(sequences, past.graph)[:, 0]
        assert found[:, 1:6].numpy() == pytest.approx(expected[:, :5].numpy(), rel=1e-3, abs=1e-3)
        assert not found[:, 0].any()
        scores = stages.scores(sequences, past.graph)[0]
        fused = fusion.as_tensor() @ expected
        assert scores[1:6].numpy() == pytest.approx(fused[:5].numpy(), rel=1e-3, abs=1e-2)
        assert scores[[0, 6]].tolist() == [-math.inf, -math.inf]


def test_there_is_one_evidence_for_each_share_of_neighbours_before():
    past, model = (
        recorded([("a", "item-1", 1), ("a", "item-2", 2), ("b", "item-2", 3), ("b", "item-1", 4)]),
        untrained(),
    )
    sequences = past.sequences(past.users)
    stages = Stages(model, VOCABULARY, Fusion(), RANKING)
    several = stages.signals(sequences, past.graph, before_shares=(0.0, 1.0))
    for share, form in ((0.0, several[Signal.EVIDENCE]), (1.0, several[Signal.EVIDENCE + 1])):
        alone = Stages(model, VOCABULARY, Fusion(before=share), RANKING).signals(sequences, past.graph)
        assert torch.equal(form, alone[Signal.EVIDENCE])
        assert torch.equal(several[: Signal.EVIDENCE], alone[: Signal.EVIDENCE])
    assert not torch.equal(several[Signal.EVIDENCE], several[Signal.EVIDENCE + 1])


@settings(deadline=None, max_examples=40)
@given(clicks, weights)
def test_the_reasons_are_the_strongest_own_item_and_one_at_least_half_as_strong(stream, fusion):
    """Without evidence the strength is the cosine of two rows. It may add 1e-3 to the strength of evidence."""
    past, model = recorded(stream), untrained()
    stages = Stages(model, VOCABULARY, fusion, msgspec.structs.replace(RANKING, because=True))
    rows = torch.nn.functional.normalize(model.items.weight.detach(), dim=1)
    for user in past.users.tolist():
        sequences = past.sequences(np.array([user], np.uint64))
        history = sequences.steps["item"][::-1][: RANKING.history_items]
        found, cosines = evidence(past, history.tolist(), fusion.before), (rows @ rows.T)[VOCABULARY.lookup(history)]
        ranked = stages.rank(sequences, past.graph, 5)
        for item, reasons in zip(ranked.items[0], ranked.because[0].tolist(), strict=True):
            column = int(VOCABULARY.lookup(item))
            if not column:
                continue
            strength = {
                own: found[history == own, ITEMS.index(VOCABULARY.ids[column - 1])].sum() for own in history.tolist()
            }
            if not any(strength.values()):
                strength = {own: float(cosines[history == own, column][0]) for own in history.tolist()}
            best, *others = sorted(strength.values(), reverse=True)
            if reasons[0]:
                assert best > -1e-3
                assert strength[reasons[0]] == pytest.approx(best, abs=2e-3)
            else:
                assert best < 1e-3
            if reasons[1]:
                assert reasons[1] != reasons[0]
                assert strength[reasons[1]] > 0.5 * best - 2e-3
            else:
                assert best < 1e-3 or all(other < 0.5 * best + 2e-3 for other in others)
