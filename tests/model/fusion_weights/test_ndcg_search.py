"""One word's weight is chosen by where it places what came."""

import pytest
import torch

from model.fusion_weights.conditional_logit import ChoiceSets, fit
from model.fusion_weights.ndcg_search import STEPS, best_weight, ranks

MODEL, OWN = 0, 1
FREE = torch.tensor([True, True])
NOTHING = torch.zeros(2)


def people(count: int, come_back: float, candidates: int = 200) -> ChoiceSets:
    """Each has had one of the candidates, and comes back to it or chooses as the model says, for whom that is nobody's.

    The model is too sure of what it says.
    """
    draw = torch.Generator().manual_seed(0)
    words = torch.zeros(count, candidates, 2)
    words[:, :, MODEL] = 3.0 * torch.randn(count, candidates, generator=draw)
    own = torch.randint(1, candidates, (count,), generator=draw)
    back = torch.rand(count, generator=draw) < come_back
    chosen = torch.multinomial(torch.softmax(words[:, :, MODEL] / 3, 1), 1, generator=draw)[:, 0]
    chosen = torch.where(back, own, chosen)
    words[torch.arange(count), own, OWN] = 1.0
    at = torch.arange(count)
    first = words[:, 0].clone()
    words[:, 0], words[at, chosen] = words[at, chosen], torch.where((chosen == 0)[:, None], words[:, 0], first)
    return ChoiceSets(words, torch.zeros(count, candidates))


def found_at_all(choices: ChoiceSets, weights: torch.Tensor, places: int = 10) -> float:
    said = choices.signals @ weights
    return float(((said[:, 1:] >= said[:, :1]).sum(1) < places).float().mean())


def test_what_a_third_comes_back_to_has_a_place_in_the_list():
    choices, before = people(2000, come_back=0.33), torch.tensor([0.3, 0.0])
    best = best_weight(choices, before, OWN, 0.0)
    assert best[MODEL] == before[MODEL]
    assert found_at_all(choices, best) > found_at_all(choices, before) + 0.3
    likely, _ = fit(choices, FREE, NOTHING)
    assert found_at_all(choices, best_weight(choices, likely, OWN, 0.0)) >= found_at_all(choices, likely)


def test_where_nobody_comes_back_own_items_are_put_behind():
    choices = people(2000, come_back=0.0)
    assert best_weight(choices, torch.tensor([1.0, 2.0]), OWN, 0.0)[OWN] < 0


def test_a_few_people_move_it_less_from_what_was_known_than_many():
    few, many = (
        float(best_weight(people(count, 0.33), torch.tensor([0.3, -5.0]), OWN, -5.0)[OWN]) for count in (20, 2000)
    )
    assert -5.0 <= few < many


def test_where_it_changes_no_place_a_weight_goes_back_to_what_was_known():
    words = torch.zeros(100, 30, 2)
    words[:, 1:, MODEL], words[:, ::2, OWN] = 1e6, 1.0  # whatever it weighs, all others are ahead
    found = best_weight(ChoiceSets(words, torch.zeros(100, 30)), torch.tensor([1.0, 2.0]), OWN, 1.0)
    assert found[OWN] == pytest.approx(1.0, abs=0.05)


def test_a_word_that_says_nothing_stays_where_it_was():
    choices = people(100, 0.5)
    choices.signals[:, :, OWN] = 0.0
    assert best_weight(choices, torch.tensor([1.0, 0.7]), OWN, 0.7)[OWN] == pytest.approx(0.7)


def test_a_candidate_that_stands_for_many_is_as_many_places():
    """Fifty come back to what they had, behind a candidate; seventy do not. The fifty are found only by going first."""
    words = torch.zeros(120, 2, 2)
    words[:50, 0, OWN] = words[:50, 1, MODEL] = words[50:, 0, MODEL] = words[50:, 1, OWN] = 1.0
    for stands_for, goes_first in ((1.0, False), (20.0, True)):
        correction = torch.zeros(120, 2)
        correction[:50, 1] = torch.tensor(stands_for).log()
        assert (
            bool(best_weight(ChoiceSets(words, correction), torch.tensor([1.0, 0.0]), OWN, 0.0)[OWN] > 1) == goes_first
        )


def test_ranks_at_every_step_are_those_counted_one_step_after_the_other():
    draw = torch.Generator().manual_seed(0)
    ahead = torch.randint(-9, 10, (50, 30), generator=draw) / 2.0  # in steps of the grid: many meet it exactly
    moved = torch.randint(-3, 4, (50, 30), generator=draw) / 2.0
    others = torch.randint(0, 50, (50, 30), generator=draw).float()
    one_by_one = torch.stack([((ahead + step * moved >= 0) * others).sum(1) for step in STEPS], 1)
    torch.testing.assert_close(ranks(ahead, moved, others), one_by_one)
