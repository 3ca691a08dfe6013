"""Filters of items that must not be recommended. Each filter sets scores [B, C] to -inf, in place.

To add a filter, write a function here and call it in `Stages.rank`, before the top k. Columns are those of
`model.ranking.catalogue`; columns from `Catalogue.first_fresh` on belong to fresh items, which no version knows. A
column beyond C belongs to an item that got it after the scores were computed. It is skipped.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from model.encoders.vocabulary import Indices
from model.ranking.catalogue import ColumnsOf
from state.events import Ids


def drop_columns(scores: Tensor, columns: Tensor) -> None:
    """Drop columns for all users: padding, free columns, withdrawn items, or items without a click left."""
    scores.index_fill_(1, columns[columns < scores.shape[1]], -torch.inf)


def drop_hidden(scores: Tensor, hidden: Sequence[Ids], columns_of: ColumnsOf) -> None:
    """Drop the items that each user has hidden; `hidden` has an array for each user."""
    for row, items in enumerate(hidden):
        if len(items):
            columns = columns_of(items)
            scores[row, torch.from_numpy(columns[columns < scores.shape[1]])] = -torch.inf


def drop_seen(scores: Tensor, users: Indices, columns: Indices) -> None:
    """Drop items of the users' own sequences, given as pairs of row [M] and column [M]."""
    scores[torch.from_numpy(users), torch.from_numpy(columns)] = -torch.inf
