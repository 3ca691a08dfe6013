"""How a ranker learns: from what users took, online and near its version, the same again with the same seed."""

import math

import numpy as np
import pytest
import torch
from torch.nn.utils import parameters_to_vector

from model.ranker.examples import Example
from model.ranker.learning import NEW_EXAMPLES, LearningRanker, copied, new_ranker
from model.ranker.network import Ranker, scores_of
from tests.model.ranker.choices import choices

FEATURES = 6
torch.set_num_threads(1)


def found_first(ranker: Ranker, examples: list[Example]) -> float:
    """Share of choices whose taken item has the highest score."""
    scores = [scores_of(ranker, example.features.astype(np.float32)) for example in examples]
    return float(np.mean([of_items.argmax() == 0 for of_items in scores]))


def weights(ranker: Ranker) -> torch.Tensor:
    return parameters_to_vector(ranker.parameters()).detach().clone()


def fitted(by: int = 2, seed: int = 0, count: int = 320) -> LearningRanker:
    learning = LearningRanker(new_ranker(FEATURES, 0, seed), FEATURES, seed, near=math.inf)
    learning.keep(choices(count, FEATURES, by, seed=seed))
    learning.standardise(untrained=True)
    learning.fit(20)
    return learning


def test_an_untrained_ranker_has_the_order_of_the_feature_that_it_starts_with():
    learning = LearningRanker(new_ranker(FEATURES, 3, seed=0), FEATURES, near=math.inf)
    learning.keep(choices(64, FEATURES, by=3))
    learning.standardise(untrained=True)
    assert found_first(learning.ranker, choices(50, FEATURES, by=3, seed=1)) == 1.0
    assert found_first(learning.ranker, choices(50, FEATURES, by=2, seed=1)) < 0.3


def test_a_fitted_ranker_puts_first_what_users_take():
    assert found_first(fitted(by=2).ranker, choices(100, FEATURES, by=2, seed=9)) > 0.7


def test_online_learning_follows_users_who_change():
    ranker = fitted(by=2).ranker
    online = LearningRanker(ranker, FEATURES, near=math.inf)
    online.add(choices(2000, FEATURES, by=4, seed=3))
    later = choices(100, FEATURES, by=4, seed=9)
    assert found_first(online.ranker, later) > found_first(ranker, later) + 0.15


def test_online_learning_stays_near_the_version_and_leaves_the_versions_own_ranker_as_it_is():
    ranker = fitted(by=2).ranker
    before = weights(ranker)
    online = LearningRanker(ranker, FEATURES, near=0.05)
    online.add(choices(1000, FEATURES, by=4, seed=3))
    moved = (weights(online.ranker) - before).norm()
    assert 0.9 * 0.05 * before.norm() < moved <= 0.05 * before.norm() * 1.0001
    assert torch.equal(weights(ranker), before)


def test_nothing_is_learned_before_there_are_examples_for_a_step():
    online = LearningRanker(fitted().ranker, FEATURES)
    before = weights(online.ranker)
    examples = choices(NEW_EXAMPLES, FEATURES, by=4)
    online.add(examples[:-1])
    assert torch.equal(weights(online.ranker), before)
    online.add(examples[-1:])
    assert not torch.equal(weights(online.ranker), before)


def test_the_same_seed_gives_the_same_ranker_whatever_else_draws_random_numbers():
    one = fitted(seed=1)
    torch.manual_seed(12345)
    state = torch.get_rng_state()
    other, third = fitted(seed=1), fitted(seed=2)
    assert torch.equal(torch.get_rng_state(), state), "nobody else's random numbers change"
    assert torch.equal(weights(one.ranker), weights(other.ranker))
    assert not torch.equal(weights(one.ranker), weights(third.ranker))


def test_after_a_new_version_only_examples_that_are_newer_than_it_are_learned_again():
    version = fitted(by=2).ranker
    online = LearningRanker(fitted(by=1, seed=5).ranker, FEATURES)
    examples = choices(256, FEATURES, by=4)
    online.add(examples)
    online.follow(version, learned_ts=examples[-1].ts)
    assert torch.equal(weights(online.ranker), weights(version))
    online.follow(version, learned_ts=examples[100].ts)
    assert not torch.equal(weights(online.ranker), weights(version))
    assert len(online.ring) == 256


def test_the_examples_of_an_erased_user_are_not_learned_any_more():
    online, without = (LearningRanker(fitted().ranker, FEATURES) for _ in range(2))
    online.add(choices(100, FEATURES, by=4, users=2))  # some wait for their step
    before = weights(online.ranker)
    for user in (1, 2):
        online.forget(user)
    online.fit(1)
    assert torch.equal(weights(online.ranker), before)
    without.fit(1)
    assert not (online.ring.take(online.ring.newest(100))[1] > 0).any()


@pytest.mark.parametrize("shift", [(1.0, 0.0), (1.4, 2.0), (0.2, -1.0)])
def test_features_that_are_standardised_again_keep_the_scores(shift):
    learning = fitted()
    scale, offset = shift
    features = np.concatenate([example.features for example in choices(400, FEATURES, by=1, seed=7)])
    moved = (features.astype(np.float32) * scale + offset).astype(np.float32)
    before, again = scores_of(learning.ranker, moved), copied(learning.ranker)
    again.standardise_again(moved)
    after = scores_of(again, moved)
    differences = (after - after.mean()) - (before - before.mean())
    assert np.quantile(np.abs(differences), 0.99) < 0.05 * before.std()  # the others were clipped
    assert again.spread.numpy() == pytest.approx(moved.std(0), abs=2e-3)


def test_a_feature_that_was_constant_at_first_cannot_take_over_when_it_begins_to_vary():
    learning = LearningRanker(new_ranker(FEATURES, 0, 0), FEATURES, near=math.inf)
    still = [example._replace(features=example.features.copy()) for example in choices(640, FEATURES, by=2)]
    for example in still:
        example.features[:, 5] = 0.0
    learning.keep(still)
    learning.standardise(untrained=True)
    learning.fit(6)
    moving = np.concatenate([example.features for example in choices(400, FEATURES, by=2, seed=3)]).astype(np.float32)
    before = scores_of(learning.ranker, moving)
    learning.ranker.standardise_again(moving)
    assert scores_of(learning.ranker, moving).std() < 2 * before.std() + 1
    assert all(torch.isfinite(parameter).all() for parameter in learning.ranker.parameters())
