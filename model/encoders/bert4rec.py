"""BERT4Rec: a bidirectional Transformer predicts masked items (Sun et al., 2019, arXiv 1904.06690).

    x_t = (E[i_t], or the row m of the mask) + P[T - t]   blocks of model/encoders/transformer.py, not causal
    h_t = LN(x_t)                                         scores of the item under the mask at t = E h_t
    h_u = h at a mask appended after the newest item

Positions count back from the newest item. In training each item is masked with probability `mask_share`. In half of
the histories only the newest item is masked, as in serving.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.encoders.histories import Examples, Histories, Packed
from model.encoders.sequence_encoder import SequenceEncoder
from model.encoders.transformer import Block, encode_last
from model.settings import ModelSettings


class BERT4Rec(SequenceEncoder):
    """Encodes packed histories in which index 0 is a masked item. Every token sees all tokens of its user.

    >>> from model.encoders.histories import pack
    >>> encoder = BERT4Rec(ModelSettings(dim=4, sequence_encoder="bert4rec")).eval()
    >>> encoder.serving_inputs(Histories(np.array([0, 3]), np.array([5, 6, 7])), 50).items.tolist()
    [5, 6, 7, 0]
    >>> packed = pack(encoder.serving_inputs(Histories(np.array([0, 3]), np.array([5, 6, 7])), 50))
    >>> encoder(torch.zeros(len(packed.items), 4), packed)[packed.last].shape
    torch.Size([1, 4])
    """

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__(settings)
        self.dropout, self.mask_share = settings.dropout, settings.mask_share
        self.ages = nn.Embedding(settings.sequence_events, settings.dim)
        nn.init.normal_(self.ages.weight, std=0.02)
        self.mask = nn.Parameter(torch.randn(settings.dim) * settings.init_std)
        self.blocks = nn.ModuleList(Block(settings, causal=False) for _ in range(settings.layers))
        self.norm = nn.LayerNorm(settings.dim)

    def forward(self, rows: Tensor, packed: Packed) -> Tensor:
        """Item rows [T, d] of packed tokens -> encodings [T, d]."""
        x = F.dropout(self._inputs(rows, packed), self.dropout, self.training)
        for block in self.blocks:
            x = block(x, packed)
        encoded: Tensor = self.norm(x)
        return encoded

    def last(self, rows: Tensor, packed: Packed) -> Tensor:
        """Encodings of the last tokens [U, d]. The last block computes no others."""
        encoded: Tensor = self.norm(encode_last(self.blocks, self._inputs(rows, packed), packed))
        return encoded

    def _inputs(self, rows: Tensor, packed: Packed) -> Tensor:
        inputs: Tensor = torch.where((packed.items == 0)[:, None], self.mask, rows) + self.ages(packed.ages)
        return inputs

    def serving_inputs(self, histories: Histories, limit: int) -> Histories:
        """The newest `limit` - 1 items of each user, followed by a mask."""
        histories = histories.newest(limit - 1)
        return Histories(
            histories.indptr + np.arange(len(histories) + 1), np.insert(histories.items, histories.indptr[1:], 0)
        )

    def examples(self, histories: Histories, limit: int, draw: np.random.Generator) -> Examples:
        """Mask at least one item of each history and predict the masked items."""
        histories = histories.newest(limit)
        masked = draw.random(len(histories.items)) < self.mask_share
        only_newest = np.repeat(draw.random(len(histories)) < 0.5, histories.lengths)
        masked[only_newest] = False
        masked[histories.indptr[1:] - 1] |= only_newest[histories.indptr[1:] - 1]
        no_mask = ~np.logical_or.reduceat(masked, histories.indptr[:-1])
        masked[histories.indptr[1:][no_mask] - 1] = True
        predicted = np.flatnonzero(masked)
        return Examples(
            Histories(histories.indptr, np.where(masked, 0, histories.items)), predicted, histories.items[predicted]
        )
