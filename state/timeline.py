"""A node's steps in order of event time: one direction of the temporal graph.

    head      node                               -> the newest steps, at least `head_steps` where there are as many
    leaves    node, first time, order, steps     -> LEAF_STEPS older steps, more after late ones were inserted

Head and leaves together are one array, ordered by time; steps of equal time keep their order of arrival. The array is
cut into pieces whose times do not overlap. A query at time t reads the head and the leaves around t. A late step is
inserted into the piece that covers its time. A leaf's key holds its number of steps, so counting reads keys only.

An iterator that meets a damaged block ends as if it had reached the last one. Only its status shows the damage, so
every loop over an iterator checks the status afterwards.
"""

import struct
from collections.abc import Collection
from typing import Any, NamedTuple

import numpy as np
from rocksdict import WriteBatch

from state.events import Ids, Ints, Records, packed_keys
from state.kinds import Mask
from state.rocksdb import Database

LEAF_STEPS = 64
"""Steps in a new leaf."""
LEAF_KEY = struct.Struct(">QQQI")
"""Node, first time, order, number of steps."""
NODE_KEY = struct.Struct(">Q")
MAX_TIME = MAX_ORDER = 2**64 - 1
MAX_STEPS = 2**32 - 1
"""The largest values in a leaf's key."""
ORDER_BITS = 20
"""Bits of a leaf's order that count the leaves of one node at one offset."""
ALL_TIME = 2**63 - 1
"""A time after every event."""


class Merged(NamedTuple):
    """The heads of nodes after new steps were merged into them."""

    heads: list[bytes]
    """Packed steps, before the oldest of a full head move to leaves."""
    before: Ints
    """Steps that each head had before."""
    late: dict[int, Mask]
    """By row, which steps of the head are new; only rows whose new steps are not the last ones."""
    deep: set[int]
    """Rows with a late step in a leaf: their heads do not hold all new steps."""


class Left(NamedTuple):
    """What nodes have left after a removal."""

    oldest: Ints
    """Time of each node's oldest step; ALL_TIME where it has none."""
    newest: Ints
    """Time of its newest step; 0 where it has none."""


class Timelines:
    """One direction of the graph in one store."""

    def __init__(self, database: Database, heads: str, leaves: str, step: np.dtype[Any], head_steps: int) -> None:
        """`heads` and `leaves` name the column families; `step` is the record, its first field the other end."""
        self._database = database
        self._heads, self._leaves = heads, leaves
        self._step, self._head_steps = step, head_steps
        self._other_end = step.names[0]  # type: ignore[index]
        self._head_bytes = head_steps * step.itemsize
        """A shorter head has no leaves."""

    def heads(self, nodes: Ids) -> list[bytes | None]:
        """The nodes' newest steps, packed."""
        return self._heads_at(packed_keys(nodes))

    def before(self, node: int, t: int, count: int, horizon: int = 0) -> Records:
        """The last `count` steps before time t and not before the horizon, oldest first."""
        pieces = [self._head(node)]
        pieces[0] = pieces[0][: np.searchsorted(pieces[0]["ts"], t)]
        found = len(pieces[0])
        if found < count and t > 0:
            it = self._database.columns[self._leaves].iter()
            it.seek_for_prev(LEAF_KEY.pack(node, min(t - 1, MAX_TIME), MAX_ORDER, MAX_STEPS))
            name = NODE_KEY.pack(node)
            while found < count and it.valid() and it.key()[:8] == name:
                leaf = np.frombuffer(it.value(), self._step)
                pieces.append(leaf[: np.searchsorted(leaf["ts"], t)])
                found += len(pieces[-1])
                if leaf["ts"][0] < horizon:
                    break
                it.prev()
            it.status()
        steps = np.concatenate(pieces[::-1]) if len(pieces) > 1 else pieces[0]
        return steps[max(len(steps) - count, int(np.searchsorted(steps["ts"], horizon))) :]

    def between(self, node: int, start: int = 0, end: int = ALL_TIME) -> Records:
        """All steps with start <= time < end."""
        pieces = [np.frombuffer(value, self._step) for _, value in self._leaves_between(node, start, end)]
        steps = np.concatenate([*pieces, self._head(node)])
        first, last = np.searchsorted(steps["ts"], (start, end))
        return steps[first:last]

    def after(self, node: int, t: int, count: int, end: int) -> Records:
        """The first `count` steps with t < time < end."""
        it = self._database.columns[self._leaves].iter()
        self._seek(it, node, t + 1)
        pieces, found, name = [], 0, NODE_KEY.pack(node)
        while found < count and it.valid() and it.key()[:8] == name:
            leaf = np.frombuffer(it.value(), self._step)
            first, last = np.searchsorted(leaf["ts"], (t + 1, end))
            pieces.append(leaf[first:last])
            found += last - first
            if last < len(leaf):
                break
            it.next()
        it.status()
        if found < count:
            head = self._head(node)
            first, last = np.searchsorted(head["ts"], (t + 1, end))
            pieces.append(head[first:last])
        return np.concatenate(pieces)[:count]

    def count(self, node: int, start: int, end: int) -> int:
        """How many steps have start <= time < end; reads only the first and the last leaf of them."""
        if end <= start:
            return 0
        leaves = self._database.columns[self._leaves]
        it = leaves.iter()
        self._seek(it, node, start)
        name, keys = NODE_KEY.pack(node), []
        while it.valid() and (key := it.key())[:8] == name and LEAF_KEY.unpack(key)[1] < end:
            keys.append(key)
            it.next()
        it.status()
        total = sum(LEAF_KEY.unpack(key)[3] for key in keys[1:-1])
        for key in {*keys[:1], *keys[-1:]}:
            total += self._count_within(np.frombuffer(leaves.get(key), self._step), start, end)
        return int(total) + self._count_within(self._head(node), start, end)

    def append(self, nodes: Ids, new: Records, starts: Ints, ends: Ints, write: WriteBatch, offset: int) -> Merged:
        """Add steps in order of arrival: node `r` gets `new[starts[r]:ends[r]]`.

        `offset` grows from call to call: it orders leaves that begin at the same time.
        """
        width, keys = self._step.itemsize, packed_keys(nodes)
        stored, none = self._heads_at(keys), bytes(width)
        times = new["ts"]
        newest = np.frombuffer(b"".join([v[-width:] if v else none for v in stored]), self._step)["ts"]
        back = np.zeros(len(new), bool)
        back[1:] = times[1:] < times[:-1]
        back[starts] = times[starts] < newest  # 0 where the node has no steps yet
        late_rows = np.flatnonzero(np.logical_or.reduceat(back, starts)).tolist() if len(starts) else []

        packed, limits = new.tobytes(), list(zip((starts * width).tolist(), (ends * width).tolist(), strict=True))
        heads = [(old + packed[a:b]) if old else packed[a:b] for old, (a, b) in zip(stored, limits, strict=True)]
        lengths = np.fromiter(map(len, heads), np.int64, len(heads))
        before = lengths // width - (ends - starts)
        deep: set[int] = set()
        for row in late_rows:
            # A node with leaves has a head of at least `head_steps` steps.
            if before[row] >= self._head_steps and times[starts[row] : ends[row]].min() < self._first_ts(stored[row]):
                node, late_steps = int(nodes[row]), packed[slice(*limits[row])]
                into_leaves, into_head = self._split_late(node, stored[row], late_steps)
                self._insert_into_leaves(node, into_leaves, write)
                heads[row] = (stored[row] or b"") + into_head.tobytes()
                if len(into_leaves):
                    deep.add(row)
        late = self._sort_heads(heads, before, late_rows)
        self._write_heads(keys, heads, lengths, write, offset)
        return Merged(heads, before, late, deep)

    def _write_heads(
        self, keys: list[bytes], heads: list[bytes], lengths: Ints, write: WriteBatch, offset: int
    ) -> None:
        """Write the heads; the oldest steps of a full head become leaves. `lengths` are upper bounds, in bytes."""
        width, put, kept = self._step.itemsize, write.put, list(heads)
        column, leaves = self._database.handles[self._heads], self._database.handles[self._leaves]
        full = (self._head_steps + LEAF_STEPS) * width
        for row in np.flatnonzero(lengths >= full).tolist():
            leaf = 0
            while len(kept[row]) >= full:
                oldest, kept[row] = kept[row][: LEAF_STEPS * width], kept[row][LEAF_STEPS * width :]
                order = (offset << ORDER_BITS) + leaf
                put(keys[row] + LEAF_KEY.pack(0, self._first_ts(oldest), order, LEAF_STEPS)[8:], oldest, leaves)
                leaf += 1
        for key, head in zip(keys, kept, strict=True):
            put(key, head, column)

    def prune(self, nodes: Ids, horizon: int, write: WriteBatch) -> tuple[list[Records], Left]:
        """Remove steps before the horizon; return the removed steps of each node, and what is left."""
        dropped: list[Records] = []
        oldest, newest = np.full(len(nodes), ALL_TIME), np.zeros(len(nodes), np.int64)
        for row, (node, head) in enumerate(zip(nodes.tolist(), self.heads(nodes), strict=True)):
            pieces: list[Records] = []
            for key, value in self._leaves_between(node, 0, horizon):
                leaf = np.frombuffer(value, self._step)
                last = int(np.searchsorted(leaf["ts"], horizon))
                pieces.append(leaf[:last])
                write.delete(key, self._database.handles[self._leaves])
                if last < len(leaf):
                    self._put_leaf(node, LEAF_KEY.unpack(key)[2], leaf[last:], write)
                    oldest[row] = leaf["ts"][last]
            steps = np.frombuffer(head or b"", self._step)
            last = int(np.searchsorted(steps["ts"], horizon))
            if last:
                pieces.append(steps[:last])
                self._put_head(node, steps[last:], write)
            dropped.append(np.concatenate([*pieces, steps[:0]]))
            if len(steps) >= self._head_steps:
                oldest[row] = min(oldest[row], self._oldest_leaf(node, horizon))
            if last < len(steps):
                oldest[row], newest[row] = min(oldest[row], steps["ts"][last]), steps["ts"][-1]
        return dropped, Left(oldest, newest)

    def take(self, nodes: Ids, write: WriteBatch) -> tuple[Records, Ints]:
        """Remove all steps of these nodes; return them, node after node, and how many each node had."""
        taken: list[bytes] = []
        for node, head in zip(nodes.tolist(), self.heads(nodes), strict=True):
            steps = head or b""
            if len(steps) >= self._head_bytes:
                leaves = self._leaves_between(node, 0, ALL_TIME)
                for key, _ in leaves:
                    write.delete(key, self._database.handles[self._leaves])
                steps = b"".join([*(leaf for _, leaf in leaves), steps])
            write.delete(NODE_KEY.pack(node), self._database.handles[self._heads])
            taken.append(steps)
        lengths = np.fromiter(map(len, taken), np.int64, len(taken)) // self._step.itemsize
        return np.frombuffer(b"".join(taken), self._step), lengths

    def remove(self, nodes: Ids, others: Ids, times: Ints, ends: Ints, write: WriteBatch) -> Left:
        """Remove all steps whose other end is one of `others`; return what is left.

        Node `r` has such steps at `times[ends[r - 1]:ends[r]]`, and each of `others` loses all its steps.
        """
        others, width = np.sort(others), self._step.itemsize
        packed = [head or b"" for head in self.heads(nodes)]
        steps = np.frombuffer(b"".join(packed), self._step)
        kept = ~_is_in(steps[self._other_end], others)
        left_before = np.concatenate([[0], np.cumsum(kept)])
        bounds = left_before[np.cumsum([0, *map(len, packed)]) // width]
        left, oldest, newest = steps[kept], np.full(len(nodes), ALL_TIME), np.zeros(len(nodes), np.int64)
        for row, node in enumerate(nodes.tolist()):
            of_node = left[bounds[row] : bounds[row + 1]]
            if len(packed[row]) >= self._head_bytes:
                at = times[ends[row - 1] if row else 0 : ends[row]]
                removed = len(packed[row]) // width - len(of_node)
                of_node, oldest[row] = self._remove_from_leaves(node, of_node, others, at, removed, write)
            self._put_head(node, of_node, write)
            if len(of_node):
                oldest[row], newest[row] = min(oldest[row], of_node["ts"][0]), of_node["ts"][-1]
        return Left(oldest, newest)

    def _remove_from_leaves(
        self, node: int, left: Records, others: Ids, times: Ints, removed: int, write: WriteBatch
    ) -> tuple[Records, int]:
        """Remove the rest of the steps from the leaves.

        Returns the head that has `left` after `removed` steps, and the time of the oldest step in a leaf, or ALL_TIME.
        """
        left_leaves: dict[bytes, Records] = {}
        wanted: dict[bytes, bytes] = {}
        for t in np.unique(times).tolist() if removed < len(times) else ():
            wanted |= dict(self._leaves_between(node, t, t + 1))
        for key, value in wanted.items():
            leaf = np.frombuffer(value, self._step)
            left_of_leaf = leaf[~_is_in(leaf[self._other_end], others)]
            if len(left_of_leaf) < len(leaf):
                write.delete(key, self._database.handles[self._leaves])
                left_leaves[key] = left_of_leaf
        deleted = set(left_leaves)
        it = self._database.columns[self._leaves].iter()
        it.seek_for_prev(LEAF_KEY.pack(node, MAX_TIME, MAX_ORDER, MAX_STEPS))
        # A head that is shorter than `head_steps` means "no leaves": the newest leaves move back into it.
        while len(left) < self._head_steps and it.valid() and (key := it.key())[:8] == NODE_KEY.pack(node):
            left = np.concatenate([left_leaves.pop(key, np.frombuffer(it.value(), self._step)), left])
            write.delete(key, self._database.handles[self._leaves])
            deleted.add(key)
            it.prev()
        it.status()
        oldest = self._oldest_leaf(node, 0, deleted)
        for key, steps in left_leaves.items():
            if len(steps):
                self._put_leaf(node, LEAF_KEY.unpack(key)[2], steps, write)
                oldest = min(oldest, int(steps["ts"][0]))
        return left, oldest

    def some(self, count: int, seed: int) -> Ids:
        """Up to `count` nodes, sampled uniformly: hashes are uniform, so a random seek is a uniform sample."""
        it = self._database.columns[self._heads].iter()
        drawn: set[int] = set()
        for start in np.random.default_rng(seed).integers(0, 2**64, count, np.uint64, endpoint=False).tolist():
            it.seek(NODE_KEY.pack(start))
            if not it.valid():
                it.seek_to_first()
            if it.valid():
                drawn.add(NODE_KEY.unpack(it.key())[0])
        return np.array(sorted(drawn), np.uint64)

    def _sort_heads(self, heads: list[bytes], before: Ints, rows: list[int]) -> dict[int, Mask]:
        """Sort the heads of these rows by time, in place; return which of their steps are new."""
        if not rows:
            return {}
        width = self._step.itemsize
        joined = np.frombuffer(b"".join(heads[row] for row in rows), self._step)
        lengths = np.array([len(heads[row]) // width for row in rows])
        ends = np.cumsum(lengths)
        owner = np.repeat(np.arange(len(rows)), lengths)
        place = np.arange(len(joined)) - np.repeat(ends - lengths, lengths)
        order = np.lexsort((joined["ts"], owner))
        new = (place >= np.repeat(before[rows], lengths))[order]
        packed = joined[order].tobytes()
        for row, start, end in zip(rows, (ends - lengths).tolist(), ends.tolist(), strict=True):
            heads[row] = packed[start * width : end * width]
        return {row: new[end - n : end] for row, end, n in zip(rows, ends.tolist(), lengths.tolist(), strict=True)}

    def _split_late(self, node: int, stored: bytes | None, packed: bytes) -> tuple[Records, Records]:
        """Split new steps: those older than the head go into leaves, if the node has leaves; the others follow."""
        new = np.frombuffer(packed, self._step)
        it = self._database.columns[self._leaves].iter()
        it.seek_for_prev(LEAF_KEY.pack(node, MAX_TIME, MAX_ORDER, MAX_STEPS))
        if not (it.valid() and it.key()[:8] == NODE_KEY.pack(node)):
            return new[:0], new
        old = new["ts"] < self._first_ts(stored)
        return new[old], new[~old]

    def _insert_into_leaves(self, node: int, new: Records, write: WriteBatch) -> None:
        """Insert steps that are older than the head into the leaves that cover their times."""
        it = self._database.columns[self._leaves].iter()
        into: dict[bytes, tuple[bytes, list[int]]] = {}
        for row, t in enumerate(new["ts"].tolist()):
            it.seek_for_prev(LEAF_KEY.pack(node, t, MAX_ORDER, MAX_STEPS))
            if not (it.valid() and it.key()[:8] == NODE_KEY.pack(node)):
                it.seek(LEAF_KEY.pack(node, 0, 0, 0))
            into.setdefault(it.key(), (it.value(), []))[1].append(row)
        for key, (value, rows) in into.items():
            leaf = np.concatenate([np.frombuffer(value, self._step), new[rows]])
            write.delete(key, self._database.handles[self._leaves])
            self._put_leaf(node, LEAF_KEY.unpack(key)[2], leaf[np.argsort(leaf["ts"], kind="stable")], write)

    def _put_leaf(self, node: int, order: int, steps: Records, write: WriteBatch) -> None:
        """Write a leaf. A leaf that is too large is split into several, but never between equal times.

        The parts keep the leaf's order. It is lower than that of any leaf that begins at the time of the last part.
        """
        bounds = [0]
        if len(steps) > 2 * LEAF_STEPS:
            for at in range(LEAF_STEPS, len(steps), LEAF_STEPS):
                cut = int(np.searchsorted(steps["ts"], steps["ts"][at]))
                if cut > bounds[-1]:
                    bounds.append(cut)
        for start, end in zip(bounds, [*bounds[1:], len(steps)], strict=True):
            key = LEAF_KEY.pack(node, int(steps["ts"][start]), order, end - start)
            write.put(key, steps[start:end].tobytes(), self._database.handles[self._leaves])

    def _put_head(self, node: int, steps: Records, write: WriteBatch) -> None:
        if len(steps):
            write.put(NODE_KEY.pack(node), steps.tobytes(), self._database.handles[self._heads])
        else:
            write.delete(NODE_KEY.pack(node), self._database.handles[self._heads])

    def _heads_at(self, keys: list[bytes]) -> list[bytes | None]:
        found: list[bytes | None] = self._database.columns[self._heads].get(keys)
        return found

    def _head(self, node: int) -> Records:
        return np.frombuffer(self._database.columns[self._heads].get(NODE_KEY.pack(node)) or b"", self._step)

    def _first_ts(self, packed: bytes | None) -> int:
        return int(np.frombuffer(packed or b"", self._step, 1)["ts"][0])

    def _oldest_leaf(self, node: int, start: int, deleted: Collection[bytes] = ()) -> int:
        """The first time of the node's oldest leaf from `start` on that is not deleted; ALL_TIME without one."""
        it = self._database.columns[self._leaves].iter()
        it.seek(LEAF_KEY.pack(node, start, 0, 0))
        while it.valid() and (key := it.key())[:8] == NODE_KEY.pack(node):
            if key not in deleted:
                return int(LEAF_KEY.unpack(key)[1])
            it.next()
        it.status()
        return ALL_TIME

    def _count_within(self, steps: Records, start: int, end: int) -> int:
        first, last = np.searchsorted(steps["ts"], (start, end))
        return int(last - first)

    def _seek(self, it: Any, node: int, start: int) -> None:
        """Move to the oldest leaf that can hold a step at `start` or later."""
        it.seek_for_prev(LEAF_KEY.pack(node, max(start - 1, 0), MAX_ORDER if start > 0 else 0, MAX_STEPS))
        if not (it.valid() and it.key()[:8] == NODE_KEY.pack(node)):
            it.seek(LEAF_KEY.pack(node, 0, 0, 0))

    def _leaves_between(self, node: int, start: int, end: int) -> list[tuple[bytes, bytes]]:
        it = self._database.columns[self._leaves].iter()
        self._seek(it, node, start)
        name, found = NODE_KEY.pack(node), []
        while it.valid() and (key := it.key())[:8] == name and LEAF_KEY.unpack(key)[1] < end:
            found.append((key, it.value()))
            it.next()
        it.status()
        return found


def _is_in(column: Ids, wanted: Ids) -> Mask:
    """Which values of a column are among the `wanted` ones, at least one and sorted."""
    found: Mask = wanted[np.minimum(np.searchsorted(wanted, column), len(wanted) - 1)] == column
    return found
