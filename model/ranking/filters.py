"""What must not be recommended. Each filter sets scores [B, C] to -inf, in place.

To add a filter, write a function here and call it in `Ranker.rank`, before the top k. Columns are those of
`model.ranking.catalogue`: columns from `Catalogue.first_fresh` on are of fresh items, which no version knows. A column
beyond C is of an item that got it after the scores were computed, and is skipped.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from model.encoders.vocabulary import Indices
from model.ranking.catalogue import ColumnsOf
from state.events import Ids


def drop_columns(scores: Tensor, columns: Tensor) -> None:
    """No user gets these columns: padding, free ones, or items without a click left."""
    scores.index_fill_(1, columns[columns < scores.shape[1]], -torch.inf)


def drop_hidden(scores: Tensor, hidden: Sequence[Ids], columns_of: ColumnsOf) -> None:
    """No user gets an item that this user has hidden; items user by user."""
    for row, items in enumerate(hidden):
        if len(items):
            columns = columns_of(items)
            scores[row, torch.from_numpy(columns[columns < scores.shape[1]])] = -torch.inf


def drop_seen(scores: Tensor, users: Indices, columns: Indices) -> None:
    """No user [M] gets an item [M] of that user's own sequence."""
    scores[torch.from_numpy(users), torch.from_numpy(columns)] = -torch.inf
