"""What the version's model says of a candidate item."""

import numpy as np

from model.ranking.candidates import Candidates
from model.ranking.context import Context
from model.ranking.fusion import Fusion
from state.events import Floats

MODEL = ("encoder", "known", "fused")


def model(context: Context, items: Candidates, fusion: Fusion, out: Floats) -> None:
    """E h_u, whether the version knows the item, and the fused score less the best one; filled by `compute`."""
    if context.encoded is not None:
        table = context.catalogue.table.numpy()
        encoded = context.encoded.numpy()
        out[:, 0] = np.einsum("md,md->m", encoded[items.user], table[items.column])
    out[:, 1] = items.column < context.catalogue.first_fresh
