"""Filters: items that must not be recommended. The same filters serve the fused scores and candidate items.

    for everybody   without_item, withdrawn, expired    which of some columns are dropped
    for a user      hidden, seen                        pairs of a user's row and a column

To add a filter, write a function here and add it to FOR_EVERYBODY or FOR_USERS. Columns are those of
`model.ranking.catalogue`.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from model.encoders.vocabulary import Indices
from model.ranking.candidates import Candidates
from model.ranking.catalogue import ColumnsOf
from model.ranking.item_counts import ItemCounts
from state.events import Floats, Ids


class Rules(NamedTuple):
    """What the filters look at, for a batch of B users."""

    hashes: Ids
    """[columns] item of each column; 0 for padding and free columns."""
    columns_of: ColumnsOf
    counts: ItemCounts | None
    """Clicks that are left of each item; None where events do not expire."""
    withdrawn: Ids
    hidden: Sequence[Ids]
    """The items that each user has hidden; empty where nobody has."""
    seen_user: Indices
    """Rows of users and columns of the steps of their sequences, where these items are left out."""
    seen_column: Indices


def without_item(rules: Rules, columns: Indices) -> np.ndarray:
    """Padding and free columns."""
    found: np.ndarray = rules.hashes[columns] == 0
    return found


def withdrawn(rules: Rules, columns: Indices) -> np.ndarray:
    """Items that an operator has withdrawn."""
    if not len(rules.withdrawn):
        return np.zeros(len(columns), bool)
    return np.isin(columns, rules.columns_of(rules.withdrawn))


def expired(rules: Rules, columns: Indices) -> np.ndarray:
    """Items without a click left."""
    return np.zeros(len(columns), bool) if rules.counts is None else ~rules.counts.has_clicks(columns)


def hidden(rules: Rules) -> tuple[Indices, Indices]:
    """The items that each user has hidden."""
    if not any(map(len, rules.hidden)):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    rows = np.repeat(np.arange(len(rules.hidden)), [len(items) for items in rules.hidden])
    return rows, rules.columns_of(np.concatenate(rules.hidden))


def seen(rules: Rules) -> tuple[Indices, Indices]:
    """Items of the users' own sequences."""
    return rules.seen_user, rules.seen_column


FOR_EVERYBODY: tuple[Callable[[Rules, Indices], np.ndarray], ...] = (without_item, withdrawn, expired)
FOR_USERS: tuple[Callable[[Rules], tuple[Indices, Indices]], ...] = (hidden, seen)


def dropped_for_everybody(columns: Indices, rules: Rules) -> np.ndarray:
    """[n] bool: whether a column of [n] is dropped for all users."""
    found: np.ndarray = np.logical_or.reduce([dropped(rules, columns) for dropped in FOR_EVERYBODY])
    return found


def dropped_for_users(rules: Rules) -> tuple[Indices, Indices]:
    """Rows of users and columns that are dropped for one user each."""
    users, columns = zip(*(dropped(rules) for dropped in FOR_USERS), strict=True)
    return np.concatenate(users), np.concatenate(columns)


def drop_scores(scores: Tensor, rules: Rules) -> None:
    """Set scores [B, C] to -inf, in place. A column beyond C got its item later, and has no score."""
    columns = np.flatnonzero(dropped_for_everybody(np.arange(scores.shape[1]), rules))
    scores.index_fill_(1, torch.from_numpy(columns), -torch.inf)
    users, columns = dropped_for_users(rules)
    scored = columns < scores.shape[1]
    scores[torch.from_numpy(users[scored]), torch.from_numpy(columns[scored])] = -torch.inf


def drop_candidates(scores: Floats, items: Candidates, rules: Rules) -> None:
    """Set scores [M] of candidate items to -inf, in place."""
    scores[dropped_for_everybody(items.column, rules)] = -np.inf
    users, columns = dropped_for_users(rules)
    if len(users):
        at, known = items.places(users, columns)
        scores[at[known]] = -np.inf
