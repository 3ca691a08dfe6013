"""Which events of a batch are taken: not one that was seen, nor one that is older than the window."""

import numpy as np
import xxhash
from rocksdict import WriteBatch

from state.events import EventBatch
from state.partition import KEY, Partition


def drop_duplicates(
    partition: Partition, batch: EventBatch, first_offset: int, next_offset: int, write: WriteBatch
) -> tuple[EventBatch, int]:
    """Drop events whose id was seen, but no forget; ids are forgotten a whole generation of offsets at a time.

    The batch is what the log has from `first_offset` up to `next_offset`.

    What an event's own generation and the one before it know depends on the log alone, not on how it is cut into
    batches.
    """
    if not batch.ids:
        return batch, 0
    every = partition._settings.dedup_window_events
    forget = partition.kinds.forget[batch.events["kind"]]
    rows = [row for row in batch.ids if not forget[row]]
    digests = [xxhash.xxh3_128_digest(batch.ids[row]) for row in rows]
    generations = (batch.events["offset"][rows] // every).tolist()
    now = [KEY.pack(g) + d for g, d in zip(generations, digests, strict=True)]
    before = [KEY.pack(max(g - 1, 0)) + d for g, d in zip(generations, digests, strict=True)]
    stored = [
        a is not None or b is not None for a, b in zip(*map(partition._column["seen"].get, (now, before)), strict=True)
    ]
    met: set[bytes] = set()
    dropped: list[int] = []
    for row, was, key, key_before in zip(rows, stored, now, before, strict=True):
        if was or key in met or key_before in met:
            dropped.append(row)
        else:
            met.add(key)
            write.put(key, b"", partition._handle["seen"])
    # Once a generation: with every batch the ranges would pile up, and each read goes through all of them.
    if next_offset // every > max(first_offset // every, 1):
        write.delete_range(KEY.pack(0), KEY.pack(next_offset // every - 1), partition._handle["seen"])
    if not dropped:
        return batch, 0
    return batch.take(np.setdiff1d(np.arange(len(batch.events)), dropped)), len(dropped)


def drop_too_old(partition: Partition, batch: EventBatch, newest_ts: int) -> tuple[EventBatch, int, int]:
    """Drop events that were behind the horizon when they arrived, but no forget; how many, and the newest time now."""
    if not len(batch.events):
        return batch, 0, newest_ts
    ts, forget = batch.events["ts"], partition.kinds.forget[batch.events["kind"]]
    newest = np.maximum(np.maximum.accumulate(np.where(forget, 0, ts)), newest_ts)
    window_ms = int(partition._settings.window_s * 1000)
    kept = np.flatnonzero(forget | (ts >= newest - window_ms)) if window_ms else np.arange(len(ts))
    dropped = len(ts) - len(kept)
    return batch.take(kept) if dropped else batch, dropped, int(newest[-1])
