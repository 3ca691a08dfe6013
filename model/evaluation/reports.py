"""The reports of both protocols. Their JSON is the output of `anabranch evaluate --json`: keys never change."""

import msgspec
from msgspec import UNSET, UnsetType, field

from model.ranking.fusion import Fusion


class PrequentialFigures(msgspec.Struct, frozen=True):
    """Means over the tests of one model; None if there is no such test."""

    hit: float = field(name="hit@10")
    ndcg: float = field(name="ndcg@10")
    mrr: float
    last_quarter_hit: float | None = field(name="last_quarter_hit@10")
    new_items_hit: float | None = field(name="new_items_hit@10")
    """Hit@10 of items that the serving version does not know."""


class GroupFigures(msgspec.Struct, frozen=True):
    """Means over the tests of one model in a group."""

    hit: float = field(name="hit@10")
    ndcg: float = field(name="ndcg@10")
    mrr: float


class Interval(msgspec.Struct, frozen=True):
    """A lead with its 95% interval."""

    lead: float
    low: float
    high: float


class LeadOver(msgspec.Struct, frozen=True):
    """The lead of the whole system over another row, on the same tests."""

    hit: Interval = field(name="hit@10_difference")
    """Difference in Hit@10: 0.01 is one point."""
    ndcg: Interval | None = field(name="ndcg@10_relative")
    """Relative lead in NDCG@10: 0.01 is one percent more. None where the other row has (next to) no hit."""


class GroupOfTests(msgspec.Struct, frozen=True):
    """The tests of one kind."""

    tested: int
    models: dict[str, GroupFigures]
    leads: dict[str, LeadOver]
    """Leads of `create`, by the other row."""


class CycleReport(msgspec.Struct, frozen=True):
    """One cycle of a recorded stream."""

    at: int
    """Number of events of the stream so far."""
    cpu_s: float
    promoted: bool
    reason: str
    fusion: Fusion
    metrics: dict[str, float]


class StreamEvents(msgspec.Struct, frozen=True):
    """Numbers of tests."""

    tested: int
    of_new_items: int


class Curves(msgspec.Struct, frozen=True):
    """Hit@10 over the stream."""

    event: list[int]
    rolling_hit: dict[str, list[float]] = field(name="rolling_hit@10")


class PrequentialReport(msgspec.Struct, frozen=True):
    """Results of `--protocol prequential`, by model or rival."""

    protocol: str
    events: StreamEvents
    models: dict[str, PrequentialFigures]
    versions: dict[str, list[CycleReport]]
    curves: Curves
    every_events: int | UnsetType = UNSET
    """Events between two cycles."""
    seed: int | UnsetType = UNSET
    warm_up: int | UnsetType = UNSET
    """Number of events that the first version learned from."""
    moment: str | UnsetType = UNSET
    """When the tested lists are made: `asked` at the event, `pushed` at the user's event before it."""
    leads: dict[str, LeadOver] = {}
    """Leads of `create` over all tests, by the other row."""
    groups: dict[str, GroupOfTests] = {}
    """Tests by kind: first visits and repeats, age of the item, length of the history."""


class SplitFigures(msgspec.Struct, frozen=True):
    """Means over the tests of one model, for one kind of target and of seen items."""

    ndcg: float = field(name="ndcg@10")
    recall_10: float = field(name="recall@10")
    recall_20: float = field(name="recall@20")
    mrr: float
    coverage: float | UnsetType = field(name="coverage@10", default=UNSET)
    """Share of the catalogue that at least one user was shown. For successive targets only."""
    popularity_bias: float | UnsetType = UNSET
    """Mean clicks before the split of shown items over those of targets. For successive targets only."""


class Lead(msgspec.Struct, frozen=True):
    """Relative lead in NDCG@10 of one model over another, with a 95% interval."""

    model: str
    over: str
    target: str
    seen_items: str
    lead: float
    low: float
    high: float


class SplitEvents(msgspec.Struct, frozen=True):
    """Numbers of events before the split, and of tests after it."""

    past: int
    tested: int
    last: int
    """Tests that are the last of their user."""
    cold: int
    """Events after the split whose item is new. They are not tested."""


class Epochs(msgspec.Struct, frozen=True):
    """Epochs of a model's training."""

    warm_up: int
    joint: int


class GlobalTemporalReport(msgspec.Struct, frozen=True):
    """Results of `--protocol global-temporal`: `models[name][target][seen_items]`."""

    protocol: str
    events: SplitEvents
    seed: int
    epochs: dict[str, Epochs]
    models: dict[str, dict[str, dict[str, SplitFigures]]]
    leads: list[Lead]
