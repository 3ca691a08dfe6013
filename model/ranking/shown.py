"""What was shown to each user, for the examples that the ranker learns from."""

import numpy as np

from model.ranker.examples import Shown
from model.ranking.candidates import Candidates
from model.ranking.context import Context
from state.events import Floats
from state.kinds import Mask


def shown_of(context: Context, items: Candidates, features: Floats, offered: Mask) -> list[Shown | None]:
    """The candidate items of each user with the features [M, F] by which they were ranked, with 16 bits each.

    Only those that no filter takes out, `offered` [M]: a user who takes another one has not chosen among these.
    """
    found: list[Shown | None] = [None] * context.users
    packed, hashes = features.astype(np.float16, order="C"), context.catalogue.hashes[items.column]
    for start, length in zip(items.starts.tolist(), items.lengths.tolist(), strict=True):
        user, part = int(items.user[start]), start + np.flatnonzero(offered[start : start + length])
        found[user] = Shown(hashes[part], packed[part], int(context.moments[user]))
    return found
