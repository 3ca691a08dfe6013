"""What the model is, how it is trained and how it ranks: `[model]`, `[training]` and `[ranking]`."""

from typing import TYPE_CHECKING, Literal

import msgspec

from state.settings import Count, Positive, Share, Weight, Whole

SEQUENCE_ENCODERS = {"sasrec": "model.encoders.sasrec:SASRec", "bert4rec": "model.encoders.bert4rec:BERT4Rec"}
GRAPH_ENCODERS = {"ultragcn": "model.encoders.ultragcn:UltraGCN", "lightgcn": "model.encoders.lightgcn:LightGCN"}
"""An encoder is its file and its entry here. It is imported where it is first asked for: PyG takes seconds."""
MOST_EVENTS = 200
"""The longest history that is packed."""
MIN_FUSION_EVENTS = 50
"""Fewer events than this choose no fusion weights."""

if TYPE_CHECKING:
    SequenceEncoderName = str
    GraphEncoderName = str
else:
    SequenceEncoderName, GraphEncoderName = Literal[tuple(SEQUENCE_ENCODERS)], Literal[tuple(GRAPH_ENCODERS)]


class ModelSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The shape of CREATE's encoders. What other choices give stands in docs/model.md."""

    sequence_encoder: SequenceEncoderName = "sasrec"
    """What reads a user's newest items."""
    dim: Whole = 64
    """Length of item rows and of what the encoder says of a user."""
    heads: Whole = 2
    """Attention heads; they divide `model.dim`."""
    layers: Whole = 1
    """Transformer blocks."""
    dropout: Share = 0.6
    """Share dropped in training; the default suits catalogues of some ten thousand items."""
    sequence_events: Whole = 50
    """Newest events of a user that the sequence encoder reads."""
    mask_share: Share = 0.3
    """BERT4Rec masks this share of a history's items in training."""
    init_std: Positive = 0.1
    """Scale of an item row that nothing is known about."""
    row_length: Weight = 0.0
    """Every item row is made this long, so that none is put first for its popularity alone (NISER, arXiv 1909.04276);
    0: rows are as long as they are learned."""

    def __post_init__(self) -> None:
        if self.dim % self.heads:
            raise ValueError(f"dim = {self.dim} is not divisible by heads = {self.heads}")
        if self.sequence_events > MOST_EVENTS:
            raise ValueError(f"sequence_events = {self.sequence_events} is more than the encoders read, {MOST_EVENTS}")


class TrainingSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the two encoders learn together."""

    threads: Whole = 1
    """Threads of torch for training."""
    batch_users: Whole = 256
    """Users in a training step."""
    negatives: Whole = 512
    """Negatives shared by a batch, of the sampled softmax and of the graph loss."""
    learning_rate: Positive = 4e-3
    """Of a first version's joint epochs, at their begin; it falls along half a cosine."""
    increment_learning_rate: Positive = 2e-3
    """The same of a later version."""
    graph_learning_rate: Positive = 4e-3
    """Of item and user rows in the warm-up."""
    user_learning_rate: Positive = 1e-3
    """Of user rows in the joint epochs; they exist in training only."""
    warm_up_epochs: Count = 12
    """Epochs of the graph loss alone, before a first version."""
    epochs: Count = 6
    """Joint epochs of a first version without the newest events, on which the fusion weights are then chosen."""
    last_epochs: Count = 9
    """Epochs of a first version with the newest events in."""
    increment_warm_up_epochs: Count = 1
    """Epochs of the graph loss alone, before a later version."""
    increment_epochs: Whole = 4
    """Joint epochs of a later version without the newest events."""
    increment_last_epochs: Count = 4
    """Epochs of a later version with the newest events in."""
    distil: Weight = 0.0
    """What the champion's own answers count for on the users that are learned again, so that less is forgotten; 0:
    nothing, they are only learned again."""
    max_train_s: Positive = 600.0
    """No further epoch is begun after this long; a version is published with what was learned. A cycle trains twice,
    without and with the newest events, and each time may take so long."""
    loss: Literal["auto", "full", "sampled", "scalable"] = "auto"
    """Softmax over all items, over shared negatives, or scalable cross-entropy; auto: full for a small catalogue."""
    full_softmax_items: Count = 1000
    """The largest catalogue that auto takes the full softmax for; above it the sampled one learns more in the time."""
    lazy_items: Count = 100_000
    """In a larger catalogue a step moves only the item rows that its batch touches: the whole table would take longer
    than all the rest. Not with the full softmax or LightGCN, which touch every row."""
    scalable_buckets: Whole = 32
    """Buckets of the scalable cross-entropy."""
    scalable_bucket_size: Whole = 256
    """Items and positions in each of them."""
    graph_encoder: GraphEncoderName = "ultragcn"
    """What places items that the same users click near each other."""
    lightgcn_layers: Whole = 2
    """Times LightGCN passes messages over the graph."""
    graph_half_life_s: Weight = 0.0
    """Event time after which an edge of the training graph counts half; 0: all count alike."""
    w_global: Weight = 0.0
    """Weight of the graph loss in the joint epochs; the warm-up has it alone."""
    transfer: Literal["barlow_twins", "infonce"] = "barlow_twins"
    """The loss that makes the two views of a user agree."""
    w_transfer: Weight = 0.1
    """Weight of the transfer loss; 0: none."""
    transfer_view: Literal["last", "random", "item"] = "last"
    """What is aligned: the newest position of a sequence, or one drawn, with the graph's view of the user; or every
    position with the graph's view of the item that comes next."""
    transfer_stops_at: Literal["neither", "graph", "sequence"] = "neither"
    """The side that the transfer loss does not move."""
    temperature: Positive = 0.2
    """InfoNCE's."""
    off_diagonal: Weight = 0.005
    """Barlow Twins' λ."""
    graph_events: Whole = 50
    """Newest events of a user that are edges of the training graph."""
    neighbours: Whole = 10
    """Neighbours of an item in UltraGCN's item-item graph."""
    ultragcn_w1: Weight = 1.0
    """UltraGCN's weight of an edge, and in `ultragcn_w2` of an edge times its degree weight β."""
    ultragcn_w2: Weight = 0.0
    """See `training.ultragcn_w1`."""
    ultragcn_w3: Weight = 1.0
    """UltraGCN's weight of a negative, and in `ultragcn_w4` of a negative times its degree weight β."""
    ultragcn_w4: Weight = 0.0
    """See `training.ultragcn_w3`."""
    item_item_weight: Weight = 30.0
    """Weight of UltraGCN's item-item loss."""
    negative_weight: Weight = 10.0
    """Weight of the negatives in UltraGCN's loss."""
    table_std: Positive = 0.15
    """The item table is rescaled to this after the warm-up: the sequence encoder wants larger rows than the graph."""
    holdout_events: Count = 2000
    """Newest events kept back at first, to measure a candidate and to choose the fusion weights."""


def without_graph(training: TrainingSettings) -> TrainingSettings:
    """The sequence encoder alone: no warm-up, no graph loss, no transfer loss."""
    return msgspec.structs.replace(training, w_global=0.0, w_transfer=0.0, warm_up_epochs=0, increment_warm_up_epochs=0)


class GateSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a candidate does not take the champion's place, however good it is on the newest events."""

    old_users: Count = 1000
    """Users without new events on whom it is tested what a candidate forgot; a cycle learns nothing from them."""
    forgotten_share: Share = 0.1
    """What NDCG@10 of those users may fall by, relatively; more than this beyond doubt keeps the champion."""
    coverage_share: Share = 0.5
    """A candidate recommends at least this share of the number of different items that the champion does."""
    latency_ratio: Positive = 2.0
    """A candidate takes at most this many times as long to rank as the champion."""
    max_version_bytes: Whole = 4 << 30
    """The largest item table and encoder that is served."""


class RankingSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How users are answered."""

    k: Whole = 10
    """Items in a recommendation."""
    history_items: Whole = 10
    """Newest items of a user that speak through the live graph."""
    age_decay: Share = 0.8
    """What an item's word counts for each step it lies further back."""
    repeat_decay: Share = 0.98
    """What an own item's repetition counts for each step it lies further back."""
    evidence_weight: Weight | None = None
    """Weight of the graph's item-item evidence; unset: as chosen on held-out events. With all three weights at 0
    the model speaks alone: the paper's inference."""
    repeat_weight: float | None = None
    """Weight of the user's own repetitions, below 0 against them; unset: as chosen on held-out events."""
    popularity_weight: Weight | None = None
    """Weight of what is popular now; unset: as chosen on held-out events."""
    filter_seen: bool = False
    """Never recommend an item of the user's own sequence."""
    because: bool = True
    """Say which of the user's own items speak most for each recommendation."""
    online_clicks: Count = 400
    """Newest clicks on which a worker chooses the fusion weights anew between versions; 0: it never does."""
    fresh_items: Count = 10_000
    """Items no version knows that are ranked by a provisional embedding, at most this many."""

    def __post_init__(self) -> None:
        if 0 < self.online_clicks < MIN_FUSION_EVENTS:
            raise ValueError(
                f"online_clicks = {self.online_clicks}: weights are chosen on {MIN_FUSION_EVENTS} clicks at least; "
                "0 leaves them as they are in the version"
            )
