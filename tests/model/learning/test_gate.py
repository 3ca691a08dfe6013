"""Every verdict of the gate, and that noise leads to no verdict."""

import numpy as np
import pytest

from model.learning import cycle as cycle_module
from model.learning.cycle import NO_SEQUENCES, CycleInput, CycleSettings, run_cycle
from model.learning.gate import Compared, Measured, Verdict, judge
from model.settings import GateSettings, RankingSettings, TrainingSettings
from state.graph import MemoryGraph
from state.sequences import from_events
from tests.model.examples import SMALL, STATE, cycling

GATE = GateSettings()
MISS_RANK = 10


def compared(champion: float, candidate: float, users: int = 400, seed: int = 0, independent: bool = True) -> Compared:
    """Two versions that rank the target first with these probabilities: independently, or at the same events."""
    draw = np.random.default_rng(seed)
    one = draw.random(users * 3)
    other = draw.random(users * 3) if independent else one
    return Compared(
        np.where(one < champion, 0, MISS_RANK),
        np.where(other < candidate, 0, MISS_RANK),
        np.repeat(np.arange(users, dtype=np.uint64), 3),
    )


def measured(newest: Compared, **other) -> Measured:
    usual = {
        "old": compared(0.3, 0.3),
        "shown": (500, 500),
        "seconds": ([0.01], [0.01]),
        "size_bytes": 1000,
        "finite": True,
        "new_events": 1000,
        "new_items": 7,
    }
    return Measured(newest=newest, **(usual | other))


def test_a_significantly_better_candidate_is_promoted():
    verdict = judge(measured(compared(0.2, 0.4)), GATE)
    assert verdict.promoted
    assert verdict.reason.startswith("promoted: significantly better on the newest events: NDCG@10 4")
    assert "on 1,200 newest events of 400 users" in verdict.reason


def test_a_verdict_keeps_the_interval_that_its_reason_names():
    verdict = judge(measured(compared(0.2, 0.4)), GATE)
    assert verdict.change is not None
    assert 0 < verdict.change.low < verdict.change.change < verdict.change.high
    assert f"{100 * verdict.change.change:+.1f}% [{100 * verdict.change.low:+.1f}" in verdict.reason
    assert judge(measured(compared(0.2, 0.4, users=10)), GATE).change is None


def test_a_significantly_worse_candidate_is_never_promoted():
    verdict = judge(measured(compared(0.4, 0.2), new_events=10**6), GATE)
    assert not verdict.promoted
    assert verdict.reason.startswith("champion kept: significantly worse on the newest events")


def test_noise_does_not_block_a_candidate_with_newer_events():
    verdicts = [judge(measured(compared(0.3, 0.3, 100, seed)), GATE) for seed in range(24)]
    # At 95% one of forty equal candidates is significantly worse by chance.
    assert sum(v.promoted for v in verdicts) >= 21
    undecided = [v.reason for v in verdicts if "not significantly worse" in v.reason]
    assert len(undecided) >= 20
    assert "it has learned 1,000 newer events and 7 newer items" in undecided[0]


def test_noise_does_not_promote_a_candidate_without_newer_events():
    verdicts = [judge(measured(compared(0.3, 0.3, 100, seed), new_events=0), GATE) for seed in range(24)]
    assert sum(v.promoted for v in verdicts) <= 3
    assert sum("has learned nothing new" in v.reason for v in verdicts) >= 20


def test_the_events_of_one_user_decide_nothing():
    newest = compared(1.0, 0.0)._replace(users=np.zeros(1200, np.uint64))
    verdict = judge(measured(newest), GATE)
    assert verdict.promoted
    assert "the newest events are of 1 user, too few for a comparison" in verdict.reason
    assert not judge(measured(newest, new_events=0), GATE).promoted


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (
            {"old": compared(0.6, 0.3)},
            "the candidate forgets: NDCG@10 of 400 users without new events falls from 5",
        ),
        (
            {"shown": (500, 200)},
            "the candidate recommends 200 different items, the champion 500; gate.coverage_share requires 50% of that",
        ),
        ({"finite": False}, "the candidate has weights that are not finite numbers"),
        ({"size_bytes": 5 << 30}, "the candidate has 5,368,709,120 bytes; gate.max_version_bytes allows 4,294,967,296"),
        (
            {"seconds": ([0.01, 0.01, 0.02], [0.03, 0.06, 0.07])},
            "the candidate takes 3.0 times as long to rank as the champion; gate.latency_ratio allows 2",
        ),
    ],
    ids=["forgot", "narrow", "not finite", "large", "slow"],
)
def test_a_candidate_beyond_a_limit_is_not_promoted_even_if_it_is_better(wrong, reason):
    verdict = judge(measured(compared(0.2, 0.4), **wrong), GATE)
    assert verdict == Verdict(False, verdict.reason, "kept", verdict.change)
    assert verdict.change is not None
    assert verdict.reason.startswith(f"champion kept: {reason}")


def test_a_little_forgetting_is_allowed_and_noise_does_not_count_as_forgetting():
    for seed in range(10):
        assert judge(measured(compared(0.2, 0.4), old=compared(0.6, 0.57, seed=seed, independent=False)), GATE).promoted
        assert judge(measured(compared(0.2, 0.4), old=compared(0.3, 0.3, users=40, seed=seed)), GATE).promoted


def test_a_candidate_may_recommend_slightly_fewer_items():
    assert judge(measured(compared(0.2, 0.4), shown=(500, 260)), GATE).promoted


def test_a_busy_machine_makes_no_candidate_slow():
    assert judge(measured(compared(0.2, 0.4), seconds=([0.01, 0.01, 0.01], [0.09, 0.01, 0.05])), GATE).promoted


def test_a_first_version_is_promoted_if_its_weights_are_finite():
    first = measured(compared(0.0, 0.0), new_events=0)
    assert judge(first, GATE, first=True) == Verdict(True, "promoted: the first version")
    assert not judge(first._replace(finite=False), GATE, first=True).promoted


def cycle(champion, events, arrived, old=NO_SEQUENCES, **training):
    graph = MemoryGraph(STATE)
    graph.apply(events)
    new = np.unique(events["item"])
    new = new if champion is None else new[champion.vocabulary.lookup(new) == 0]
    settings = {"warm_up_epochs": 2, "epochs": 6, "increment_warm_up_epochs": 0} | training
    ranking = RankingSettings(evidence_weight=0.0)
    names = {i: str(i) for i in new.tolist()}
    cycle_input = CycleInput(from_events(events), names, graph.rows, 0, arrived, old)
    parent = "000001" if champion else None
    return run_cycle(
        champion, cycle_input, CycleSettings(SMALL, TrainingSettings(**settings), ranking, STATE), parent=parent
    )


@pytest.fixture(scope="module")
def circles():
    """A stream of 100 users who click items in a circle, and a version that learned three quarters of it."""
    events = cycling(users=100, items=20, steps=16)
    return events, cycle(None, events[:1200], None, last_epochs=30)


def test_a_cycle_that_learns_as_the_champion_did_is_promoted(circles):
    events, champion = circles
    candidate = cycle(champion, events, events[1200:])
    assert candidate.verdict.promoted
    assert candidate.metrics.keys() >= {"ndcg@10", "champion_ndcg@10"}


def test_forgetting_is_measured_on_users_without_new_events(circles):
    events, champion = circles
    others = cycling(users=100, items=20, steps=16)
    others["item"] = np.random.default_rng(1).permutation(others["item"])
    others["user"] += 10**6
    old = from_events(events[:1200])
    candidate = cycle(champion, others, None, old, increment_learning_rate=0.05, increment_epochs=12)
    assert not candidate.verdict.promoted
    assert "the candidate forgets: NDCG@10 of 100 users without new events falls" in candidate.verdict.reason


def test_a_candidate_is_not_tested_on_events_that_the_champion_learned(circles, monkeypatch):
    events, champion = circles
    tested = []
    real = cycle_module.Holdout
    monkeypatch.setattr(
        cycle_module, "Holdout", lambda past, held, state: tested.append(held) or real(past, held, state)
    )
    cycle(champion, events, events[1500:])
    # A quarter of the hundred new events.
    assert len(tested[0].steps) == 25
    assert tested[0].steps["ts"].min() > events["ts"][1500]
