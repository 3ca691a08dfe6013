"""The interface of a sequence encoder. It encodes a user's newest items as h_u; the score of item j is E_j · h_u.

To add an encoder, write its class in a file of its own and name the class in `SEQUENCE_ENCODERS` of
`model/settings.py`: `[model] sequence_encoder` then takes that name. If it uses `Block` of `transformer.py`, name it in
`WITH_ATTENTION_HEADS` too. `make docs` writes the configuration page. `sasrec.py` is a short example. An encoder reads
the fields of `[model]` that it needs, and raises ValueError for a value that it cannot use.

Sizes: U users in a batch, T tokens with padding (`model.encoders.histories.pack`), N tokens that predict an item, d is
`settings.dim`. CREATE and training call an encoder like this:

    serving    packed  = pack(encoder.serving_inputs(histories, settings.sequence_events))
               h       = encoder.last(table(packed.items), packed)                              [U, d]
    training   inputs, predicted, targets = encoder.examples(histories, settings.sequence_events, draw)
               packed  = pack(inputs)
               encoded = encoder(table(packed.items), packed)                                   [T, d]
               loss    = softmax over items of encoded[packed.tokens[predicted]], [N, d], against targets [N]

The module owns its parameters: they are trained, published and loaded with it. The item table is not part of the
module: it is shared with the graph encoder, and its rows are passed in.
"""

from abc import ABC, abstractmethod

import numpy as np
from torch import Tensor, nn

from model.encoders.histories import Examples, Histories, Packed
from model.settings import ModelSettings


class SequenceEncoder(nn.Module, ABC):
    """Encodes packed histories."""

    @abstractmethod
    def __init__(self, settings: ModelSettings) -> None:
        """Must not depend on the size of the catalogue: the catalogue grows."""
        super().__init__()

    @abstractmethod
    def forward(self, rows: Tensor, packed: Packed) -> Tensor:
        """Item rows [T, d] of packed tokens -> encodings [T, d].

        A user's encodings must depend on that user's tokens only, and not on padding (where `packed.real` is False).
        """

    def last(self, rows: Tensor, packed: Packed) -> Tensor:
        """Item rows [T, d] of packed tokens -> encodings of the users' last tokens [U, d], as `forward` has them.

        Serving needs no others. An encoder may compute them in fewer steps.
        """
        encoded: Tensor = self(rows, packed)[packed.last]
        return encoded

    @abstractmethod
    def serving_inputs(self, histories: Histories, limit: int) -> Histories:
        """Inputs of 1 to `limit` tokens a user, such that the encoding of the last token is h_u.

        No history is empty. Index 0 in the result is a token without an item of its own: BERT4Rec's mask.
        """

    @abstractmethod
    def examples(self, histories: Histories, limit: int, draw: np.random.Generator) -> Examples:
        """Training data from histories of at least 2 items: inputs of 1 to `limit` tokens a user.

        All random numbers must come from `draw`, so that the same seed gives the same weights.
        """
