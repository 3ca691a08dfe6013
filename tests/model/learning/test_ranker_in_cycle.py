"""The ranker of a cycle: where a first one comes from, what a later one learns, when the fusion serves instead."""

import functools

import numpy as np
import pytest
import torch
from torch.nn.utils import parameters_to_vector

from model.learning import ranker_in_cycle
from model.learning.ranker_in_cycle import SERVES, TOO_FEW, WORSE
from model.learning.trained import Trained
from model.ranker.examples import Example
from model.ranker.learning import MIN_EXAMPLES, copied, new_ranker
from model.ranking.features import AT, NAMES, START
from state.events import Records
from tests.model.examples import cycling, learned
from tests.model.ranker.choices import choices


@functools.cache
def clicks() -> Records:
    """720 clicks of 60 users: the newest 72 are held out."""
    return cycling(users=60, items=20)


@functools.cache
def first() -> Trained:
    return learned(clicks(), ranker=True)


def held_out_from() -> int:
    """Event time of the first held-out event of `clicks`."""
    return int(np.sort(clicks()["ts"])[-72])


def shown(count: int, first_ts: int, by: int = AT["next_1"], seed: int = 0) -> list[Example]:
    """Examples of a worker: users took the item with the highest feature `by`."""
    return choices(count, len(NAMES), by, seed=seed, first_ts=first_ts)


def weights(trained: Trained) -> torch.Tensor:
    assert trained.ranker is not None
    return parameters_to_vector(trained.ranker.parameters()).detach()


def test_a_first_version_gets_its_ranker_from_events_that_are_ranked_again_as_they_came():
    trained = first()
    assert trained.ranker is not None
    assert trained.metrics["ranker"] == SERVES
    assert trained.metrics["ranker_examples"] >= MIN_EXAMPLES
    assert trained.ranker_ts == clicks()["ts"].max()
    assert trained.metrics["ndcg@10"] > 0.9, "the next item is certain"


def test_the_events_before_the_held_out_ones_are_ranked_without_the_encoder_that_has_learned_them(monkeypatch):
    seen = []

    def learn(self, examples, *, judge=True, real=ranker_in_cycle.RankerInCycle._learn):
        seen.extend((example.ts, np.abs(example.features[:, AT["encoder"]]).max()) for example in examples)
        real(self, examples, judge=judge)

    monkeypatch.setattr(ranker_in_cycle.RankerInCycle, "_learn", learn)
    learned(clicks())
    earlier = [encoder for ts, encoder in seen if ts < held_out_from()]
    held_out = [encoder for ts, encoder in seen if ts >= held_out_from()]
    assert len(earlier) > 100
    assert max(earlier) == 0.0
    assert min(held_out) > 0.0


def test_with_few_events_or_switched_off_there_is_no_ranker():
    few = learned(cycling(users=10))
    assert (few.ranker, few.ranker_ts, few.metrics["ranker"]) == (None, 0, TOO_FEW)
    off = learned(clicks(), ranker=False)
    assert (off.ranker, off.ranker_ts) == (None, 0)
    assert "ranker" not in off.metrics


def test_a_later_version_goes_on_with_the_champions_ranker_and_the_examples_that_are_newer():
    champion = first()
    old = shown(100, first_ts=champion.ranker_ts - 200_000)
    same = learned(clicks(), champion, examples=old)
    assert same.ranker_ts == champion.ranker_ts
    new = shown(300, first_ts=champion.ranker_ts + 1000)
    candidate = learned(clicks(), champion, examples=[*old, *new])
    assert candidate.ranker_ts == new[-1].ts
    assert not torch.equal(weights(candidate), weights(same))
    assert len(weights(candidate)) == len(weights(champion))


def test_the_champions_own_ranker_stays_as_it_is():
    champion = first()
    before = weights(champion).clone()
    learned(clicks(), champion, examples=shown(300, first_ts=champion.ranker_ts + 1000))
    assert torch.equal(weights(champion), before)


def test_examples_of_the_held_out_time_change_the_published_ranker_and_not_what_is_measured():
    champion = first()._replace(ranker_ts=held_out_from() - 500_000)
    before = shown(256, first_ts=held_out_from() - 400_000)
    one, other = (shown(256, first_ts=held_out_from(), by=by, seed=by) for by in (AT["next_1"], AT["own_90"]))
    found = [learned(clicks(), champion, examples=[*before, *after]) for after in (one, other)]
    assert found[0].metrics["ndcg@10"] == found[1].metrics["ndcg@10"]
    assert found[0].metrics["hit@10"] == found[1].metrics["hit@10"]
    assert not torch.equal(weights(found[0]), weights(found[1]))


def test_a_first_ranker_is_fitted_to_a_workers_examples_where_there_are_enough(monkeypatch):
    monkeypatch.setattr(ranker_in_cycle.RankerInCycle, "replay", None)
    without = learned(clicks(), ranker=False)
    enough = shown(MIN_EXAMPLES, first_ts=held_out_from() - 1000 * (MIN_EXAMPLES + 1))
    candidate = learned(clicks(), without, examples=enough)
    assert candidate.metrics["ranker"] == SERVES
    assert candidate.ranker_ts == enough[-1].ts


def test_a_ranker_that_is_significantly_worse_than_the_fused_score_does_not_serve():
    champion = first()
    against = new_ranker(len(NAMES), START, 0)
    with torch.no_grad():
        against.linear.weight *= -1
    fused = shown(200, first_ts=champion.ranker_ts + 1000, by=START)
    candidate = learned(clicks(), champion._replace(ranker=against), examples=fused)
    assert candidate.metrics["ranker"] == WORSE
    assert candidate.metrics["ranker_high"] < 0
    assert (candidate.ranker, candidate.ranker_ts) == (None, 0)


def test_examples_with_other_columns_are_skipped():
    champion = first()
    other = choices(300, len(NAMES) - 1, 0, first_ts=champion.ranker_ts + 1000)
    candidate = learned(clicks(), champion, examples=other)
    assert candidate.ranker_ts == champion.ranker_ts


def test_a_ranker_with_weights_that_are_not_finite_is_not_promoted():
    champion = first()
    broken = copied(champion.ranker)
    with torch.no_grad():
        broken.linear.weight[0, 3] = torch.nan
    verdict = learned(clicks(), champion._replace(ranker=broken)).verdict
    assert not verdict.promoted
    assert "finite" in verdict.reason


@pytest.mark.parametrize("seed", [0, 1])
def test_a_cycle_gives_the_same_ranker_for_the_same_seed(seed):
    examples = shown(300, first_ts=first().ranker_ts + 1000)
    one, other = (learned(clicks(), first(), seed=seed, examples=examples) for _ in range(2))
    assert torch.equal(weights(one), weights(other))
