"""What the state keeps and for how long: the `[state]` section of the configuration."""

from typing import Annotated

import msgspec

Whole = Annotated[int, msgspec.Meta(ge=1)]
"""A count or size: at least 1."""
Count = Annotated[int, msgspec.Meta(ge=0)]
Positive = Annotated[float, msgspec.Meta(gt=0.0)]
Weight = Annotated[float, msgspec.Meta(ge=0.0)]
Share = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]


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
    """An event whose `id` was seen within at least this many offsets is dropped as a duplicate."""
    write_buffer_bytes: Whole = 32 << 20
    """RocksDB memtable size of each of a store's column families."""
    block_cache_bytes: Whole = 64 << 20
    """RocksDB block cache, shared by all stores of a process."""
