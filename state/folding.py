"""Folding a batch of events: sequences, edges, the item-item graph, the journal and the ids."""

import numpy as np
from rocksdict import WriteBatch

from state.counted_steps import Arrived, count_steps
from state.events import EventBatch, Ids, Ints, Records, packed_keys
from state.graph import note_times
from state.graph_delta import GraphDelta
from state.partition import EDGE, POPULAR, Partition
from state.progress import Progress
from state.sequences import steps_of
from state.sorting import begins, distinct


def fold_events(
    partition: Partition, batch: EventBatch, progress: Progress, write: WriteBatch
) -> tuple[Records, Records]:
    """Write all changes by a batch.

    Returns the STEPs that count for others from now on, and those that no longer do.
    """
    events = batch.events
    oldest_ts = int(events["ts"].min())
    only_these = progress.applied - progress.erased <= len(events)
    progress.oldest_ts = oldest_ts if only_these else min(progress.oldest_ts, oldest_ts)
    plus, minus = _fold_sequences(partition, batch, progress, write)
    items, oldest, newest = _fold_edges(partition, batch, progress, write)
    partition.events.append(events, write)

    touched = distinct(np.concatenate([plus.items(), minus.items(), items]))
    rows, known = partition.row_records_known(touched)
    minus.take_out_of(touched, rows)
    # Expiry removes an item with its last edge. Steps of it that are not expired yet may still be in sequences.
    place = np.searchsorted(touched, items)
    known[place] = True
    note_times(rows, place, oldest, newest)
    gained = plus.fold_into(touched, rows, known)
    handle = partition.database.handles["rows"]
    packed = rows.view(f"V{rows.itemsize}").tolist()  # each row's bytes, three times as fast as slices of all bytes
    for key, row, is_known in zip(packed_keys(touched), packed, known.tolist(), strict=True):
        if is_known:
            write.put(key, row, handle)
    _put_popular(partition, touched, rows, write)
    return gained, minus.clicked_steps()


def _fold_sequences(
    partition: Partition, batch: EventBatch, progress: Progress, write: WriteBatch
) -> tuple[GraphDelta, GraphDelta]:
    """Write the sequences of the batch's users; return the steps to fold into the graph, and those to take out."""
    ordered, users, first, starts, ends = _grouped(batch.events, "user")
    new = steps_of(ordered)
    merged = partition.users.append(users, new, starts, ends, write, int(batch.events["offset"][0]))
    unknown = merged.before == 0
    _put_ids(partition, b"u", users[unknown], [batch.users[row] for row in first[unknown].tolist()], write)
    progress.users += int(unknown.sum())

    return count_steps(partition, Arrived(users, new, starts, ends, merged), write)


def _put_ids(partition: Partition, prefix: bytes, hashes: Ids, ids: list[bytes], write: WriteBatch) -> None:
    handle = partition.database.handles["ids"]
    for key, identifier in zip(packed_keys(hashes), ids, strict=True):
        write.put(prefix + key, identifier, handle)


def _fold_edges(
    partition: Partition, batch: EventBatch, progress: Progress, write: WriteBatch
) -> tuple[Ids, Ints, Ints]:
    """Write the edges of the batch's items; return these items, the times of the oldest and the newest edge of each."""
    ordered, items, first, starts, ends = _grouped(batch.events, "item")
    edges = np.empty(len(ordered), EDGE)
    for name in ("user", "ts", "kind"):
        edges[name] = ordered[name]
    merged = partition.items.append(items, edges, starts, ends, write, int(batch.events["offset"][0]))
    unknown = merged.before == 0
    if unknown.any():  # an item without an edge keeps its row while an expired step of it waits
        _, stored = partition.row_records_known(items[unknown])
        unknown[unknown] = ~stored
    _put_ids(partition, b"i", items[unknown], [batch.items[row] for row in first[unknown].tolist()], write)
    progress.items += int(unknown.sum())
    return items, np.minimum.reduceat(edges["ts"], starts), np.maximum.reduceat(edges["ts"], starts)


def _put_popular(partition: Partition, touched: Ids, rows: Records, write: WriteBatch) -> None:
    """Update the list of the most popular items.

    All popularities decay alike, so an item's rank rises only when it is touched.
    """
    clicked = rows["recent"][:, 0] > 0
    scored = np.empty(int(clicked.sum()), POPULAR)
    scored["item"] = touched[clicked]
    scored["score"] = (
        np.log2(rows["recent"][clicked, 0]) + rows["ts"][clicked] / 1000.0 / partition.settings.popularity_half_life_s
    )
    before = partition.popular()
    both = np.concatenate([before[~np.isin(before["item"], touched)], scored])
    best = both[np.argsort(-both["score"], kind="stable")[: partition.settings.popular_items]]
    write.put(b"popular", best.tobytes())


def _grouped(events: Records, by: str) -> tuple[Records, Ids, Ints, Ints, Ints]:
    """Group events by user or item, in order of arrival within each.

    Returns the grouped events; the distinct users or items; the row of each one's first event in `events`; the first
    row of each group and the row after its last.
    """
    order = np.argsort(events[by], kind="stable")
    ordered = events[order]
    starts = np.flatnonzero(begins(ordered[by]))
    return ordered, ordered[by][starts], order[starts], starts, np.append(starts[1:], len(ordered))
