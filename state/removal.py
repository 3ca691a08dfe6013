"""Steps that leave a store: those behind the horizon, and all steps of a forgotten user.

A removal is a WriteBatch of its own, together with its counts in the progress. It changes nothing that a batch of
events relies on. After a crash between the two WriteBatches the removal is done, and the batch is read again.
"""

from typing import NamedTuple

import numpy as np
from rocksdict import WriteBatch

from state.events import Ids, Ints, Records
from state.graph_delta import GraphDelta
from state.journal import CHUNK_KEY, DAY_MS
from state.kinds import Mask
from state.pairs import COUNTS
from state.partition import POPULAR, UINT64, Partition
from state.progress import Progress
from state.timeline import ALL_TIME, Left


class Removed(NamedTuple):
    """Steps, users and items that left the state."""

    steps: Records
    """STEPs that counted for others and no longer do."""
    users: Ids
    """Users without any step left."""
    items: Ids
    """Items without any edge left."""


def expire(partition: Partition, progress: Progress, horizon: int, budget: int, write: WriteBatch) -> Removed | None:
    """Remove the oldest days that are entirely behind the horizon, in whole chunks, about `budget` events.

    A user or item of these chunks loses all its steps of such days. Returns None when there was nothing to remove.
    """
    horizon = horizon // DAY_MS * DAY_MS
    chunks = _take_chunks(partition, progress, horizon // DAY_MS - 1, budget, write)
    if not chunks:
        return None
    users = np.unique(np.concatenate(chunks)["user"])
    expired, left = partition.users.prune(users, horizon, write)
    emptied = (left.oldest == ALL_TIME) & np.array([len(gone) > 0 for gone in expired], bool)
    delta = GraphDelta(partition.kinds, partition.settings)
    for user, gone in zip(users.tolist(), expired, strict=True):
        if len(gone):
            steps = partition.users.between(user)
            _add_leaving(partition, delta, steps, np.arange(len(steps)) < len(gone))
    steps = np.concatenate(expired)
    progress.expired += len(steps)
    items = np.unique(steps["item"])
    _, edges = partition.items.prune(items, horizon, write)
    for user, hidden in zip(users.tolist(), partition.hidden_records(users), strict=True):
        put_hidden(partition, user, hidden[hidden["ts"] >= horizon], len(hidden) > 0, write)
    return _remove(partition, progress, delta, users[emptied], items, edges, write)


def erase(
    partition: Partition, progress: Progress, users: Ids, write: WriteBatch
) -> tuple[Removed, dict[int, list[int]]]:
    """Remove users from everything but the journal.

    Returns what left, and for each user the days of event time in which the journal may still name the user.
    """
    delta = GraphDelta(partition.kinds, partition.settings)
    before_horizon = {CHUNK_KEY.unpack(key)[1] for key in partition.events.chunks(0, partition.horizon() // DAY_MS)}
    days: dict[int, list[int]] = {}
    steps, lengths = partition.users.take(users, write)
    _add_all(partition, delta, steps, lengths)
    step_days, ends = (steps["ts"] // DAY_MS).tolist(), np.cumsum(lengths)
    for user, start, end in zip(users.tolist(), (ends - lengths).tolist(), ends.tolist(), strict=True):
        write.delete(UINT64.pack(user), partition.database.handles["hidden"])
        days[user] = sorted(before_horizon.union(step_days[start:end]))
    steps = steps[np.argsort(steps["item"], kind="stable")]
    items, counts = np.unique(steps["item"], return_counts=True)
    edges = partition.items.remove(items, users, steps["ts"], np.cumsum(counts), write)
    progress.erased += len(steps)
    known = np.array([name is not None for name in partition.user_ids(users)], bool)
    return _remove(partition, progress, delta, users[known], items, edges, write), days


def _add_leaving(partition: Partition, delta: GraphDelta, steps: Records, leaving: Mask) -> None:
    """Add one user's steps. The `leaving` ones change the graph."""
    counting = partition.kinds.counting(steps)
    shared = partition.shared(steps, counting)
    delta.add(steps[counting], shared[counting], leaving[counting], (leaving & shared)[counting])


def _add_all(partition: Partition, delta: GraphDelta, steps: Records, lengths: Ints) -> None:
    """Add all steps of many users, user after user; all of them leave."""
    kinds = partition.kinds
    counting, undos = kinds.counts[steps["kind"]], np.flatnonzero(kinds.undo[steps["kind"]])
    ends = np.cumsum(lengths)
    for row in np.unique(np.searchsorted(ends, undos, "right")):
        part = slice(ends[row] - lengths[row], ends[row])
        counting[part] = kinds.counting(steps[part])
    shared = partition.caps.within(steps, counting, lengths, kinds)[counting]
    owner = np.repeat(np.arange(len(lengths)), lengths)
    counted = np.bincount(owner[counting], minlength=len(lengths))
    delta.add_many(steps[counting], shared, np.ones(len(shared), bool), shared, counted)


def put_hidden(partition: Partition, user: int, hidden: Records, stored: bool, write: WriteBatch) -> None:
    """Write a user's HIDDEN records; `stored`: whether the user may have some on disk."""
    if len(hidden):
        write.put(UINT64.pack(user), hidden.tobytes(), partition.database.handles["hidden"])
    elif stored:
        write.delete(UINT64.pack(user), partition.database.handles["hidden"])


def _take_chunks(
    partition: Partition, progress: Progress, last_day: int, budget: int, write: WriteBatch
) -> list[Records]:
    """Remove the journal's oldest chunks up to a day; return their events."""
    chunks, left = [], budget
    for key in partition.events.chunks(progress.oldest_ts // DAY_MS, last_day):
        progress.oldest_ts = CHUNK_KEY.unpack(key)[1] * DAY_MS
        if left <= 0:
            break
        chunks.append(partition.events.chunk(key))
        left -= len(chunks[-1])
        partition.events.replace(key, chunks[-1][:0], write)
    if left > 0:
        progress.oldest_ts = (last_day + 1) * DAY_MS
    return chunks


def _remove(
    partition: Partition,
    progress: Progress,
    delta: GraphDelta,
    users: Ids,
    items: Ids,
    edges: Left,
    write: WriteBatch,
) -> Removed:
    """Take the steps out of the item-item graph, and remove the users and items that have nothing left.

    `users` have no step left, and `edges` is what the `items` have left. Edges expire by item, and an expired step of a
    user can wait longer. The row that counts it stays: it is taken out later, even if the item has come back.
    """
    handles = partition.database.handles
    for user in users.tolist():
        write.delete(b"u" + UINT64.pack(user), handles["ids"])
        write.delete(UINT64.pack(user), handles["recommended"])
    progress.users -= len(users)

    without_edges = items[edges.oldest == ALL_TIME]
    neighbours = partition.row_records(without_edges)["nodes"].ravel()
    touched = np.unique(np.concatenate([delta.items(), items, neighbours]))
    touched = touched[touched != 0]
    rows, stored = partition.row_records_known(touched)
    delta.take_out_of(touched, rows)
    of_items = np.searchsorted(touched, items)
    rows["first_ts"][of_items] = np.where(edges.oldest < ALL_TIME, edges.oldest, 0)
    rows["last_ts"][of_items] = edges.newest
    places = np.searchsorted(touched, without_edges)
    removed = without_edges[stored[places] & (rows["degree"][places] == 0)]
    gone = np.isin(rows["nodes"], removed) & (rows["nodes"] != 0)
    for name in ("nodes", *COUNTS):
        rows[name] = np.where(gone, 0, rows[name])
    for item, row, known in zip(touched.tolist(), rows, stored.tolist(), strict=True):
        if known:  # edges are pruned by item, so an item may be gone before all its steps are
            write.put(UINT64.pack(item), row.tobytes(), handles["rows"])
    for item in removed.tolist():
        write.delete(UINT64.pack(item), handles["rows"])
        write.delete(b"i" + UINT64.pack(item), handles["ids"])
    progress.items -= len(removed)
    popular = partition.popular()
    left = popular[~np.isin(popular["item"], removed)]
    if len(left) < len(popular):
        write.put(b"popular", left.astype(POPULAR).tobytes())
    return Removed(delta.clicked_steps(), users, removed)
