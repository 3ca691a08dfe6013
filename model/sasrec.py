"""SASRec, the sequence encoder: a causal Transformer over a user's items (Kang and McAuley, 2018, arXiv 1808.09781).

    x_t = E[i_t] + P[t]
    x   = x + W_o Attention(LN(x))          causal, H heads
    x   = x + W_2 relu(W_1 LN(x))
    h_u = LN(x_T)        scores = E h_u

Pre-norm, output projections zero at first so that a block starts as the identity, items drawn wide (std 0.1): worth
a factor of two over common defaults.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.histories import Packed
from model.settings import ModelSettings


class Block(nn.Module):
    """One pre-norm Transformer block on packed tokens, [T, d] -> [T, d]."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        d = settings.dim
        self.heads, self.dropout = settings.heads, settings.dropout
        self.norm_attention, self.norm_forward = nn.LayerNorm(d), nn.LayerNorm(d)
        self.qkv, self.out = nn.Linear(d, 3 * d), nn.Linear(d, d)
        self.widen, self.narrow = nn.Linear(d, d), nn.Linear(d, d)
        for layer in (self.qkv, self.widen):
            nn.init.normal_(layer.weight, std=d**-0.5)
            nn.init.zeros_(layer.bias)
        for layer in (self.out, self.narrow):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, groups: list[tuple[int, int]]) -> Tensor:
        d = x.shape[1]
        qkv = self.qkv(self.norm_attention(x))
        attended = []
        for part, (users, length) in zip(qkv.split([u * n for u, n in groups]), groups, strict=True):
            q, k, v = (
                t.view(users, length, self.heads, d // self.heads).transpose(1, 2)
                for t in part.view(users, length, 3 * d).split(d, 2)
            )
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            attended.append(mixed.transpose(1, 2).reshape(users * length, d))
        x = x + F.dropout(self.out(torch.cat(attended)), self.dropout, self.training)
        forward = self.narrow(F.relu(self.widen(self.norm_forward(x))))
        return x + F.dropout(forward, self.dropout, self.training)


class SASRec(nn.Module):
    """Encodes packed histories; item rows come from outside, the table being shared with the graph encoder."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.dropout = settings.dropout
        self.positions = nn.Embedding(settings.sequence_events, settings.dim)
        nn.init.normal_(self.positions.weight, std=0.02)
        self.blocks = nn.ModuleList(Block(settings) for _ in range(settings.layers))
        self.norm = nn.LayerNorm(settings.dim)

    def forward(self, rows: Tensor, packed: Packed) -> Tensor:
        """Item rows [T, d] of packed tokens -> encodings [T, d]; causal, so token t has seen only what came before."""
        x = F.dropout(rows + self.positions(packed.positions), self.dropout, self.training)
        for block in self.blocks:
            x = block(x, packed.groups)
        encoded: Tensor = self.norm(x)
        return encoded
