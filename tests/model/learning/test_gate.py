"""Who serves: every verdict, and that chance gives none of them."""

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
MISSED = 10


def compared(champion: float, candidate: float, users: int = 400, seed: int = 0, apart: bool = True) -> Compared:
    """Two versions that put what came first with these probabilities, each event apart or as the other does."""
    draw = np.random.default_rng(seed)
    one = draw.random(users * 3)
    other = draw.random(users * 3) if apart else one
    return Compared(
        np.where(one < champion, 0, MISSED),
        np.where(other < candidate, 0, MISSED),
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


def test_a_better_candidate_is_promoted_for_that():
    verdict = judge(measured(compared(0.2, 0.4)), GATE)
    assert verdict.promoted
    assert verdict.reason.startswith("promoted: significantly better on the newest events: NDCG@10 4")
    assert "on 1,200 newest events of 400 users" in verdict.reason


def test_a_worse_candidate_is_not_promoted_whatever_it_has_learned():
    verdict = judge(measured(compared(0.4, 0.2), new_events=10**6), GATE)
    assert not verdict.promoted
    assert verdict.reason.startswith("champion kept: significantly worse on the newest events")


def test_noise_does_not_block_a_candidate_that_knows_more():
    verdicts = [judge(measured(compared(0.3, 0.3, 100, seed)), GATE) for seed in range(24)]
    # At 95% one in forty is taken for worse though it is not.
    assert sum(v.promoted for v in verdicts) >= 21
    undecided = [v.reason for v in verdicts if "not significantly worse" in v.reason]
    assert len(undecided) >= 20
    assert "it has learned 1,000 newer events and 7 newer items" in undecided[0]


def test_noise_does_not_promote_a_candidate_that_knows_nothing_more():
    verdicts = [judge(measured(compared(0.3, 0.3, 100, seed), new_events=0), GATE) for seed in range(24)]
    assert sum(v.promoted for v in verdicts) <= 3
    assert sum("has learned nothing new" in v.reason for v in verdicts) >= 20


def test_one_users_events_decide_nothing():
    newest = compared(1.0, 0.0)._replace(users=np.zeros(1200, np.uint64))
    verdict = judge(measured(newest), GATE)
    assert verdict.promoted
    assert "the newest events are of 1 user, too few for a comparison" in verdict.reason
    assert not judge(measured(newest, new_events=0), GATE).promoted


@pytest.mark.parametrize(
    ("wrong", "said"),
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
def test_nothing_on_the_newest_events_makes_up_for(wrong, said):
    verdict = judge(measured(compared(0.2, 0.4), **wrong), GATE)
    assert verdict == Verdict(False, verdict.reason, "kept")
    assert verdict.reason.startswith(f"champion kept: {said}")


def test_a_little_forgetting_is_allowed_and_luck_is_not_forgetting():
    for seed in range(10):
        assert judge(measured(compared(0.2, 0.4), old=compared(0.6, 0.57, seed=seed, apart=False)), GATE).promoted
        assert judge(measured(compared(0.2, 0.4), old=compared(0.3, 0.3, users=40, seed=seed)), GATE).promoted


def test_a_candidate_may_show_somewhat_fewer_items():
    assert judge(measured(compared(0.2, 0.4), shown=(500, 260)), GATE).promoted


def test_a_busy_machine_makes_no_candidate_slow():
    assert judge(measured(compared(0.2, 0.4), seconds=([0.01, 0.01, 0.01], [0.09, 0.01, 0.05])), GATE).promoted


def test_a_first_version_needs_nothing_but_to_be_sound():
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
    """A stream of 100 users who go round, and the version that learned the first three quarters of it."""
    events = cycling(users=100, items=20, steps=16)
    return events, cycle(None, events[:1200], None, last_epochs=30)


def test_a_cycle_that_learns_as_the_champion_did_is_promoted(circles):
    events, champion = circles
    candidate = cycle(champion, events, events[1200:])
    assert candidate.verdict.promoted
    assert candidate.metrics.keys() >= {"ndcg@10", "champion_ndcg@10"}


def test_users_without_new_events_tell_what_was_forgotten(circles):
    events, champion = circles
    others = cycling(users=100, items=20, steps=16)
    others["item"] = np.random.default_rng(1).permutation(others["item"])
    others["user"] += 10**6
    old = from_events(events[:1200])
    candidate = cycle(champion, others, None, old, increment_learning_rate=0.05, increment_epochs=12)
    assert not candidate.verdict.promoted
    assert "the candidate forgets: NDCG@10 of 100 users without new events falls" in candidate.verdict.reason


def test_a_candidate_is_tested_on_nothing_that_the_champion_learned(circles, monkeypatch):
    events, champion = circles
    tested = []
    real = cycle_module.Holdout
    monkeypatch.setattr(
        cycle_module, "Holdout", lambda past, held, state: tested.append(held) or real(past, held, state)
    )
    cycle(champion, events, events[1500:])
    # A quarter of the hundred new ones.
    assert len(tested[0].steps) == 25
    assert tested[0].steps["ts"].min() > events["ts"][1500]
