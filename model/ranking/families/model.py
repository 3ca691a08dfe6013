"""What the version's model says of a candidate item.

encoder  E h_u: the signal MODEL
known    1 where the version knows the item, 0 where its row is provisional
"""

import numpy as np

from model.ranking.candidates import Candidates
from model.ranking.context import Context
from model.ranking.families.columns import Columns
from model.ranking.fusion import Fusion

MODEL = ("encoder", "known")


def model(context: Context, items: Candidates, fusion: Fusion, out: Columns) -> None:
    """Write MODEL. Products that the encoder's source has computed are not computed again."""
    out["known"][:] = items.column < context.catalogue.first_fresh
    scan = context.scan
    if scan is None or context.encoded is None:
        return
    places, scores = scan.scanned.places, scan.scores.numpy()
    place = places[np.minimum(items.column, len(places) - 1)]
    place = np.where(items.column < len(places), place, -1)
    out["encoder"][:] = scores[items.user, place]
    others = np.flatnonzero(place < 0)
    if len(others):
        rows = context.catalogue.table.numpy()[items.column[others]]
        out["encoder"][others] = np.einsum("md,md->m", rows, context.encoded.numpy()[items.user[others]])
