"""A Transformer block on packed histories, causal or not (Vaswani et al., 2017, arXiv 1706.03762).

    x = x + W_o [softmax(Q_h K_hᵀ / √(d/H)) V_h]_h        Q_h, K_h, V_h of LN(x), [t, d/H] each; H heads
    x = x + W_2 relu(W_1 LN(x))                           all W are [d, d]

LayerNorm comes before each layer, not after it (Xiong et al., 2020, arXiv 2002.04745). Output projections start at
zero, so a block starts as the identity.
"""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.encoders.histories import Packed
from model.settings import ModelSettings


class Block(nn.Module):
    """One block on packed tokens, [T, d] -> [T, d]. Raises ValueError if `heads` does not divide `dim`.

    >>> from model.encoders.histories import Histories, pack
    >>> packed = pack(Histories([0, 2, 5], [3, 1, 1, 2, 3]))
    >>> block, x = Block(ModelSettings(dim=4), causal=True), torch.randn(len(packed.items), 4)
    >>> torch.equal(block(x, packed), x)
    True
    """

    def __init__(self, settings: ModelSettings, *, causal: bool) -> None:
        super().__init__()
        d = settings.dim
        if d % settings.heads:
            raise ValueError(
                f"model.heads = {settings.heads} does not divide model.dim = {d}: each attention head reads "
                f"dim / heads numbers of a row; set model.heads to a divisor of {d}"
            )
        self.causal, self.heads, self.dropout = causal, settings.heads, settings.dropout
        self.norm_attention, self.norm_forward = nn.LayerNorm(d), nn.LayerNorm(d)
        self.qkv, self.out = nn.Linear(d, 3 * d), nn.Linear(d, d)
        self.widen, self.narrow = nn.Linear(d, d), nn.Linear(d, d)
        for layer in (self.qkv, self.widen):
            nn.init.normal_(layer.weight, std=d**-0.5)
            nn.init.zeros_(layer.bias)
        for layer in (self.out, self.narrow):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, packed: Packed) -> Tensor:
        d = x.shape[1]
        sizes = [users * length for users, length in packed.groups]
        qkv = self.qkv(self.norm_attention(x))
        attended = []
        parts = zip(torch.split(qkv, sizes), torch.split(packed.real, sizes), packed.groups, strict=True)
        for part, real, (users, length) in parts:
            q, k, v = (
                t.view(users, length, self.heads, d // self.heads).transpose(1, 2)
                for t in torch.split(part.view(users, length, 3 * d), d, 2)
            )
            if self.causal:  # padding follows the last item, so no token of a history sees it
                mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            else:
                mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=real.view(users, 1, 1, length))
            attended.append(mixed.transpose(1, 2).reshape(users * length, d))
        x = x + F.dropout(self.out(torch.cat(attended)), self.dropout, self.training)
        return self._forward_layer(x)

    def last(self, x: Tensor, packed: Packed) -> Tensor:
        """`forward(x, packed)[packed.last]`, [U, d], without dropout: a third of the products, for serving."""
        d = x.shape[1]
        query, key_value = torch.split(self.qkv.weight, [d, 2 * d])
        query_bias, key_value_bias = torch.split(self.qkv.bias, [d, 2 * d])
        x_last, normed = x[packed.last], self.norm_attention(x)
        queries = F.linear(normed[packed.last], query, query_bias)
        tokens = F.linear(normed, key_value, key_value_bias)
        mixed = torch.empty_like(queries)
        sizes = [users * length for users, length in packed.groups]
        of_group = torch.split(packed.order, [users for users, _ in packed.groups])
        parts = zip(torch.split(tokens, sizes), torch.split(packed.real, sizes), of_group, packed.groups, strict=True)
        for part, real, of, (users, length) in parts:
            k, v = part.view(users, length, 2, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
            q = queries[of].view(users, self.heads, 1, d // self.heads)
            # Nothing but padding follows a user's last token, so a causal block needs no other mask.
            attended = F.scaled_dot_product_attention(q, k, v, attn_mask=real.view(users, 1, 1, length))
            mixed[of] = attended.view(users, d)
        return self._forward_layer(x_last + self.out(mixed))

    def _forward_layer(self, x: Tensor) -> Tensor:
        added = self.narrow(F.relu(self.widen(self.norm_forward(x))))
        return x + F.dropout(added, self.dropout, self.training)


def encode_last(blocks: Iterable[nn.Module], x: Tensor, packed: Packed) -> Tensor:
    """The users' last tokens [U, d] after all blocks. The last block computes no others."""
    *others, last = blocks
    for block in others:
        x = block(x, packed)
    assert isinstance(last, Block)
    return last.last(x, packed)
