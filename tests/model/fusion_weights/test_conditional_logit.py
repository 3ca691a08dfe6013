"""Weights are found from choices made with known ones."""

import pytest
import torch

from model.fusion_weights.conditional_logit import ChoiceSets, fit

TRUE = torch.tensor([1.5, -1.0, 0.0])
NOTHING = torch.zeros(3)


def chosen_by(weights: torch.Tensor, people: int = 4000, candidates: int = 20) -> ChoiceSets:
    generator = torch.Generator().manual_seed(0)
    words = torch.randn(people, candidates, len(weights), generator=generator)
    picked = torch.multinomial(torch.softmax(words @ weights, 1), 1, generator=generator)[:, 0]
    at = torch.arange(people)
    first = words[:, 0].clone()
    words[:, 0] = words[at, picked]
    words[at, picked] = torch.where((picked == 0)[:, None], words[:, 0], first)
    return ChoiceSets(words, torch.zeros(people, candidates))


def test_the_weights_that_made_the_choices_are_found():
    found, _ = fit(chosen_by(TRUE), torch.tensor([True] * 3), NOTHING)
    # The floor sharpens them; their proportions stay.
    assert (found / found[0]).tolist() == pytest.approx((TRUE / TRUE[0]).tolist(), abs=0.1)


def test_no_weight_nearby_says_more_than_those_that_were_found():
    """What is made least is L with its floor, in words of unit spread, written out again."""
    choices, prior = chosen_by(TRUE, people=400), torch.tensor([0.5, 0.5, 0.5])
    choices.signals[:40, 0] = -choices.signals[:40, 0]  # choices that nothing foretells
    found, reached = fit(choices, torch.tensor([True] * 3), prior)
    spread = choices.signals.flatten(0, 1).std(0)

    def loss(weights: torch.Tensor) -> float:
        p = torch.softmax(choices.signals @ weights, 1)[:, 0]
        return float(20 / 400 * (((weights - prior) * spread) ** 2).sum() - torch.log(p + 0.03).mean())

    assert loss(found) == pytest.approx(reached, abs=1e-4)
    for step in torch.cat([torch.eye(3), -torch.eye(3)]) * 0.05:
        assert loss(found + step) > loss(found)


def test_a_word_that_is_not_free_weighs_nothing():
    found, worse = fit(chosen_by(TRUE), torch.tensor([True, False, True]), NOTHING)
    _, better = fit(chosen_by(TRUE), torch.tensor([True] * 3), NOTHING)
    assert found[1] == 0
    assert worse > better


def test_candidates_that_are_none_and_candidates_drawn_for_many_change_nothing():
    whole = chosen_by(TRUE)
    found, _ = fit(whole, torch.tensor([True] * 3), NOTHING)
    padded = ChoiceSets(
        torch.cat([whole.signals, torch.full((4000, 5, 3), 9.0)], 1),
        torch.cat([whole.correction, torch.full((4000, 5), -torch.inf)], 1),
    )
    assert fit(padded, torch.tensor([True] * 3), NOTHING)[0].tolist() == pytest.approx(found.tolist(), abs=1e-3)
    # Half of the others, each standing for two.
    kept = [0, *range(1, 20, 2)]
    correction = torch.tensor([0.0] + [float(torch.tensor(1.9).log())] * 10).expand(4000, -1)
    drawn, _ = fit(ChoiceSets(whole.signals[:, kept], correction), torch.tensor([True] * 3), NOTHING)
    assert (drawn / drawn[0]).tolist() == pytest.approx((found / found[0]).tolist(), abs=0.1)


def test_few_choices_leave_the_weights_near_those_known_before():
    few, many = chosen_by(-TRUE, people=60), chosen_by(-TRUE)
    free = torch.tensor([True] * 3)
    for choices in (few, many):
        nothing_known, _ = fit(choices, free, NOTHING)
        known, _ = fit(choices, free, TRUE)
        assert torch.linalg.norm(known - TRUE) < torch.linalg.norm(nothing_known - TRUE)
    assert torch.linalg.norm(fit(many, free, TRUE)[0] + TRUE) < torch.linalg.norm(TRUE)


def test_a_word_that_may_not_count_against_weighs_nothing_where_it_would():
    choices = chosen_by(TRUE)
    found, _ = fit(choices, torch.tensor([True] * 3), NOTHING, positive=(0, 1))
    without, _ = fit(choices, torch.tensor([True, False, True]), NOTHING)
    assert found.tolist() == without.tolist()
    assert fit(choices, torch.tensor([True] * 3), NOTHING, positive=(0,))[0][1] < 0
