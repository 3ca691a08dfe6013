"""A choice has the target and alternatives that stand for all other items."""

import numpy as np
import pytest
import torch

from model.fusion_weights.choice_sets import build_choice_sets, sample_alternatives
from model.ranking.fusion import Signal
from model.settings import RankingSettings
from tests.model.examples import cycling, holdout_of, learned


@pytest.mark.parametrize("filter_seen", [False, True])
def test_the_target_is_first_and_no_item_occurs_twice(filter_seen):
    trained = learned(cycling(users=60, items=30))
    holdout = holdout_of(cycling(users=60, items=30), 60)
    settings = RankingSettings(filter_seen=filter_seen)
    choices = build_choice_sets(holdout, trained.model, trained.vocabulary, settings)
    real = torch.isfinite(choices.correction)
    assert real[:, 0].all()
    # With 30 items all are alternatives, except seen items if they are filtered.
    seen = [len(np.unique(holdout.sequences.of(row)["item"])) for row in range(len(real))]
    expected = [30 - s for s in seen] if filter_seen else [30] * len(seen)
    assert real.sum(1).tolist() == expected
    model = choices.signals[:, :, Signal.MODEL].masked_fill(~real, -torch.inf)
    assert all(len(torch.unique(row[torch.isfinite(row)])) == n for row, n in zip(model, expected, strict=True))


def test_the_alternatives_stand_for_all_items_that_could_be_chosen():
    draw = torch.Generator().manual_seed(0)
    possible = torch.rand(5001, generator=draw) < 0.8
    possible[0], possible[7] = False, True
    evidence = torch.zeros(5001).scatter(0, torch.arange(40, 60), 1.0)
    items, correction = sample_alternatives(
        torch.tensor(7), possible, [torch.randn(5001, generator=draw), evidence], draw
    )
    assert correction.exp().sum().item() == pytest.approx(possible.sum().item(), rel=1e-4)
    assert set(items.tolist()) >= {7, *(set(range(40, 60)) & set(possible.nonzero()[:, 0].tolist()))}
    assert possible[items].all()
