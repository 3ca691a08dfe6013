"""CREATE: two encoders share an item table; a transfer loss aligns them (arXiv 2602.23471).

    E            item table, [n + 1, d], row 0 = padding
    h_u          SASRec (or BERT4Rec) on the user's newest items (local view);   scores = E h_u
    e_u          UltraGCN's (or LightGCN's) user row on the bipartite graph (global view), in training only
    L = L_local + w_global · L_global + w_transfer · BarlowTwins(h_u, e_u)     (or InfoNCE)

Training (`model.learning.training`) first learns E from the graph alone, then trains both encoders. Inference uses only
E and the sequence encoder, so a new user needs no training.
"""

from pkgutil import resolve_name

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.encoders.histories import Histories, pack
from model.encoders.sequence_encoder import SequenceEncoder
from model.settings import SEQUENCE_ENCODERS, ModelSettings


class Create(nn.Module):
    """The shared item table and the sequence encoder. Both are published and served.

    >>> import numpy as np
    >>> model = Create(9, ModelSettings(dim=4))
    >>> h = model.encode(Histories(np.array([0, 3, 3]), np.array([5, 6, 7])))
    >>> (h @ model.table().T).shape
    torch.Size([2, 10])
    """

    def __init__(self, items: int, settings: ModelSettings) -> None:
        super().__init__()
        self.settings = settings
        self.items = nn.Embedding(items + 1, settings.dim)
        nn.init.normal_(self.items.weight, std=settings.init_std)
        with torch.no_grad():
            self.items.weight[0] = 0.0
        self.graph_table: Tensor | None = None
        """[n + 1, DIM] rows of `model.encoders.graph_table`; None where there is none yet. Not a weight."""
        self.sequence: SequenceEncoder = resolve_name(SEQUENCE_ENCODERS[settings.sequence_encoder])(settings)

    @property
    def item_count(self) -> int:
        """Items without the padding row."""
        return self.items.num_embeddings - 1

    def rows(self, items: Tensor) -> Tensor:
        """Rows of these items as they are scored, [..., d]."""
        return self.as_scored(self.items(items))

    def table(self) -> Tensor:
        """All rows as they are scored, [n + 1, d]."""
        return self.as_scored(self.items.weight)

    def as_scored(self, rows: Tensor) -> Tensor:
        """Rows [..., d] as they are scored: scaled to the length `row_length`, if it is set."""
        length = self.settings.row_length
        return F.normalize(rows, dim=-1) * length if length else rows

    @torch.no_grad()
    def encode(self, histories: Histories) -> Tensor:
        """h_u of each user, [B, d]; zeros for an empty history."""
        if self.training:  # eval() walks through every module, which takes a tenth of a ranking
            self.eval()
        if len(histories) and histories.lengths.all():
            return self._encode(histories)
        h = torch.zeros(len(histories), self.settings.dim)
        rows = torch.from_numpy(histories.lengths).nonzero()[:, 0]
        if len(rows):
            h[rows] = self._encode(histories.take(rows.numpy()))
        return h

    def _encode(self, histories: Histories) -> Tensor:
        packed = pack(self.sequence.serving_inputs(histories, self.settings.sequence_events))
        return self.sequence.last(self.items.weight[packed.items], packed)

    def grown(self, rows: Tensor) -> "Create":
        """A copy with item rows [m, d] appended."""
        grown = Create(self.item_count + len(rows), self.settings)
        grown.sequence.load_state_dict(self.sequence.state_dict())
        with torch.no_grad():
            grown.items.weight.copy_(torch.cat([self.items.weight, rows]))
        return grown
