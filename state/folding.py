"""What a batch of events changes: both directions of the graph, the item-item graph, the journal, the ids."""

import numpy as np
from rocksdict import WriteBatch

from state.events import EventBatch, Ids, Ints, Records, packed_keys
from state.graph import fold, pairs_in
from state.graph_delta import Counted, take_out
from state.partition import EDGE, HIDDEN, POPULAR, Partition
from state.progress import Progress
from state.removal import put_hidden
from state.sequences import STEP
from state.sorting import begins, distinct
from state.timeline import Merged


def fold_events(partition: Partition, batch: EventBatch, marks: Progress, write: WriteBatch) -> tuple[Records, Records]:
    """Write what the events change; the steps that count from now on, and those that do no longer."""
    events = batch.events
    oldest = int(events["ts"].min())
    marks.oldest_ts = min(marks.oldest_ts, oldest) if marks.applied - marks.erased > len(events) else oldest
    plus, minus = _fold_sequences(partition, batch, marks, write)
    _fold_edges(partition, batch, marks, write)
    partition._journal.append(events, write)

    counted, new, owner = plus.all()
    lost, marked, _ = minus.all()
    items = distinct(events["item"])
    touched = distinct(np.concatenate([counted["item"], lost["item"], items]))
    rows = partition.row_records(touched)
    take_out(minus, touched, rows, partition._settings)
    # An item may be gone although a user's step, which is not reached yet, still names it.
    there = rows["ts"] > 0
    there[np.searchsorted(touched, items)] = True
    place = np.searchsorted(touched, counted["item"])
    if not there.all():
        known = there[place]
        counted, new, owner, place = counted[known], new[known], owner[known], place[known]
    weight = partition.kinds.weight[counted["kind"]]
    pairs = pairs_in(place, counted["ts"], weight, owner, new, partition._settings.pair_window_events)
    fold(touched, rows, place[new], counted["ts"][new], weight[new], pairs, partition._settings)
    values, size, column = rows.tobytes(), partition._row.itemsize, partition._handle["rows"]
    for at, (key, known) in enumerate(zip(packed_keys(touched), there.tolist(), strict=True)):
        if known:
            write.put(key, values[at * size : (at + 1) * size], column)
    _put_popular(partition, touched, rows, write)
    return counted[new], lost[marked]


def _fold_sequences(
    partition: Partition, batch: EventBatch, marks: Progress, write: WriteBatch
) -> tuple[Counted, Counted]:
    """Write the touched users' sequences; the steps to fold into the item-item graph, and those to take out."""
    ordered, users, first, starts, ends = _grouped(batch.events, "user")
    new = np.empty(len(ordered), STEP)
    for name in ("item", "ts", "kind"):
        new[name] = ordered[name]
    merged = partition.users.append(users, new, starts, ends, write, int(batch.events["offset"][0]))
    unknown = merged.before == 0
    _put_names(partition, b"u", users[unknown], [batch.users[row] for row in first[unknown].tolist()], write)
    marks.users += int(unknown.sum())

    changing = np.logical_or.reduceat((partition.kinds.undo | partition.kinds.negative)[new["kind"]], starts)
    odd = set(np.flatnonzero(changing).tolist()) | merged.deep
    for row in merged.late:  # a step before an undo may be what it takes back
        if partition.kinds.undo[np.frombuffer(merged.heads[row], STEP)["kind"]].any():
            odd.add(row)
    plus, minus = Counted(partition), Counted(partition)
    _count_plain(partition, merged, starts, ends, odd, plus)
    for row in sorted(odd):
        _count_odd(partition, int(users[row]), new[starts[row] : ends[row]], plus, minus, write)
    return plus, minus


def _count_plain(partition: Partition, merged: Merged, starts: Ints, ends: Ints, odd: set[int], plus: Counted) -> None:
    """Of users whose new events change nothing about older ones: the new steps, with those that they pair with."""
    width, window = STEP.itemsize, partition._settings.pair_window_events
    count = ends - starts
    tails = [
        head if row in merged.late else head[-(window + n) * width :]
        for row, (head, n) in enumerate(zip(merged.heads, count.tolist(), strict=True))
    ]
    rows = np.arange(len(tails))
    if odd:
        rows = np.setdiff1d(rows, list(odd))
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
    # Steps that do not count lie between those that pair: such users' heads are read whole.
    mixed = np.logical_or.reduceat(~counts, bounds - lengths)
    plain = np.repeat(~mixed, lengths)
    plus.add_many(tail[plain], new[plain], lengths[~mixed])
    for row in rows[mixed].tolist():
        head = np.frombuffer(merged.heads[row], STEP)
        is_new = merged.late[row] if row in merged.late else np.arange(len(head)) >= len(head) - count[row]
        stands = partition.kinds.standing(head) & partition.kinds.counts[head["kind"]]
        plus.add(head[stands], is_new[stands])


def _count_odd(partition: Partition, user: int, new: Records, plus: Counted, minus: Counted, write: WriteBatch) -> None:
    """Of a user whose new events may change what older ones count for: what is gained, lost and hidden."""
    kinds, old = partition.kinds, partition.users.between(user)
    both = np.concatenate([old, new])
    order = np.argsort(both["ts"], kind="stable")
    after = both[order]
    stands = kinds.standing(after)
    counts = stands & kinds.counts[after["kind"]]
    counted = np.zeros(len(both), bool)
    counted[: len(old)] = kinds.standing(old) & kinds.counts[old["kind"]]
    counting = np.zeros(len(both), bool)
    counting[order] = counts
    plus.add(after[counts], (~counted)[order][counts])
    minus.add(old[counted[: len(old)]], (~counting)[: len(old)][counted[: len(old)]])
    negative = after[stands & kinds.negative[after["kind"]]]
    hidden = np.empty(len(negative), HIDDEN)
    hidden["item"], hidden["ts"] = negative["item"], negative["ts"]
    put_hidden(partition, user, hidden, kinds.negative[old["kind"]].any(), write)


def _put_names(partition: Partition, prefix: bytes, hashes: Ids, names: list[bytes], write: WriteBatch) -> None:
    column = partition._handle["ids"]
    for key, name in zip(packed_keys(hashes), names, strict=True):
        write.put(prefix + key, name, column)


def _fold_edges(partition: Partition, batch: EventBatch, marks: Progress, write: WriteBatch) -> None:
    """Write the other direction of the graph."""
    ordered, items, first, starts, ends = _grouped(batch.events, "item")
    edges = np.empty(len(ordered), EDGE)
    for name in ("user", "ts", "kind"):
        edges[name] = ordered[name]
    merged = partition.items.append(items, edges, starts, ends, write, int(batch.events["offset"][0]))
    unknown = merged.before == 0
    _put_names(partition, b"i", items[unknown], [batch.items[row] for row in first[unknown].tolist()], write)
    marks.items += int(unknown.sum())


def _put_popular(partition: Partition, touched: Ids, rows: Records, write: WriteBatch) -> None:
    """Keep the most popular at hand: popularities decay alike, so an item's rank rises only when it is touched."""
    clicked = rows["popularity"] > 0
    scored = np.empty(int(clicked.sum()), POPULAR)
    scored["item"] = touched[clicked]
    scored["score"] = (
        np.log2(rows["popularity"][clicked]) + rows["ts"][clicked] / 1000.0 / partition._settings.popularity_half_life_s
    )
    before = partition.popular()
    kept = before[~np.isin(before["item"], touched)]
    both = np.concatenate([kept, scored])
    best = both[np.argsort(-both["score"], kind="stable")[: partition._settings.popular_items]]
    write.put(b"popular", best.tobytes())


def _grouped(events: Records, by: str) -> tuple[Records, Ids, Ints, Ints, Ints]:
    """Events by one of their ends, in order of arrival within each.

    They; the ends, and the row of each one's first event; where each begins among them and stops.
    """
    order = np.argsort(events[by], kind="stable")
    ordered = events[order]
    starts = np.flatnonzero(begins(ordered[by]))
    return ordered, ordered[by][starts], order[starts], starts, np.append(starts[1:], len(ordered))
