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
    if len(scan.columns) == items.width - 1:  # all columns but the padding
        out["encoder"][:] = scan.scores.numpy()[items.user, items.column - 1]
        return
    table, encoded = context.catalogue.table.numpy(), context.encoded.numpy()
    for start, length in zip(items.starts.tolist(), items.lengths.tolist(), strict=True):
        of = slice(start, start + length)  # user by user: the rows of all users at once do not fit into the cache
        np.einsum("md,d->m", table[items.column[of]], encoded[items.user[start]], out=out["encoder"][of])
