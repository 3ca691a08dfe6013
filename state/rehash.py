"""The state of one store under another id key: its journal is folded again, into a new store.

The journal has every event that the store still holds, and the store has the id behind each hash. So nothing is lost of
what the log no longer has. Users whose ids had the same hash stay one user, under the id that came first.
"""

from collections.abc import Callable

import numpy as np

from state.erasure import read_erasures
from state.errors import StateError
from state.events import Ids, Records, make_batch
from state.partition import Partition
from state.store import Store

OFFSETS_AT_ONCE = 20_000


def rehash(served: Partition, store: Store, report: Callable[[int], None] = lambda _: None) -> int:
    """Fold the events of a store into an empty one with another id key; return how many. `report` gets offsets.

    Everything else that the log brought is taken over: the offset, the counts and what is answered. Repeats, by their
    `id`, of events that are in the store already are not found any more. Raises a StateError, also while users are
    being erased.
    """
    if served.erasing:
        raise StateError(
            f"{served.path} is still erasing forgotten users: run this again when `anabranch forget` has ended"
        )
    folded = fold_journal(served, store, report)
    store.stand_in_for(served)
    return folded


def fold_journal(served: Partition, store: Store, report: Callable[[int], None]) -> int:
    """Fold the events that a store holds into an empty one; return how many. `report` gets offsets.

    The journal may still name users who are being erased: what they did before is left out. Raises a StateError.
    """
    end, folded = served.read_progress().next_offset, 0
    erased = {erasure.user: erasure.offset for erasure in read_erasures(served.database.default)}
    for start in range(0, end, OFFSETS_AT_ONCE):
        events = _without(erased, served.journal(start, min(start + OFFSETS_AT_ONCE, end)))
        users, items = _names(served.user_ids, events["user"]), _names(served.item_ids, events["item"])
        known = np.flatnonzero([user is not None and item is not None for user, item in zip(users, items, strict=True)])
        if not len(known):
            continue
        folded += len(known)
        batch = make_batch(
            [users[row] for row in known.tolist()],  # type: ignore[misc]
            [items[row] for row in known.tolist()],  # type: ignore[misc]
            ts=events["ts"][known],
            offset=events["offset"][known],
            kind=events["kind"][known],
            hashed_by=store.ids.of_many,
        )
        store.apply(batch, int(events["offset"][-1]) + 1)
        report(store.progress.next_offset)
    return folded


def _without(erased: dict[int, int], events: Records) -> Records:
    """The EVENTs without those of these users up to an offset of each."""
    if not erased or not len(events):
        return events
    until = np.array([erased.get(user, -1) for user in events["user"].tolist()])
    return events[events["offset"] > until]


def _names(ids_of: Callable[[Ids], list[bytes | None]], hashes: Ids) -> list[bytes | None]:
    """The id behind each hash; each is read once."""
    distinct, at = np.unique(hashes, return_inverse=True)
    names = ids_of(distinct)
    return [names[place] for place in at.tolist()]
