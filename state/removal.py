"""What leaves a store: steps behind the horizon, and everything of a user who is to be forgotten.

A removal is a WriteBatch of its own, its counts in the marks with it, and changes nothing that a batch of events relies
on: after a crash between the two the removal is done, and the batch is read again.
"""

from typing import NamedTuple

import numpy as np
from rocksdict import WriteBatch

from state.events import Ids, Records
from state.graph_delta import Counted, take_out
from state.journal import CHUNK, DAY_MS
from state.partition import HIDDEN, KEY, POPULAR, Partition
from state.progress import Progress


class Removed(NamedTuple):
    """What has left."""

    steps: Records
    """STEPs that counted and do no longer."""
    users: Ids
    """Users without any step left."""
    items: Ids
    """Items without any edge left."""


def expire(partition: Partition, marks: Progress, horizon: int, budget: int, write: WriteBatch) -> Removed | None:
    """Remove the oldest days that lie wholly behind the horizon: about `budget` events, by whole chunks.

    A user or item that they name loses all steps of such days.
    """
    journal, horizon = partition._journal, horizon // DAY_MS * DAY_MS
    chunks, left = [], budget
    last_day = horizon // DAY_MS - 1
    for key in journal.chunks(marks.oldest_ts // DAY_MS, last_day):
        marks.oldest_ts = CHUNK.unpack(key)[1] * DAY_MS
        if left <= 0:
            break
        chunks.append(journal.chunk(key))
        left -= len(chunks[-1])
        journal.replace(key, chunks[-1][:0], write)
    if left > 0:
        marks.oldest_ts = (last_day + 1) * DAY_MS
    if not chunks:
        return None
    users = np.unique(np.concatenate(chunks)["user"])
    dropped, emptied = partition.users.prune(users, horizon, write)
    counted = Counted(partition)
    for user, gone in zip(users.tolist(), dropped, strict=True):
        if len(gone):
            steps = partition.users.between(user)
            count = partition.kinds.standing(steps) & partition.kinds.counts[steps["kind"]]
            counted.add(steps[count], (np.arange(len(steps)) < len(gone))[count])
    every = np.concatenate(dropped)
    items = np.unique(every["item"])
    _, item_emptied = partition.items.prune(items, horizon, write)
    marks.expired += len(every)
    for user, value in zip(users.tolist(), partition._get("hidden", users), strict=True):
        hidden = np.frombuffer(value or b"", HIDDEN)
        put_hidden(partition, user, hidden[hidden["ts"] >= horizon], len(hidden), write)
    removed = Removed(counted.marked(), users[emptied], items[item_emptied])
    _remove(partition, marks, counted, removed, write)
    return removed


def erase(partition: Partition, marks: Progress, user: int, write: WriteBatch) -> tuple[Removed, list[int]]:
    """Remove a user but for the journal; the days of event time in which the journal may name the user."""
    steps = partition.users.between(user)
    counted = Counted(partition)
    count = partition.kinds.standing(steps) & partition.kinds.counts[steps["kind"]]
    counted.add(steps[count], np.ones(int(count.sum()), bool))
    items = np.unique(steps["item"])
    emptied = [partition.items.remove(i, user, steps["ts"][steps["item"] == i], write) for i in items.tolist()]
    partition.users.clear(user, write)
    write.delete(KEY.pack(user), partition._handle["hidden"])
    marks.erased += len(steps)
    known = partition.user_ids(np.array([user], np.uint64))[0] is not None
    removed = Removed(counted.marked(), np.array([user] if known else [], np.uint64), items[emptied])
    _remove(partition, marks, counted, removed, write)
    days = np.unique(steps["ts"] // DAY_MS).tolist()
    before = {CHUNK.unpack(key)[1] for key in partition._journal.chunks(0, partition.horizon() // DAY_MS)}
    return removed, sorted(before | set(days))


def put_hidden(partition: Partition, user: int, hidden: Records, before: int, write: WriteBatch) -> None:
    """Keep HIDDEN records of a user who had `before` of them."""
    if len(hidden):
        write.put(KEY.pack(user), hidden.tobytes(), partition._handle["hidden"])
    elif before:
        write.delete(KEY.pack(user), partition._handle["hidden"])


def _remove(partition: Partition, marks: Progress, counted: Counted, removed: Removed, write: WriteBatch) -> None:
    """Rows without the marked steps; users and items of whom nothing is left, wholly."""
    ids, rows_of = partition._handle["ids"], partition._handle["rows"]
    for user in removed.users.tolist():
        write.delete(b"u" + KEY.pack(user), ids)
        write.delete(KEY.pack(user), partition._handle["recommended"])
    marks.users -= len(removed.users)

    gone = partition.row_records(removed.items)
    steps, _, _ = counted.all()
    touched = np.unique(np.concatenate([steps["item"], removed.items, gone["nodes"].ravel()]))
    touched = touched[touched != 0]
    there = [value is not None for value in partition._get("rows", touched)]
    rows = partition.row_records(touched)
    take_out(counted, touched, rows, partition._settings)
    lost = np.isin(rows["nodes"], removed.items) & (rows["nodes"] != 0)
    for name in ("nodes", "after", "before"):
        rows[name] = np.where(lost, 0, rows[name])
    for item, row, known in zip(touched.tolist(), rows, there, strict=True):
        if known:  # the item of a step may be gone before the step is: its edges are pruned together
            write.put(KEY.pack(item), row.tobytes(), rows_of)
    for item in removed.items.tolist():
        write.delete(KEY.pack(item), rows_of)
        write.delete(b"i" + KEY.pack(item), ids)
    marks.items -= len(removed.items)
    popular = partition.popular()
    kept = popular[~np.isin(popular["item"], removed.items)]
    if len(kept) < len(popular):
        write.put(b"popular", kept.astype(POPULAR).tobytes())
