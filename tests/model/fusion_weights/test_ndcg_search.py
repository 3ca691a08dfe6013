"""The weight of one signal is chosen by the rank of the chosen items."""

import pytest
import torch

from model.fusion_weights.conditional_logit import ChoiceSets, fit
from model.fusion_weights.ndcg_search import WEIGHT_STEPS, best_weight, ranks

MODEL, OWN = 0, 1
FREE = torch.tensor([True, True])
NO_PRIOR = torch.zeros(2)


def people(count: int, come_back: float, alternatives: int = 200) -> ChoiceSets:
    """Choices of users who each had one alternative before: they return to it, or choose as the model predicts.

    The model's scores are too far apart. It does not know which alternative a user had.
    """
    draw = torch.Generator().manual_seed(0)
    signals = torch.zeros(count, alternatives, 2)
    signals[:, :, MODEL] = 3.0 * torch.randn(count, alternatives, generator=draw)
    own = torch.randint(1, alternatives, (count,), generator=draw)
    back = torch.rand(count, generator=draw) < come_back
    chosen = torch.multinomial(torch.softmax(signals[:, :, MODEL] / 3, 1), 1, generator=draw)[:, 0]
    chosen = torch.where(back, own, chosen)
    signals[torch.arange(count), own, OWN] = 1.0
    at = torch.arange(count)
    first = signals[:, 0].clone()
    signals[:, 0], signals[at, chosen] = signals[at, chosen], torch.where((chosen == 0)[:, None], signals[:, 0], first)
    return ChoiceSets(signals, torch.zeros(count, alternatives))


def found_at_all(choices: ChoiceSets, weights: torch.Tensor, places: int = 10) -> float:
    scores = choices.signals @ weights
    return float(((scores[:, 1:] >= scores[:, :1]).sum(1) < places).float().mean())


def test_items_that_a_third_of_users_return_to_get_into_the_list():
    choices, before = people(2000, come_back=0.33), torch.tensor([0.3, 0.0])
    best = best_weight(choices, before, OWN, 0.0)
    assert best[MODEL] == before[MODEL]
    assert found_at_all(choices, best) > found_at_all(choices, before) + 0.3
    likely, _ = fit(choices, FREE, NO_PRIOR)
    assert found_at_all(choices, best_weight(choices, likely, OWN, 0.0)) >= found_at_all(choices, likely)


def test_the_weight_of_repeats_is_negative_when_nobody_returns():
    choices = people(2000, come_back=0.0)
    assert best_weight(choices, torch.tensor([1.0, 2.0]), OWN, 0.0)[OWN] < 0


def test_few_choices_move_the_weight_less_from_the_prior_than_many():
    few, many = (
        float(best_weight(people(count, 0.33), torch.tensor([0.3, -5.0]), OWN, -5.0)[OWN]) for count in (20, 2000)
    )
    assert -5.0 <= few < many


def test_a_weight_that_changes_no_rank_goes_back_to_the_prior():
    signals = torch.zeros(100, 30, 2)
    signals[:, 1:, MODEL], signals[:, ::2, OWN] = 1e6, 1.0  # all others are ahead at any weight
    found = best_weight(ChoiceSets(signals, torch.zeros(100, 30)), torch.tensor([1.0, 2.0]), OWN, 1.0)
    assert found[OWN] == pytest.approx(1.0, abs=0.05)


def test_the_weight_of_a_signal_that_is_always_0_stays():
    choices = people(100, 0.5)
    choices.signals[:, :, OWN] = 0.0
    assert best_weight(choices, torch.tensor([1.0, 0.7]), OWN, 0.7)[OWN] == pytest.approx(0.7)


def test_an_alternative_that_stands_for_many_counts_as_many_ranks():
    """Fifty users return to their item, behind an alternative; seventy do not. The fifty are hits at rank 0 only."""
    signals = torch.zeros(120, 2, 2)
    signals[:50, 0, OWN] = signals[:50, 1, MODEL] = signals[50:, 0, MODEL] = signals[50:, 1, OWN] = 1.0
    for stands_for, goes_first in ((1.0, False), (20.0, True)):
        correction = torch.zeros(120, 2)
        correction[:50, 1] = torch.tensor(stands_for).log()
        assert (
            bool(best_weight(ChoiceSets(signals, correction), torch.tensor([1.0, 0.0]), OWN, 0.0)[OWN] > 1)
            == goes_first
        )


def test_ranks_at_every_step_are_those_counted_one_step_after_the_other():
    draw = torch.Generator().manual_seed(0)
    ahead = torch.randint(-9, 10, (50, 30), generator=draw) / 2.0  # in steps of the grid: many are met exactly
    moved = torch.randint(-3, 4, (50, 30), generator=draw) / 2.0
    others = torch.randint(0, 50, (50, 30), generator=draw).float()
    one_by_one = torch.stack([((ahead + step * moved >= 0) * others).sum(1) for step in WEIGHT_STEPS], 1)
    torch.testing.assert_close(ranks(ahead, moved, others), one_by_one)
