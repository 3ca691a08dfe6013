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
VOCABULARY = Vocabulary(np.array([hash_id(i) for i in ITEMS], np.uint64), ITEMS)
RANKING = RankingSettings(history_items=3, age_decay=0.7, repeat_decay=0.6, because=False)
clicks = st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(ITEMS), st.integers(0, 10**8)), min_size=1)
weights = st.builds(Fusion, *[st.sampled_from([0.0, -1.5, 2.0])] * 4, st.sampled_from([0.0, 0.5, 1.0]))


def words(past: Past, model: Create, user: int, before: float) -> torch.Tensor:
    """Model, repeat, popularity and evidence of every item, [4, n], from the graph's rows and the user's history."""
    sequences, rows = past.sequences(np.array([user], np.uint64)), past.graph.rows(VOCABULARY.hashes)
    history = [VOCABULARY.hashes.tolist().index(item) for item in sequences.steps["item"].tolist()][::-1]
    said = torch.zeros(4, len(ITEMS))
    with torch.no_grad():
        h = model.encode(to_histories(sequences, VOCABULARY))[0]
        said[0] = model.items.weight[1:] @ h
    now = rows.ts.max()
    for j, item in enumerate(VOCABULARY.hashes.tolist()):
        evidence = 0.0
        for age, i in enumerate(history[: RANKING.history_items]):
            g = dict(zip(rows.nodes[i].tolist(), (rows.after[i] + before * rows.before[i]).tolist(), strict=True))
            if item and g.get(item):
                evidence += RANKING.age_decay**age * g[item] / math.sqrt(rows.degree[j] * sum(g.values()))
        lately = rows.popularity[j] * 0.5 ** ((now - rows.ts[j]) / 1000 / past.graph.popularity_half_life_s)
        said[1, j] = math.log1p(sum(RANKING.repeat_decay**age for age, i in enumerate(history) if i == j))
        said[2, j] = math.log1p(10 * lately)
        said[3, j] = math.log1p(50 * evidence)
    return said


@settings(deadline=None, max_examples=60)
@given(clicks, weights)
def test_a_score_is_the_sum_of_its_weighed_words(stream, fusion):
    torch.manual_seed(0)
    model = Create(len(ITEMS), ModelSettings(dim=4)).eval()
    users, items, ts = zip(*sorted(stream, key=lambda click: click[2]), strict=True)
    past = Past(StateSettings(neighbours_per_item=8, popularity_half_life_s=3600.0))
    past.arrive(as_events(users, items, 1_500_000_000_000 + np.array(ts))[0])
    ranking = Ranking(model, VOCABULARY, fusion, RANKING)
    for user in past.users.tolist():
        said = words(past, model, user, fusion.before)
        weighed = torch.tensor([fusion.model, fusion.repeat, fusion.popularity, fusion.evidence])
        asked = past.sequences(np.array([user], np.uint64))
        assert ranking.words(asked, past.graph)[:, 0, 1:].numpy() == pytest.approx(said.numpy(), rel=1e-3, abs=1e-3)
        scores = ranking.scores(asked, past.graph)[0, 1:]
        assert scores.numpy() == pytest.approx((weighed @ said).numpy(), rel=1e-3, abs=1e-2)
