"""Settings of the model, its training, the gate and ranking: `[model]`, `[training]`, `[gate]`, `[ranking]`."""

from typing import TYPE_CHECKING, Annotated, Literal

import msgspec

from state.settings import Count, Positive, Share, Weight, Whole

SEQUENCE_ENCODERS = {"sasrec": "model.encoders.sasrec:SASRec", "bert4rec": "model.encoders.bert4rec:BERT4Rec"}
GRAPH_ENCODERS = {"ultragcn": "model.encoders.ultragcn:UltraGCN", "lightgcn": "model.encoders.lightgcn:LightGCN"}
"""Name and class of each encoder. The class is imported at its first use, because PyG takes seconds to import."""
WITH_ATTENTION_HEADS = frozenset({"sasrec", "bert4rec"})
"""Sequence encoders made of Transformer blocks. Their `heads` must divide `dim`."""
MAX_HISTORY_EVENTS = 200
"""Length of the longest history that can be packed."""
MIN_FUSION_EVENTS = 50
"""Fusion weights are chosen on at least this many events."""

if TYPE_CHECKING:
    SequenceEncoderName = str
    GraphEncoderName = str
else:
    SequenceEncoderName, GraphEncoderName = Literal[tuple(SEQUENCE_ENCODERS)], Literal[tuple(GRAPH_ENCODERS)]


def check_heads(dim: int, heads: int) -> None:
    """Raise ValueError if `heads` does not divide `dim`."""
    if dim % heads:
        raise ValueError(f"dim = {dim} is not divisible by heads = {heads}")


class ModelSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The shape of CREATE's encoders. benchmarks/README.md compares other choices."""

    sequence_encoder: SequenceEncoderName = "sasrec"
    """The encoder that reads a user's newest items."""
    dim: Whole = 64
    """Length of an item row and of a user's encoding."""
    heads: Whole = 2
    """Attention heads of `sasrec` and `bert4rec`; they divide `model.dim`."""
    layers: Whole = 1
    """Transformer blocks."""
    dropout: Share = 0.6
    """Share dropped in training. The default suits catalogues of some ten thousand items."""
    sequence_events: Whole = 50
    """Newest events of a user that the sequence encoder reads."""
    mask_share: Share = 0.3
    """BERT4Rec masks this share of a history's items in training."""
    init_std: Positive = 0.1
    """Scale of a random item row."""
    row_length: Weight = 0.0
    """Every item row gets this length, so that no item ranks first for its popularity alone (NISER, arXiv 1909.04276);
    0: rows keep the length that they learn."""

    def __post_init__(self) -> None:
        if self.sequence_encoder in WITH_ATTENTION_HEADS:
            check_heads(self.dim, self.heads)
        if self.sequence_events > MAX_HISTORY_EVENTS:
            raise ValueError(
                f"sequence_events = {self.sequence_events} is more than the encoders read: {MAX_HISTORY_EVENTS}"
            )


class TrainingSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the two encoders learn together."""

    threads: Whole = 1
    """Threads of torch for training."""
    batch_users: Whole = 256
    """Users in a training step."""
    negatives: Whole = 512
    """Negatives shared by a batch, of the sampled softmax and of the graph loss."""
    learning_rate: Positive = 4e-3
    """Learning rate of a first version's joint epochs, at their start; it falls along half a cosine."""
    increment_learning_rate: Positive = 2e-3
    """Learning rate of a later version's joint epochs, at their start."""
    graph_learning_rate: Positive = 4e-3
    """Learning rate of item and user rows in the warm-up."""
    warm_up_epochs: Count = 12
    """Epochs of the graph loss alone, before a first version."""
    epochs: Count = 6
    """Joint epochs of a first version without the newest events. The fusion weights are then chosen on these events."""
    last_epochs: Count = 9
    """Epochs of a first version with the newest events."""
    increment_warm_up_epochs: Count = 1
    """Epochs of the graph loss alone, before a later version."""
    increment_epochs: Whole = 4
    """Joint epochs of a later version without the newest events."""
    increment_last_epochs: Count = 4
    """Epochs of a later version with the newest events."""
    max_train_s: Positive = 600.0
    """No epoch begins later than this after the start of a training. The version is published as it is then. A cycle
    has two trainings, without and with the newest events. The limit applies to each."""
    loss: Literal["auto", "full", "sampled"] = "auto"
    """Softmax over all items, or over shared negatives; auto: over all for a small catalogue."""
    full_softmax_items: Count = 1000
    """The largest catalogue for which auto takes the full softmax. In larger ones the sampled softmax learns more
    in the same time."""
    lazy_items: Count = 100_000
    """In a larger catalogue a step updates only the item rows that its batch touches: updating the whole table would
    take longer than the rest of the step. The full softmax and LightGCN touch every row and ignore this setting."""
    graph_encoder: GraphEncoderName = "ultragcn"
    """The encoder that places items that the same users click near each other."""
    lightgcn_layers: Whole = 2
    """Number of LightGCN's message passes over the graph."""
    w_global: Weight = 0.0
    """Weight of the graph loss in the joint epochs. In the warm-up it is the only loss."""
    transfer: Literal["barlow_twins", "infonce"] = "barlow_twins"
    """The loss that makes the two views of a user agree."""
    w_transfer: Weight = 0.1
    """Weight of the transfer loss; 0: none."""
    temperature: Positive = 0.2
    """Temperature τ of InfoNCE."""
    off_diagonal: Weight = 0.005
    """λ of Barlow Twins."""
    graph_events: Whole = 50
    """Newest events of a user that are edges of the training graph."""
    neighbours: Whole = 10
    """Neighbours of an item in UltraGCN's item-item graph."""
    item_item_weight: Weight = 30.0
    """Weight of UltraGCN's item-item loss."""
    negative_weight: Weight = 10.0
    """Weight of the negatives in UltraGCN's loss."""
    holdout_events: Count = 2000
    """Newest events that a cycle holds out, to measure the candidate and to choose the fusion weights."""


def without_graph(training: TrainingSettings) -> TrainingSettings:
    """Settings that train the sequence encoder alone: no warm-up, no graph loss, no transfer loss."""
    return msgspec.structs.replace(training, w_global=0.0, w_transfer=0.0, warm_up_epochs=0, increment_warm_up_epochs=0)


class GateSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Limits of the gate. A candidate beyond a limit is not promoted, for any result on the newest events."""

    old_users: Count = 1000
    """Users without new events on whom the gate measures forgetting. A cycle does not learn from them."""
    forgotten_share: Share = 0.1
    """Allowed relative fall of these users' NDCG@10. After a significantly larger one the champion is kept."""
    coverage_share: Share = 0.5
    """A candidate recommends at least this share of the champion's number of different items."""
    latency_ratio: Positive = 2.0
    """A candidate takes at most this many times as long to rank as the champion."""
    max_version_bytes: Whole = 4 << 30
    """Largest size of item table and encoder that is served."""


class RankingSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How items are ranked."""

    k: Annotated[int, msgspec.Meta(ge=1, le=1_000)] = 10
    """Items in a recommendation, at most 1,000."""
    history_items: Whole = 10
    """Newest items of a user from which the live graph takes evidence."""
    age_decay: Share = 0.8
    """Factor on an item's evidence for each step that the item is older."""
    repeat_decay: Share = 0.98
    """Factor on the repetition of a user's own item for each step that the item is older."""
    evidence_weight: Weight | None = None
    """Weight of the graph's item-item evidence; unset: chosen on held-out events. With all three weights at 0 the
    model ranks alone, as in the CREATE paper."""
    repeat_weight: float | None = None
    """Weight of the user's own repetitions. Below 0, repetitions rank lower. Unset: chosen on held-out events."""
    popularity_weight: Weight | None = None
    """Weight of current popularity; unset: chosen on held-out events."""
    filter_seen: bool = False
    """Never recommend an item of the user's own sequence."""
    because: bool = True
    """Give reasons: the user's own items that contribute most to each recommendation, and the kind of the reason."""
    online_clicks: Count = 400
    """Newest clicks on which a worker chooses the fusion weights again between versions; 0: never."""
    fresh_items: Count = 10_000
    """Maximum number of items that the version does not know and that are ranked by a provisional row."""
    ranker: bool = True
    """Rank with the ranker that learns from what users chose. Off: the fusion ranks, and no examples are kept."""
    online_ranker: bool = True
    """Move the ranker with every choice between versions. Off: it stays as the version has it."""

    def __post_init__(self) -> None:
        if 0 < self.online_clicks < MIN_FUSION_EVENTS:
            raise ValueError(
                f"online_clicks = {self.online_clicks}: weights are chosen on {MIN_FUSION_EVENTS} clicks at least; "
                "0 keeps the weights of the version"
            )
