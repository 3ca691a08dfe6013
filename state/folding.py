"""Folding a batch of events: sequences, edges, the item-item graph, the journal and the ids."""

import numpy as np
from rocksdict import WriteBatch

from state.events import EventBatch, Ids, Ints, Records, packed_keys
from state.graph_delta import GraphDelta
from state.partition import EDGE, HIDDEN, POPULAR, Partition
from state.progress import Progress
from state.removal import put_hidden
from state.sequences import STEP, steps_of
from state.sorting import begins, distinct
from state.timeline import Merged


def fold_events(
    partition: Partition, batch: EventBatch, progress: Progress, write: WriteBatch
) -> tuple[Records, Records]:
    """Write all changes by a batch; return the STEPs that count from now on, and those that count no longer."""
    events = batch.events
    oldest = int(events["ts"].min())
    only_these = progress.applied - progress.erased <= len(events)
    progress.oldest_ts = oldest if only_these else min(progress.oldest_ts, oldest)
    plus, minus = _fold_sequences(partition, batch, progress, write)
    _fold_edges(partition, batch, progress, write)
    partition.events.append(events, write)

    items = distinct(events["item"])
    touched = distinct(np.concatenate([plus.items(), minus.items(), items]))
    rows = partition.row_records(touched)
    minus.take_out_of(touched, rows)
    # Expiry removes an item with its last edge. Steps of it that are not expired yet may still be in sequences.
    known = rows["ts"] > 0
    known[np.searchsorted(touched, items)] = True
    gained = plus.fold_into(touched, rows, known)
    values, size, handle = rows.tobytes(), rows.itemsize, partition.database.handles["rows"]
    for at, (key, is_known) in enumerate(zip(packed_keys(touched), known.tolist(), strict=True)):
        if is_known:
            write.put(key, values[at * size : (at + 1) * size], handle)
    _put_popular(partition, touched, rows, write)
    return gained, minus.marked_steps()


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

    # New events of these users may change whether older steps count: their whole sequences are compared.
    revising = np.logical_or.reduceat((partition.kinds.undo | partition.kinds.negative)[new["kind"]], starts)
    compared = set(np.flatnonzero(revising).tolist()) | merged.deep
    for row in merged.late:  # an earlier undo may take back a late step
        if partition.kinds.undo[np.frombuffer(merged.heads[row], STEP)["kind"]].any():
            compared.add(row)
    plus = GraphDelta(partition.kinds, partition.settings)
    minus = GraphDelta(partition.kinds, partition.settings)
    _count_appended(partition, merged, starts, ends, compared, plus)
    for row in sorted(compared):
        _count_compared(partition, int(users[row]), new[starts[row] : ends[row]], plus, minus, write)
    return plus, minus


def _count_appended(
    partition: Partition, merged: Merged, starts: Ints, ends: Ints, compared: set[int], plus: GraphDelta
) -> None:
    """Count the new steps of users whose older steps count as before, with the older steps that they pair with."""
    width, window = STEP.itemsize, partition.settings.pair_window_events
    count = ends - starts
    tails = [
        head if row in merged.late else head[-(window + n) * width :]
        for row, (head, n) in enumerate(zip(merged.heads, count.tolist(), strict=True))
    ]
    rows = np.arange(len(tails))
    if compared:
        rows = np.setdiff1d(rows, list(compared))
        tails = [tails[row] for row in rows]
    if not tails:
        return
    lengths = np.array([len(t) // width for t in tails])
    bounds = np.cumsum(lengths)
    within = np.arange(bounds[-1]) - np.repeat(bounds - lengths, lengths)
    new = within >= np.repeat(lengths - count[rows], lengths)
    for at, row in enumerate(rows.tolist()) if merged.late else ():
        if row in merged.late:
            new[bounds[at] - lengths[at] : bounds[at]] = merged.late[row]
    tail = np.frombuffer(b"".join(tails), STEP)
    counts = partition.kinds.counts[tail["kind"]]
    if counts.all():
        plus.add_many(tail, new, lengths)
        return
    # Steps that do not count may separate steps that pair: the whole heads of these users are read.
    mixed = np.logical_or.reduceat(~counts, bounds - lengths)
    plain = np.repeat(~mixed, lengths)
    plus.add_many(tail[plain], new[plain], lengths[~mixed])
    for row in rows[mixed].tolist():
        head = np.frombuffer(merged.heads[row], STEP)
        is_new = merged.late[row] if row in merged.late else np.arange(len(head)) >= len(head) - count[row]
        counting = partition.kinds.counting(head)
        plus.add(head[counting], is_new[counting])


def _count_compared(
    partition: Partition, user: int, new: Records, plus: GraphDelta, minus: GraphDelta, write: WriteBatch
) -> None:
    """Compare what counts of a user before and after the new steps; write the user's hidden items."""
    kinds, old = partition.kinds, partition.users.between(user)
    both = np.concatenate([old, new])
    order = np.argsort(both["ts"], kind="stable")
    after = both[order]
    not_undone = kinds.not_undone(after)
    counting_after = not_undone & kinds.counts[after["kind"]]
    # In order of arrival, as `both`:
    counted = np.zeros(len(both), bool)
    counted[: len(old)] = kinds.counting(old)
    counting = np.zeros(len(both), bool)
    counting[order] = counting_after
    plus.add(after[counting_after], (~counted)[order][counting_after])
    minus.add(old[counted[: len(old)]], (~counting)[: len(old)][counted[: len(old)]])
    negative = after[not_undone & kinds.negative[after["kind"]]]
    hidden = np.empty(len(negative), HIDDEN)
    hidden["item"], hidden["ts"] = negative["item"], negative["ts"]
    put_hidden(partition, user, hidden, bool(kinds.negative[old["kind"]].any()), write)


def _put_ids(partition: Partition, prefix: bytes, hashes: Ids, ids: list[bytes], write: WriteBatch) -> None:
    handle = partition.database.handles["ids"]
    for key, identifier in zip(packed_keys(hashes), ids, strict=True):
        write.put(prefix + key, identifier, handle)


def _fold_edges(partition: Partition, batch: EventBatch, progress: Progress, write: WriteBatch) -> None:
    """Write the edges of the batch's items."""
    ordered, items, first, starts, ends = _grouped(batch.events, "item")
    edges = np.empty(len(ordered), EDGE)
    for name in ("user", "ts", "kind"):
        edges[name] = ordered[name]
    merged = partition.items.append(items, edges, starts, ends, write, int(batch.events["offset"][0]))
    unknown = merged.before == 0
    _put_ids(partition, b"i", items[unknown], [batch.items[row] for row in first[unknown].tolist()], write)
    progress.items += int(unknown.sum())


def _put_popular(partition: Partition, touched: Ids, rows: Records, write: WriteBatch) -> None:
    """Update the list of the most popular items.

    All popularities decay alike, so an item's rank rises only when it is touched.
    """
    clicked = rows["popularity"] > 0
    scored = np.empty(int(clicked.sum()), POPULAR)
    scored["item"] = touched[clicked]
    scored["score"] = (
        np.log2(rows["popularity"][clicked]) + rows["ts"][clicked] / 1000.0 / partition.settings.popularity_half_life_s
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
