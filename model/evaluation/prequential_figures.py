"""The figures of a prequential run: means, also by kind of test, leads with intervals, and curves.

Tests are grouped in three ways (`groups_of`):

    first visits, repeats     whether the item is in the user's own history
    item ...                  age: event time since the first event of the item
    history ...               events in the user's history
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from model.evaluation.learner import Learner
from model.evaluation.reports import (
    Curves,
    GroupFigures,
    GroupOfTests,
    Interval,
    LeadOver,
    PrequentialFigures,
    PrequentialReport,
    StreamEvents,
)
from model.metrics import CUTOFF, Ranks, gains, summary
from state.events import Ids, Ints

LEADER = "create"
"""The row whose leads are measured."""
ROLLING_EVENTS = 2_000
CURVE_POINTS = 200
DRAWS = 1_000
"""Resamplings of the users for the intervals."""
DRAWN_AT_ONCE = 4_000_000
"""Numbers of a resampling that are in memory at once."""
DAY_MS, WEEK_MS = 86_400_000, 7 * 86_400_000

Mask = npt.NDArray[np.bool_]


class RunResult(NamedTuple):
    """The results of all tests."""

    ranks: dict[str, Ranks]
    """[T] rank of each target in the list of each model, or NOT_FOUND."""
    at: np.ndarray
    """[T] approximate event number of each test in the stream."""
    users: Ids
    new: np.ndarray
    """[T] whether the item occurred before but the serving version does not know it."""
    own: np.ndarray
    """[T] whether the item is in the user's own history."""
    age_ms: Ints
    """[T] event time since the item's first event; -1 if it never occurred before."""
    history: Ints
    """[T] events in the user's history."""


def report(tested: RunResult, learners: dict[str, Learner]) -> PrequentialReport:
    """The report of a run."""
    last_quarter = np.arange(len(tested.at)) >= len(tested.at) * 0.75
    points = np.unique(
        np.linspace(min(ROLLING_EVENTS // 4, len(tested.at)) - 1, len(tested.at) - 1, CURVE_POINTS).astype(int)
    )
    groups = groups_of(tested)
    every = np.ones(len(tested.at), np.bool_)
    over_all, *over_groups = leads(tested.ranks, tested.users, [every, *groups.values()])
    return PrequentialReport(
        protocol="prequential",
        events=StreamEvents(len(tested.at), int(tested.new.sum())),
        models={name: figures(ranks, last_quarter, tested.new) for name, ranks in tested.ranks.items()},
        versions={name: learner.cycles for name, learner in learners.items() if learner.cycles},
        curves=Curves(
            event=tested.at[points].tolist(),
            rolling_hit={name: rolling(ranks)[points].round(5).tolist() for name, ranks in tested.ranks.items()},
        ),
        leads=over_all,
        groups={
            name: GroupOfTests(
                int(chosen.sum()), {row: group_figures(ranks[chosen]) for row, ranks in tested.ranks.items()}, over
            )
            for (name, chosen), over in zip(groups.items(), over_groups, strict=True)
        },
    )


def groups_of(tested: RunResult) -> dict[str, Mask]:
    """[T] which tests each group has, by its name; groups without a test are left out."""
    age, history = tested.age_ms, tested.history
    groups = {
        "first visits": ~tested.own,
        "repeats": tested.own,
        "item's first event": age < 0,
        "item < 1 day old": (age >= 0) & (age < DAY_MS),
        "item < 1 week old": (age >= DAY_MS) & (age < WEEK_MS),
        "item older": age >= WEEK_MS,
        "history 1": history == 1,
        "history 2-4": (history >= 2) & (history <= 4),
        "history 5-14": (history >= 5) & (history <= 14),
        "history 15+": history >= 15,
    }
    return {name: np.asarray(chosen) for name, chosen in groups.items() if chosen.any()}


def figures(ranks: Ranks, last_quarter: np.ndarray, new: np.ndarray) -> PrequentialFigures:
    """Means over one model's tests."""
    means = summary(ranks)

    def hit(chosen: np.ndarray) -> float | None:
        return round(float((ranks[chosen] < CUTOFF).mean()), 6) if chosen.any() else None

    return PrequentialFigures(means["recall@10"], means["ndcg@10"], means["mrr"], hit(last_quarter), hit(new))


def group_figures(ranks: Ranks) -> GroupFigures:
    """Means over one model's tests of a group."""
    means = summary(ranks)
    return GroupFigures(means["recall@10"], means["ndcg@10"], means["mrr"])


def leads(ranks: dict[str, Ranks], users: Ids, groups: list[Mask], seed: int = 0) -> list[dict[str, LeadOver]]:
    """For each group of tests [T], the lead of LEADER over each other row; nothing where LEADER has no row.

    The intervals are from a bootstrap over users, whose events are not independent. All rows and groups see the same
    resampled users.
    """
    others = [name for name in ranks if name != LEADER]
    if LEADER not in ranks or not others:
        return [{} for _ in groups]
    of_user, numbers = np.unique(users, return_inverse=True)
    people = len(of_user)

    def sums(values: npt.NDArray[np.float64], chosen: Mask) -> npt.NDArray[np.float64]:
        return np.bincount(numbers[chosen], values[chosen], people).astype(np.float64)

    rows = [LEADER, *others]
    # Columns: for each group the number of tests, and then hits and gains of each row
    columns = []
    for chosen in groups:
        columns.append(sums(np.ones(len(users)), chosen))
        for name in rows:
            columns += [sums((ranks[name] < CUTOFF).astype(float), chosen), sums(gains(ranks[name]), chosen)]
    of_users = np.stack(columns, 1)
    draw, at_once = np.random.default_rng(seed), max(DRAWN_AT_ONCE // people, 1)
    parts = [of_users.sum(0)[None]]
    for start in range(0, DRAWS, at_once):
        drawn = draw.multinomial(people, np.full(people, 1 / people), min(at_once, DRAWS - start))
        parts.append(drawn @ of_users)
    # [1 + DRAWS, group, 1 + 2 · row]; the first is not resampled
    every = np.concatenate(parts).reshape(1 + DRAWS, len(groups), 1 + 2 * len(rows))
    return [
        {name: _lead_over(every[:, group], 2 * place) for place, name in enumerate(others, 1)}
        for group in range(len(groups))
    ]


def _lead_over(sums: npt.NDArray[np.float64], place: int) -> LeadOver:
    """The lead of the first row over the row whose hits and gains are at `1 + place` of sums [1 + DRAWS, columns]."""
    tests, hits, gained = sums[:, 0], sums[:, 1], sums[:, 2]
    points = (hits - sums[:, 1 + place]) / np.maximum(tests, 1)
    other = sums[:, 2 + place]
    relative = _interval(gained / np.maximum(other, 1e-12) - 1) if other[0] > 0 and (other > 0).mean() > 0.99 else None
    return LeadOver(_interval(points), relative)


def _interval(drawn: npt.NDArray[np.float64]) -> Interval:
    low, high = np.percentile(drawn[1:], [2.5, 97.5])
    return Interval(*(round(float(value), 6) for value in (drawn[0], low, high)))


def rolling(ranks: Ranks, events: int = ROLLING_EVENTS) -> np.ndarray:
    """[T] Hit@10 of the newest `events` tests up to each test."""
    hits = np.concatenate([[0], np.cumsum(ranks < CUTOFF)])
    end = np.arange(1, len(ranks) + 1)
    begin = np.maximum(end - events, 0)
    return np.asarray((hits[end] - hits[begin]) / (end - begin))
