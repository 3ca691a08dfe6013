"""What the new steps of a batch's users change: which of their steps count from now on, and which no longer.

Most users only get newer steps. Their older steps count as before, and the end of their head in memory is enough. For
the others, what counted before the batch is compared with what counts after it.
"""

from typing import NamedTuple

import numpy as np
from rocksdict import WriteBatch

from state.events import Ids, Ints, Records
from state.graph_delta import Counted, GraphDelta, add_change
from state.journal import DAY_MS
from state.kinds import Mask
from state.partition import HIDDEN, Partition
from state.removal import put_hidden
from state.sequences import STEP
from state.timeline import Merged


class Arrived(NamedTuple):
    """The new steps of a batch's users, and their heads with them."""

    users: Ids
    new: Records
    """STEPs in order of arrival; user `r` owns `new[starts[r]:ends[r]]`."""
    starts: Ints
    ends: Ints
    merged: Merged

    def of(self, row: int) -> tuple[int, Records]:
        """The user of this row, and the user's new steps."""
        return int(self.users[row]), self.new[self.starts[row] : self.ends[row]]

    def is_new(self, row: int) -> Mask:
        """Which steps of the user's head are new."""
        steps = len(self.merged.heads[row]) // STEP.itemsize
        on_time: Mask = np.arange(steps) >= steps - (self.ends[row] - self.starts[row])
        return self.merged.late.get(row, on_time)


class Ends(NamedTuple):
    """The last steps of some users' heads, user after user and oldest first."""

    rows: Ints
    """Each user's row in the batch."""
    steps: Records
    new: Mask
    lengths: Ints

    @property
    def first(self) -> Ints:
        """Where each user's steps begin."""
        return np.cumsum(self.lengths) - self.lengths

    def of(self, chosen: Mask) -> "Ends":
        """Only the users where `chosen` is true."""
        if chosen.all():
            return self
        kept = np.repeat(chosen, self.lengths)
        return Ends(self.rows[chosen], self.steps[kept], self.new[kept], self.lengths[chosen])

    def where(self, kept: Mask) -> "Ends":
        """Only these steps, some of each user."""
        if kept.all():
            return self
        return Ends(self.rows, self.steps[kept], self.new[kept], np.add.reduceat(kept, self.first, dtype=np.int64))


def count_steps(partition: Partition, arrived: Arrived, write: WriteBatch) -> tuple[GraphDelta, GraphDelta]:
    """The steps to fold into the item-item graph, and those to take out of it; writes the users' hidden items."""
    kinds, merged = partition.kinds, arrived.merged
    plus, minus = GraphDelta(kinds, partition.settings), GraphDelta(kinds, partition.settings)
    # New events of these users may change whether any older step counts.
    revising = np.logical_or.reduceat((kinds.undo | kinds.negative)[arrived.new["kind"]], arrived.starts)
    compared = set(np.flatnonzero(revising).tolist()) | merged.deep
    for row in merged.late:  # an earlier undo may take back a late step
        if kinds.undo[np.frombuffer(merged.heads[row], STEP)["kind"]].any():
            compared.add(row)
    rows = np.arange(len(arrived.users))
    if compared:
        rows = np.setdiff1d(rows, list(compared))
    if len(rows):
        settings = partition.settings
        short, whole = _short_ends(arrived, rows, settings.pair_window_events, settings.sequence_events)
        compared |= _count_ends(partition, arrived, short, plus, minus)
        if len(whole):
            covering = _of_needed_days(partition, arrived, whole, plus, minus)
            compared |= _count_ends(partition, arrived, covering, plus, minus)
    for row in sorted(compared):
        old, after = _compare(partition, *arrived.of(row), 0, plus, minus)
        negative = after[kinds.not_undone(after) & kinds.negative[after["kind"]]]
        hidden = np.empty(len(negative), HIDDEN)
        hidden["item"], hidden["ts"] = negative["item"], negative["ts"]
        put_hidden(partition, int(arrived.users[row]), hidden, bool(kinds.negative[old["kind"]].any()), write)
    return plus, minus


def _short_ends(arrived: Arrived, rows: Ints, window: int, leafless: int) -> tuple[Ends, Ints]:
    """The new steps of these users with the `window` steps before them.

    Also the rows that are left out because these steps do not begin a day, or because new ones are among them. A user
    whose head had fewer than `leafless` steps has no others.
    """
    width, heads = STEP.itemsize, arrived.merged.heads
    wanted = (arrived.ends - arrived.starts)[rows] + window
    # One step more shows whether the day begins before.
    tails = [heads[row][-(n + 1) * width :] for row, n in zip(rows.tolist(), wanted.tolist(), strict=True)]
    ends = _joined(arrived, rows, tails)
    first, lengths, at = ends.first, ends.lengths, np.arange(len(ends.steps))
    longer = lengths > wanted
    ts = ends.steps["ts"]
    new_day = ts[first] // DAY_MS < ts[np.minimum(first + 1, len(ts) - 1)] // DAY_MS
    complete = arrived.merged.before[rows] < leafless
    chosen = np.where(longer, new_day, complete)
    if arrived.merged.late:
        chosen &= ~np.isin(rows, list(arrived.merged.late))
    kept = ~np.repeat(longer, lengths) | (at > np.repeat(first, lengths))
    return ends.of(chosen).where(kept[np.repeat(chosen, lengths)]), rows[~chosen]


def _joined(arrived: Arrived, rows: Ints, packed: list[bytes]) -> Ends:
    """The packed ends of these users' heads; as many steps as are new are marked, the last ones."""
    lengths = np.fromiter(map(len, packed), np.int64, len(packed)) // STEP.itemsize
    steps = np.frombuffer(b"".join(packed), STEP)
    begin_new = np.cumsum(lengths) - (arrived.ends - arrived.starts)[rows]
    return Ends(rows, steps, np.arange(len(steps)) >= np.repeat(begin_new, lengths), lengths)


def _of_needed_days(partition: Partition, arrived: Arrived, rows: Ints, plus: GraphDelta, minus: GraphDelta) -> Ends:
    """The heads of these users from the first day on whose steps count now or pair with new ones.

    A user whose head begins later is left out and compared from that day on.
    """
    window, merged = partition.settings.pair_window_events, arrived.merged
    heads = _joined(arrived, rows, [merged.heads[row] for row in rows.tolist()])
    steps, first, first_new = heads.steps, heads.first, heads.lengths - (arrived.ends - arrived.starts)[rows]
    for at, row in enumerate(rows.tolist()) if merged.late else ():
        if row in merged.late:
            first_new[at] = merged.late[row].argmax()
            heads.new[first[at] : first[at] + heads.lengths[at]] = merged.late[row]
    anchor = first + np.maximum(first_new - window, 0)
    since = steps["ts"][anchor] // DAY_MS * DAY_MS
    complete = merged.before[rows] < partition.settings.sequence_events  # a shorter head has no leaves
    covers = complete | ((first_new >= window) & (steps["ts"][first] < since))
    for at in np.flatnonzero(~covers).tolist():
        row, begin = int(rows[at]), int(since[at]) if first_new[at] >= window else 0
        user, own_new = arrived.of(row)
        counts = partition.kinds.counts[np.frombuffer(merged.heads[row], STEP)["kind"]].all()
        if not counts:
            begin = 0  # steps that do not count may separate steps that pair
        if row in merged.late or begin == 0 or not _all_beyond_cap(partition, user, own_new, begin):
            _compare(partition, user, own_new, begin, plus, minus)
    heads, since = heads.of(covers), since[covers]
    return heads.where(heads.steps["ts"] >= np.repeat(since, heads.lengths)) if len(since) else heads


def _all_beyond_cap(partition: Partition, user: int, new: Records, day_ts: int) -> bool:
    """Whether so many steps of this day came before that no new one counts for others; reads no more than these."""
    cap = partition.caps.user_cap_at(day_ts)
    if not cap or int(new["ts"][-1]) >= day_ts + DAY_MS:
        return False
    steps = partition.users.after(user, day_ts - 1, cap, int(new["ts"][0]))
    return len(steps) == cap and bool(partition.kinds.counts[steps["kind"]].all())


def _count_ends(partition: Partition, arrived: Arrived, ends: Ends, plus: GraphDelta, minus: GraphDelta) -> set[int]:
    """Count the new steps; return the rows of users whose head is not enough."""
    if not len(ends.rows):
        return set()
    kinds, caps, late = partition.kinds, partition.caps, arrived.merged.late
    counts = kinds.counts[ends.steps["kind"]]
    short: set[int] = set()
    if not counts.all():
        # Steps that do not count may separate steps that pair: these users' whole heads are read.
        mixed = np.logical_or.reduceat(~counts, ends.first)
        for row in ends.rows[mixed].tolist():
            if not _count_mixed(partition, arrived, row, plus, minus):
                short.add(row)
        ends = ends.of(~mixed)
        if not len(ends.rows):
            return short
    every = np.ones(len(ends.steps), bool)
    shared = caps.within(ends.steps, every, ends.lengths, kinds)
    is_late = np.isin(ends.rows, list(late)) if late else np.zeros(len(ends.rows), bool)
    if not is_late.any():
        plus.add_many(ends.steps, shared, ends.new, ends.new & shared, ends.lengths)
        return short
    of_late = np.repeat(is_late, ends.lengths)
    on_time, its_shared = ends.of(~is_late), shared[~of_late]
    plus.add_many(on_time.steps, its_shared, on_time.new, on_time.new & its_shared, on_time.lengths)
    ends, shared, old = ends.of(is_late), shared[of_late], ~ends.new[of_late]
    before = np.zeros(len(ends.steps), bool)
    had = np.add.reduceat(old, ends.first, dtype=np.int64)
    before[old] = caps.within(ends.steps[old], every[: old.sum()], had[had > 0], kinds)
    add_change(plus, minus, ends.steps, Counted(old, before), Counted(old | True, shared), ends.lengths)
    return short


def _count_mixed(partition: Partition, arrived: Arrived, row: int, plus: GraphDelta, minus: GraphDelta) -> bool:
    """Count a user's new steps by the whole head; False where it does not reach back far enough."""
    kinds, window = partition.kinds, partition.settings.pair_window_events
    head, new = np.frombuffer(arrived.merged.heads[row], STEP), arrived.is_new(row)
    counting = kinds.counting(head)
    if arrived.merged.before[row] >= partition.settings.sequence_events:
        older = np.flatnonzero(counting[: int(new.argmax())])
        if len(older) < window or head["ts"][0] >= head["ts"][older[-window]] // DAY_MS * DAY_MS:
            return False
    shared, before = partition.shared(head, counting), np.zeros(len(head), bool)
    before[~new] = partition.shared(head[~new], counting[~new])
    length = np.array([len(head)])
    add_change(plus, minus, head, Counted(counting & ~new, before), Counted(counting, shared), length)
    return True


def _compare(
    partition: Partition, user: int, new: Records, since: int, plus: GraphDelta, minus: GraphDelta
) -> tuple[Records, Records]:
    """Compare what counts of a user before and after the new steps, of all steps from a time on; return both."""
    old = partition.users.between(user, since)
    both = np.concatenate([old, new])
    order = np.argsort(both["ts"], kind="stable")
    after = both[order]
    was = np.zeros((2, len(both)), bool)  # in order of arrival, as `both`
    was[0, : len(old)] = partition.kinds.counting(old)
    was[1, : len(old)] = partition.shared(old, was[0, : len(old)])
    counting = partition.kinds.counting(after)
    now = Counted(counting, partition.shared(after, counting))
    add_change(plus, minus, after, Counted(was[0, order], was[1, order]), now, np.array([len(after)]))
    return old, after
