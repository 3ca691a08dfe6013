"""A score is the sum of its weighed words: each written out again from the formulas of model/, item by item."""

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
from model.ranking.fusion import Fusion
from model.ranking.ranker import Ranker
from model.settings import ModelSettings, RankingSettings
from state.settings import StateSettings
from tests.model.ranking.test_catalogue import ids

ITEMS = [f"item-{n}" for n in range(6)]
VOCABULARY = Vocabulary(ids(*ITEMS), ITEMS).release(ids("item-5"))
"""One item is gone from it, and its column free; clicked it may be still."""
RANKING = RankingSettings(history_items=3, age_decay=0.7, repeat_decay=0.6, because=False)
clicks = st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(ITEMS), st.integers(0, 10**8)), min_size=1)
weights = st.builds(Fusion, *[st.sampled_from([0.0, -1.5, 2.0])] * 4, st.sampled_from([0.0, 0.5, 1.0]))


def arrived(stream: list[tuple[str, str, int]]) -> RecordedStream:
    """These clicks by time, and one that is the newest of all."""
    users, items, ts = zip(*sorted(stream, key=lambda click: click[2]), ("c", "item-0", 10**8), strict=True)
    past = RecordedStream(StateSettings(neighbours_per_item=8, popularity_half_life_s=3600.0))
    past.append(as_events(users, items, 1_500_000_000_000 + np.array(ts))[0])
    return past


def learned() -> Create:
    torch.manual_seed(0)
    return Create(len(ITEMS), ModelSettings(dim=4)).eval()


def spoken(past: RecordedStream, history: list[int], before: float) -> np.ndarray:
    """[H, n] what each of the newest items of a history says for every item: age_decay^a · g_ij / √(n_j · Σ_j g_ij)."""
    rows = past.graph.rows(ids(*ITEMS))
    said = np.zeros((len(history), len(ITEMS)))
    for age, source in enumerate(history):
        i = ids(*ITEMS).tolist().index(source)
        g = dict(zip(rows.nodes[i].tolist(), (rows.after[i] + before * rows.before[i]).tolist(), strict=True))
        for j, item in enumerate(ids(*ITEMS).tolist()):
            if g.get(item):
                said[age, j] = RANKING.age_decay**age * g[item] / math.sqrt(rows.degree[j] * sum(g.values()))
    return said


def words(past: RecordedStream, model: Create, user: int, before: float) -> torch.Tensor:
    """Model, repeat, popularity and evidence of every item, [4, n], from the graph's rows and the user's history."""
    sequences, rows = past.sequences(np.array([user], np.uint64)), past.graph.rows(ids(*ITEMS))
    history = sequences.steps["item"].tolist()[::-1]
    said = torch.zeros(4, len(ITEMS))
    with torch.no_grad():
        said[0] = model.items.weight[1:] @ model.encode(to_histories(sequences, VOCABULARY))[0]
    evidence = spoken(past, history[: RANKING.history_items], before).sum(0)
    for j, item in enumerate(ids(*ITEMS).tolist()):
        age_s = (rows.ts.max() - rows.ts[j]) / 1000
        lately = rows.popularity[j] * 0.5 ** (age_s / past.graph.popularity_half_life_s)
        said[1, j] = math.log1p(sum(RANKING.repeat_decay**age for age, step in enumerate(history) if step == item))
        said[2, j] = math.log1p(10 * lately)
        said[3, j] = math.log1p(50 * evidence[j])
    return said


@settings(deadline=None, max_examples=40)
@given(clicks, weights)
def test_a_score_is_the_sum_of_its_weighed_words(stream, fusion):
    past, model = arrived(stream), learned()
    ranking = Ranker(model, VOCABULARY, fusion, RANKING)
    for user in past.users.tolist():
        said = words(past, model, user, fusion.before)
        weighed = torch.tensor([fusion.model, fusion.repeat, fusion.popularity, fusion.evidence])
        asked = past.sequences(np.array([user], np.uint64))
        found = ranking.signals(asked, past.graph)[:, 0]
        assert found[:, 1:6].numpy() == pytest.approx(said[:, :5].numpy(), rel=1e-3, abs=1e-3)
        assert not found[:, 0].any()
        scores = ranking.scores(asked, past.graph)[0]
        assert scores[1:6].numpy() == pytest.approx((weighed @ said)[:5].numpy(), rel=1e-3, abs=1e-2)
        assert scores[[0, 6]].tolist() == [-math.inf, -math.inf]


@settings(deadline=None, max_examples=40)
@given(clicks, weights)
def test_the_reason_is_what_speaks_most_and_what_speaks_half_as_much(stream, fusion):
    """Where the graph says nothing, embeddings speak; they may add 1e-3 to what it says."""
    past, model = arrived(stream), learned()
    ranking = Ranker(model, VOCABULARY, fusion, msgspec.structs.replace(RANKING, because=True))
    rows = torch.nn.functional.normalize(model.items.weight.detach(), dim=1)
    for user in past.users.tolist():
        asked = past.sequences(np.array([user], np.uint64))
        history = asked.steps["item"][::-1][: RANKING.history_items]
        said, alike = spoken(past, history.tolist(), fusion.before), (rows @ rows.T)[VOCABULARY.lookup(history)]
        ranked = ranking.rank(asked, past.graph, 5)
        for item, reasons in zip(ranked.items[0], ranked.because[0].tolist(), strict=True):
            column = int(VOCABULARY.lookup(item))
            if not column:
                continue
            worth = {
                own: said[history == own, ITEMS.index(VOCABULARY.ids[column - 1])].sum() for own in history.tolist()
            }
            if not any(worth.values()):
                worth = {own: float(alike[history == own, column][0]) for own in history.tolist()}
            best, *others = sorted(worth.values(), reverse=True)
            if reasons[0]:
                assert best > -1e-3
                assert worth[reasons[0]] == pytest.approx(best, abs=2e-3)
            else:
                assert best < 1e-3
            if reasons[1]:
                assert reasons[1] != reasons[0]
                assert worth[reasons[1]] > 0.5 * best - 2e-3
            else:
                assert best < 1e-3 or all(other < 0.5 * best + 2e-3 for other in others)
