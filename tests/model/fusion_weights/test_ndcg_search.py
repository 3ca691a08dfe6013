"""The weight of one signal is chosen by the ranks of the chosen items."""

import pytest
import torch

from model.fusion_weights.conditional_logit import ChoiceSets, fit
from model.fusion_weights.ndcg_search import WEIGHT_STEPS, best_weight, ranks

MODEL, OWN = 0, 1
FREE = torch.tensor([True, True])
NO_PRIOR = torch.zeros(2)


def returning_users(count: int, come_back: float, alternatives: int = 200) -> ChoiceSets:
    """Choices of users who clicked one alternative before: they return to it, or choose as the model predicts.

    The scores of the model are too far apart, and do not depend on the alternative that a user clicked before.
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


def share_in_list(choices: ChoiceSets, weights: torch.Tensor, length: int = 10) -> float:
    scores = choices.signals @ weights
    return float(((scores[:, 1:] >= scores[:, :1]).sum(1) < length).float().mean())


def test_items_to_which_a_third_of_the_users_return_enter_the_list():
    choices, before = returning_users(2000, come_back=0.33), torch.tensor([0.3, 0.0])
    best = best_weight(choices, before, OWN, 0.0)
    assert best[MODEL] == before[MODEL]
    assert share_in_list(choices, best) > share_in_list(choices, before) + 0.3
    likely, _ = fit(choices, FREE, NO_PRIOR)
    assert share_in_list(choices, best_weight(choices, likely, OWN, 0.0)) >= share_in_list(choices, likely)


def test_the_weight_of_repeats_is_negative_if_no_user_returns():
    choices = returning_users(2000, come_back=0.0)
    assert best_weight(choices, torch.tensor([1.0, 2.0]), OWN, 0.0)[OWN] < 0


def test_few_choices_move_the_weight_less_from_the_prior_than_many():
    few, many = (
        float(best_weight(returning_users(count, 0.33), torch.tensor([0.3, -5.0]), OWN, -5.0)[OWN])
        for count in (20, 2000)
    )
    assert -5.0 <= few < many


def test_a_weight_that_changes_no_rank_returns_to_the_prior():
    signals = torch.zeros(100, 30, 2)
    signals[:, 1:, MODEL], signals[:, ::2, OWN] = 1e6, 1.0  # all other items are ahead for any weight
    found = best_weight(ChoiceSets(signals, torch.zeros(100, 30)), torch.tensor([1.0, 2.0]), OWN, 1.0)
    assert found[OWN] == pytest.approx(1.0, abs=0.05)


def test_the_weight_of_a_signal_that_is_always_0_stays():
    choices = returning_users(100, 0.5)
    choices.signals[:, :, OWN] = 0.0
    assert best_weight(choices, torch.tensor([1.0, 0.7]), OWN, 0.7)[OWN] == pytest.approx(0.7)


def test_an_alternative_that_stands_for_many_counts_as_many_ranks():
    """Fifty of 120 users return to their item, which is ranked after an alternative."""
    signals = torch.zeros(120, 2, 2)
    signals[:50, 0, OWN] = signals[:50, 1, MODEL] = signals[50:, 0, MODEL] = signals[50:, 1, OWN] = 1.0
    for stands_for, weight_grows in ((1.0, False), (20.0, True)):
        correction = torch.zeros(120, 2)
        correction[:50, 1] = torch.tensor(stands_for).log()
        assert (
            bool(best_weight(ChoiceSets(signals, correction), torch.tensor([1.0, 0.0]), OWN, 0.0)[OWN] > 1)
            == weight_grows
        )


def test_ranks_at_all_steps_equal_ranks_counted_step_by_step():
    draw = torch.Generator().manual_seed(0)
    ahead = torch.randint(-9, 10, (50, 30), generator=draw) / 2.0  # multiples of the grid step, so that ties occur
    moved = torch.randint(-3, 4, (50, 30), generator=draw) / 2.0
    others = torch.randint(0, 50, (50, 30), generator=draw).float()
    one_by_one = torch.stack([((ahead + step * moved >= 0) * others).sum(1) for step in WEIGHT_STEPS], 1)
    torch.testing.assert_close(ranks(ahead, moved, others), one_by_one)
