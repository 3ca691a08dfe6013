"""A score is the sum of its weighed words: each written out again from the formulas of model/, item by item."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.create import Create
from model.evaluation import as_events
from model.fusion import Fusion
from model.histories import to_histories
from model.past import Past
from model.ranking import Ranking
from model.settings import ModelSettings, RankingSettings
from model.vocabulary import Vocabulary
from state.events import hash_id
from state.settings import StateSettings

ITEMS = [f"item-{n}" for n in range(6)]
VOCABULARY = Vocabulary(np.array([hash_id(i) for i in ITEMS], np.uint64), ITEMS).release(
    np.array([hash_id("item-5")], np.uint64)
)
"""One item is gone from it, and its column free; clicked it may be still."""
RANKING = RankingSettings(history_items=3, age_decay=0.7, repeat_decay=0.6, because=False)
clicks = st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(ITEMS), st.integers(0, 10**8)), min_size=1)
weights = st.builds(Fusion, *[st.sampled_from([0.0, -1.5, 2.0])] * 4, st.sampled_from([0.0, 0.5, 1.0]))


def ids(*items: str) -> np.ndarray:
    return np.array([hash_id(i) for i in items], np.uint64)


def words(past: Past, model: Create, user: int, before: float) -> torch.Tensor:
    """Model, repeat, popularity and evidence of every item, [4, n], from the graph's rows and the user's history."""
    sequences, rows = past.sequences(np.array([user], np.uint64)), past.graph.rows(ids(*ITEMS))
    row_of = {item: row for row, item in enumerate(ids(*ITEMS).tolist())}
    history = sequences.steps["item"].tolist()[::-1]
    said = torch.zeros(4, len(ITEMS))
    with torch.no_grad():
        said[0] = model.items.weight[1:] @ model.encode(to_histories(sequences, VOCABULARY))[0]
    now = rows.ts.max()
    for j, item in enumerate(ids(*ITEMS[:5]).tolist()):
        evidence = 0.0
        for age, i in enumerate(row_of[step] for step in history[: RANKING.history_items]):
            g = dict(zip(rows.nodes[i].tolist(), (rows.after[i] + before * rows.before[i]).tolist(), strict=True))
            if g.get(item):
                evidence += RANKING.age_decay**age * g[item] / math.sqrt(rows.degree[j] * sum(g.values()))
        lately = rows.popularity[j] * 0.5 ** ((now - rows.ts[j]) / 1000 / past.graph.popularity_half_life_s)
        said[1, j] = math.log1p(sum(RANKING.repeat_decay**age for age, step in enumerate(history) if step == item))
        said[2, j] = math.log1p(10 * lately)
        said[3, j] = math.log1p(50 * evidence)
    return said


@settings(deadline=None, max_examples=40)
@given(clicks, weights)
def test_a_score_is_the_sum_of_its_weighed_words(stream, fusion):
    torch.manual_seed(0)
    model = Create(len(ITEMS), ModelSettings(dim=4)).eval()
    users, items, ts = zip(*sorted(stream, key=lambda click: click[2]), ("c", "item-0", 10**8), strict=True)
    past = Past(StateSettings(neighbours_per_item=8, popularity_half_life_s=3600.0))
    past.arrive(as_events(users, items, 1_500_000_000_000 + np.array(ts))[0])
    ranking = Ranking(model, VOCABULARY, fusion, RANKING)
    for user in past.users.tolist():
        said = words(past, model, user, fusion.before)
        weighed = torch.tensor([fusion.model, fusion.repeat, fusion.popularity, fusion.evidence])
        asked = past.sequences(np.array([user], np.uint64))
        found = ranking.words(asked, past.graph)[:, 0]
        assert found[:, 1:6].numpy() == pytest.approx(said[:, :5].numpy(), rel=1e-3, abs=1e-3)
        assert not found[:, 0].any()
        scores = ranking.scores(asked, past.graph)[0]
        assert scores[1:6].numpy() == pytest.approx((weighed @ said)[:5].numpy(), rel=1e-3, abs=1e-2)
        assert scores[[0, 6]].tolist() == [-math.inf, -math.inf]
