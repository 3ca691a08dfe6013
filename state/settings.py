"""The `[state]` section of the configuration: what the state keeps, and for how long."""

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
    """The meaning of an event kind for the model and for its user."""

    role: Role
    """positive: the model learns from it; negative: the item is not recommended to the user again; undo: takes back the
    user's newest event of the item; forget: erases the user."""
    weight: Weight = 1.0
    """Weight of a positive event in pairs and popularity; 0: kept, but the model does not learn from it."""


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
"""The built-in kinds. Their order is their code on disk: it never changes, and new kinds go to the end."""


FURTHER_HALF_LIVES_S = (3_600.0, 6 * 3_600.0, 86_400.0, 30 * 86_400.0)
"""Half-lives of an item's popularity beside `popularity_half_life_s`: an hour, six hours, a day, thirty days."""


class StateSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bounds and half-lives of one partition's store.

    `neighbours_per_item` and `sequence_events` fix the layout of the records on disk. A store that was built with other
    values is refused.
    """

    sequence_events: Whole = 100
    """Length of a user's sequence: the newest events."""
    neighbours_per_item: Whole = 32
    """Neighbour slots of an item's row in the item-item graph. A new neighbour takes the weakest slot."""
    pair_window_events: Whole = 5
    """An event is paired with this many earlier events of its user."""
    pair_half_life_s: Positive = 365 * 86_400.0
    """Event time after which a pair counts half."""
    popularity_half_life_s: Positive = 7 * 86_400.0
    """Event time after which a click counts half in its item's popularity."""
    popular_items: Whole = 200
    """Length of the list of most popular items, which serves users without a history."""
    dedup_window_events: Whole = 1_000_000
    """An event is dropped as a duplicate when its `id` was applied within this many offsets before it. Up to twice that
    distance it may be dropped, beyond that never."""
    user_item_cap: Count = 1
    """This many events of one user, item, kind and day (UTC, event time) count for others, at most: in the popularity
    of items and in the item-item graph. 0: no cap. The user's own history holds all of them. A new value holds for the
    days after the newest event."""
    user_cap: Count = 1_000
    """This many events of one user and day (UTC, event time) count for others, at most. 0: no cap."""
    window_s: Weight = 0.0
    """Event time after which an event expires, counted back from the newest event of its partition; 0: never. Set it in
    production (two years are 63072000): without it the state grows with every new user."""
    kinds: dict[str, Kind] = msgspec.field(default_factory=lambda: dict(KINDS))
    """The role of an event kind. `positive`: the model learns from it; `negative`: its item is not recommended to the
    user again; `undo`: takes back the user's newest event of the item; `forget`: erases the user. `weight` is the
    weight of a positive event in pairs and popularity; 0: kept, but the model does not learn from it. Add a kind of
    your own by its name, with a role."""
    write_buffer_bytes: Whole = 4 << 20
    """Largest RocksDB memtable of one column family of a store."""
    write_buffers_bytes: Whole = 64 << 20
    """Approximate size of all memtables of a process. Beyond it, memtables are written to files."""
    block_cache_bytes: Whole = 32 << 20
    """RocksDB block cache, which all stores of a process share."""

    @property
    def half_lives_s(self) -> tuple[float, ...]:
        """Event time after which a click counts half, for each popularity of an item; the first is the setting."""
        return (self.popularity_half_life_s, *FURTHER_HALF_LIVES_S)
