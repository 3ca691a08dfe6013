"""The fit recovers the weights with which choices were made."""

import pytest
import torch

from model.fusion_weights.conditional_logit import ChoiceSets, fit

TRUE_WEIGHTS = torch.tensor([1.5, -1.0, 0.0])
NO_PRIOR = torch.zeros(3)


def chosen_by(weights: torch.Tensor, count: int = 4000, alternatives: int = 20) -> ChoiceSets:
    generator = torch.Generator().manual_seed(0)
    signals = torch.randn(count, alternatives, len(weights), generator=generator)
    picked = torch.multinomial(torch.softmax(signals @ weights, 1), 1, generator=generator)[:, 0]
    at = torch.arange(count)
    first = signals[:, 0].clone()
    signals[:, 0] = signals[at, picked]
    signals[at, picked] = torch.where((picked == 0)[:, None], signals[:, 0], first)
    return ChoiceSets(signals, torch.zeros(count, alternatives))


def test_the_weights_that_made_the_choices_are_found():
    found, _ = fit(chosen_by(TRUE_WEIGHTS), torch.tensor([True] * 3), NO_PRIOR)
    # The floor makes the weights larger but keeps their ratios.
    assert (found / found[0]).tolist() == pytest.approx((TRUE_WEIGHTS / TRUE_WEIGHTS[0]).tolist(), abs=0.1)


def test_no_nearby_weights_have_a_lower_loss():
    """The loss is computed again from its equation, on signals of unit spread."""
    choices, prior = chosen_by(TRUE_WEIGHTS, count=400), torch.tensor([0.5, 0.5, 0.5])
    choices.signals[:40, 0] = -choices.signals[:40, 0]  # choices that no signal predicts
    found, final_loss = fit(choices, torch.tensor([True] * 3), prior)
    spread = choices.signals.flatten(0, 1).std(0)

    def loss(weights: torch.Tensor) -> float:
        p = torch.softmax(choices.signals @ weights, 1)[:, 0]
        return float(20 / 400 * (((weights - prior) * spread) ** 2).sum() - torch.log(p + 0.03).mean())

    assert loss(found) == pytest.approx(final_loss, abs=1e-4)
    for step in torch.cat([torch.eye(3), -torch.eye(3)]) * 0.05:
        assert loss(found + step) > loss(found)


def test_a_signal_that_is_not_free_gets_no_weight():
    found, worse = fit(chosen_by(TRUE_WEIGHTS), torch.tensor([True, False, True]), NO_PRIOR)
    _, better = fit(chosen_by(TRUE_WEIGHTS), torch.tensor([True] * 3), NO_PRIOR)
    assert found[1] == 0
    assert worse > better


def test_padding_and_alternatives_that_stand_for_many_do_not_change_the_weights():
    whole = chosen_by(TRUE_WEIGHTS)
    found, _ = fit(whole, torch.tensor([True] * 3), NO_PRIOR)
    padded = ChoiceSets(
        torch.cat([whole.signals, torch.full((4000, 5, 3), 9.0)], 1),
        torch.cat([whole.correction, torch.full((4000, 5), -torch.inf)], 1),
    )
    assert fit(padded, torch.tensor([True] * 3), NO_PRIOR)[0].tolist() == pytest.approx(found.tolist(), abs=1e-3)
    # Half of the alternatives; each stands for two.
    kept = [0, *range(1, 20, 2)]
    correction = torch.tensor([0.0] + [float(torch.tensor(1.9).log())] * 10).expand(4000, -1)
    drawn, _ = fit(ChoiceSets(whole.signals[:, kept], correction), torch.tensor([True] * 3), NO_PRIOR)
    assert (drawn / drawn[0]).tolist() == pytest.approx((found / found[0]).tolist(), abs=0.1)


def test_few_choices_leave_the_weights_near_the_prior():
    few, many = chosen_by(-TRUE_WEIGHTS, count=60), chosen_by(-TRUE_WEIGHTS)
    free = torch.tensor([True] * 3)
    for choices in (few, many):
        without_prior, _ = fit(choices, free, NO_PRIOR)
        with_prior, _ = fit(choices, free, TRUE_WEIGHTS)
        assert torch.linalg.norm(with_prior - TRUE_WEIGHTS) < torch.linalg.norm(without_prior - TRUE_WEIGHTS)
    assert torch.linalg.norm(fit(many, free, TRUE_WEIGHTS)[0] + TRUE_WEIGHTS) < torch.linalg.norm(TRUE_WEIGHTS)


def test_a_non_negative_signal_gets_0_instead_of_a_negative_weight():
    choices = chosen_by(TRUE_WEIGHTS)
    found, _ = fit(choices, torch.tensor([True] * 3), NO_PRIOR, not_negative=(0, 1))
    without, _ = fit(choices, torch.tensor([True, False, True]), NO_PRIOR)
    assert found.tolist() == without.tolist()
    assert fit(choices, torch.tensor([True] * 3), NO_PRIOR, not_negative=(0,))[0][1] < 0
