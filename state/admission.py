"""Admission of a batch's events: duplicates and events older than the window are dropped."""

import numpy as np
from rocksdict import WriteBatch

from state.events import EventBatch
from state.partition import UINT64, Partition


def drop_duplicates(
    partition: Partition, batch: EventBatch, first_offset: int, next_offset: int, write: WriteBatch
) -> tuple[EventBatch, int]:
    """Drop events whose id was seen before; return the others and how many were dropped. No forget is dropped.

    The batch is what the log holds from `first_offset` up to `next_offset`. Ids are kept by generation: a generation is
    `dedup_window_events` offsets. An id is compared with its own generation and the one before. So the result depends
    on the log alone, not on its batches.
    """
    if not batch.ids:
        return batch, 0
    window = partition.settings.dedup_window_events
    forget = partition.kinds.forget[batch.events["kind"]]
    rows = [row for row in batch.ids if not forget[row]]
    users = batch.events["user"][rows].tolist()
    digests = [partition.ids.of_repeat(user, batch.ids[row]) for user, row in zip(users, rows, strict=True)]
    generations = (batch.events["offset"][rows] // window).tolist()
    now = [UINT64.pack(g) + d for g, d in zip(generations, digests, strict=True)]
    before = [UINT64.pack(max(g - 1, 0)) + d for g, d in zip(generations, digests, strict=True)]
    found = (partition.database.get_many("seen", keys) for keys in (now, before))
    stored = [a is not None or b is not None for a, b in zip(*found, strict=True)]
    handle = partition.database.handles["seen"]
    met: set[bytes] = set()
    dropped: list[int] = []
    for row, was, key, key_before in zip(rows, stored, now, before, strict=True):
        if was or key in met or key_before in met:
            dropped.append(row)
        else:
            met.add(key)
            write.put(key, b"", handle)
    # One range for each generation: every read goes through all deleted ranges, so one for each batch would be slow.
    if next_offset // window > max(first_offset // window, 1):
        write.delete_range(UINT64.pack(0), UINT64.pack(next_offset // window - 1), handle)
    if not dropped:
        return batch, 0
    return batch.take(np.setdiff1d(np.arange(len(batch.events)), dropped)), len(dropped)


def drop_too_old(partition: Partition, batch: EventBatch, newest_ts: int) -> tuple[EventBatch, int, int]:
    """Drop events that were behind the horizon when they arrived. No forget is dropped.

    Returns the others, how many were dropped, and the newest event time now.
    """
    if not len(batch.events):
        return batch, 0, newest_ts
    ts, forget = batch.events["ts"], partition.kinds.forget[batch.events["kind"]]
    newest = np.maximum(np.maximum.accumulate(np.where(forget, 0, ts)), newest_ts)
    window_ms = int(partition.settings.window_s * 1000)
    kept = np.flatnonzero(forget | (ts >= newest - window_ms)) if window_ms else np.arange(len(ts))
    dropped = len(ts) - len(kept)
    return batch.take(kept) if dropped else batch, dropped, int(newest[-1])
