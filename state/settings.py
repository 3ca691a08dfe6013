"""What the state keeps and for how long: the `[state]` section of the configuration."""

from typing import Annotated, Literal

import msgspec

Whole = Annotated[int, msgspec.Meta(ge=1)]
"""A count or size: at least 1."""
Count = Annotated[int, msgspec.Meta(ge=0)]
Positive = Annotated[float, msgspec.Meta(gt=0.0)]
Weight = Annotated[float, msgspec.Meta(ge=0.0)]
Share = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]

Role = Literal["positive", "negative", "undo", "forget"]


class Kind(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an event kind is to the model and to the user it comes from."""

    role: Role
    """positive: learned from; negative: the item is not recommended to the user again; undo: takes back the user's
    newest event of the item; forget: erases the user."""
    weight: Weight = 1.0
    """What a positive event counts for in pairs and popularity; 0: kept, not learned from."""


KINDS = {
    "click": Kind("positive"),
    "view": Kind("positive", 0.5),
    "cart": Kind("positive"),
    "purchase": Kind("positive"),
    "like": Kind("positive"),
    "dislike": Kind("negative"),
    "hide": Kind("negative"),
    "undo": Kind("undo"),
    "forget": Kind("forget"),
}
"""The kinds there always are. Their order is their code on disk: it never changes, and new ones go to the end."""


class StateSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bounds and half-lives of one partition's store.

    `neighbours_per_item` and `sequence_events` fix the layout of the records on disk: a store built with other
    values is refused, never silently reinterpreted.
    """

    sequence_events: Whole = 100
    """Newest events kept in a user's sequence."""
    neighbours_per_item: Whole = 32
    """Slots of an item's row in the item-item graph; the weakest slot makes room for a new neighbour."""
    pair_window_events: Whole = 5
    """An event is paired with this many of the user's events before it."""
    pair_half_life_s: Positive = 365 * 86_400.0
    """Event time after which a pair counts half."""
    popularity_half_life_s: Positive = 7 * 86_400.0
    """Event time after which an item's click counts half towards its popularity."""
    popular_items: Whole = 200
    """Most popular items kept at hand for users nothing else can serve."""
    dedup_window_events: Whole = 1_000_000
    """An event whose `id` was applied within this many offsets before it is always dropped as a duplicate; within twice
    as many perhaps, later never."""
    window_s: Weight = 0.0
    """Event time after which an event expires, counted back from the newest of its partition; 0: never. Set
    it in production (two years are 63072000): without it the state grows as long as there are new users."""
    kinds: dict[str, Kind] = msgspec.field(default_factory=lambda: dict(KINDS))
    """What an event kind is: `positive`: learned from; `negative`: its item is not recommended to the user again;
    `undo`: takes back the user's newest event of the item; `forget`: erases the user. `weight` is what a positive event
    counts for in pairs and popularity; 0: kept, not learned from. One of your own is added by its name, with a role."""
    write_buffer_bytes: Whole = 4 << 20
    """RocksDB memtable size of each of a store's column families, at most."""
    write_buffers_bytes: Whole = 64 << 20
    """All memtables of all stores of a process together, about; what is over is written to files."""
    block_cache_bytes: Whole = 32 << 20
    """RocksDB block cache, shared by all stores of a process."""
