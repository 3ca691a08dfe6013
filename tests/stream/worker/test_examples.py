"""From a list to the example that the user's next event makes of it, with the features that it was ranked by."""

import numpy as np
import pytest

from model.ranker.examples import Shown
from state.events import EVENT
from state.kinds import code_of, kinds_of
from state.settings import StateSettings
from stream.worker import examples
from stream.worker.examples import LastShown, Made

KINDS = kinds_of(StateSettings())
ANN, BOB, CAT = 1, 2, 3
MILK, TEA, BREAD = 11, 12, 13


class Clock:
    """Seconds that a test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def listed(moment: int = 1_000, items: tuple[int, ...] = (MILK, TEA, BREAD)) -> Shown:
    features = np.arange(2 * len(items), dtype=np.float16).reshape(-1, 2) + np.float16(moment % 100)
    return Shown(np.array(items, np.uint64), features, moment)


def clicks(*events: tuple[int, int, int], kind: str = "click") -> np.ndarray:
    found = np.zeros(len(events), EVENT)
    for at, (user, item, ts) in enumerate(events):
        found[at]["user"], found[at]["item"], found[at]["ts"] = user, item, ts
    found["kind"] = code_of(kind)
    return found


def joined(last: LastShown, *events: tuple[int, int, int], kind: str = "click") -> Made:
    return last.join(clicks(*events, kind=kind), KINDS)


def test_a_click_makes_an_example_with_the_features_that_the_list_was_ranked_by():
    last = LastShown()
    shown = listed()
    last.remember(ANN, shown, "000001")
    [example] = joined(last, (BOB, MILK, 2_000), (ANN, TEA, 3_000)).examples
    assert (example.user, example.moment, example.ts, example.version) == (ANN, 1_000, 3_000, "000001")
    assert example.items[0] == TEA
    by_item = dict(zip(shown.items.tolist(), shown.features.tolist(), strict=True))
    assert dict(zip(example.items.tolist(), example.features.tolist(), strict=True)) == by_item


def test_a_list_makes_one_example_and_the_newest_list_counts():
    last = LastShown()
    last.remember(ANN, listed(1_000), "000001")
    last.remember(ANN, listed(2_000), "000002")
    made = joined(last, (ANN, TEA, 3_000), (ANN, MILK, 4_000))
    assert [(e.moment, e.version) for e in made.examples] == [(2_000, "000002")]
    assert not len(last)


def test_an_item_that_was_no_candidate_is_missed_and_takes_the_list():
    last = LastShown()
    last.remember(ANN, listed(), "000001")
    assert joined(last, (ANN, 99, 2_000)) == Made([], 1)
    assert joined(last, (ANN, MILK, 3_000)) == Made([], 0)


@pytest.mark.parametrize(("kind", "ts"), [("hide", 2_000), ("dislike", 2_000), ("click", 999)])
def test_what_is_no_choice_and_what_is_older_than_the_list_leaves_it_waiting(kind, ts):
    last = LastShown()
    last.remember(ANN, listed(1_000), "000001")
    assert joined(last, (ANN, TEA, ts), kind=kind) == Made([], 0)
    assert len(joined(last, (ANN, TEA, 3_000)).examples) == 1


def test_a_forgotten_users_list_is_gone_also_where_it_was_being_ranked():
    last = LastShown()
    last.choose([ANN, BOB])
    last.remember(BOB, listed(), "000001")
    last.forget([ANN, BOB])
    last.remember(ANN, listed(), "000001")  # the ranking that had begun
    assert not len(last)
    last.choose([ANN])
    last.remember(ANN, listed(), "000001")  # the user has come back
    assert len(last) == 1


def test_a_full_memory_drops_a_random_list_so_that_old_ones_may_stay(monkeypatch):
    monkeypatch.setattr(examples, "MAX_WAITING", 100)
    last = LastShown()
    for user in range(1, 201):
        last.remember(user, listed(), "000001")
    assert len(last) == 100
    made = joined(last, *((user, MILK, 2_000) for user in range(1, 201))).examples
    old = sum(example.user <= 100 for example in made)
    assert len(made) == 100
    assert 15 < old < 60  # 37 of 100 survive as many draws on average


def test_of_many_rankings_a_random_sample_is_kept_at_a_bounded_rate():
    clock = Clock()
    last = LastShown(clock=clock)
    kept = [last.choose(range(1, 1_001))]
    for _ in range(20):
        clock.now += 0.5
        kept.append(last.choose(range(1, 1_001)))
    assert [len(users) for users in kept] == [50] + [25] * 20
    assert len(set().union(*kept)) > 300, "not always the same users"
    clock.now += 60
    assert last.choose([ANN, BOB]) == {ANN, BOB}, "a quiet worker keeps all"


def test_with_another_future_the_examples_up_to_now_are_identical(monkeypatch):
    """Sixty users come and go; after event 300 the two streams have nothing in common."""
    monkeypatch.setattr(examples, "MAX_WAITING", 40)

    def run(future: int) -> list[tuple[object, ...]]:
        clock, draw, other = Clock(), np.random.default_rng(0), np.random.default_rng(future)
        last, made = LastShown(clock=clock), []
        for at in range(400):
            source = draw if at < 300 else other
            user, item = int(source.integers(1, 60)), int(source.integers(1, 120))
            made += joined(last, (user, item, 1_000 + at)).examples
            clock.now += 0.01
            if user in last.choose([user]):
                last.remember(user, listed(1_000 + at, tuple(range(1, 101))), "000001")
        return [(e.user, e.ts, e.items.tolist(), e.features.tobytes(), e.stands_for.tobytes()) for e in made]

    one, two = run(1), run(2)
    assert [e for e in one if e[1] < 1_300] == [e for e in two if e[1] < 1_300]  # type: ignore[operator]
    assert one != two
