"""User sequences: a bounded array of steps for each user, the newest at the end."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from state.events import Ids, Ints, Records
from state.kinds import Kinds, Mask

STEP = np.dtype([("item", "<u8"), ("ts", "<i8"), ("kind", "<u2")])
"""One step of a user's sequence: item hash, event time in ms, code of the kind. Packed: 18 bytes."""


class Sequences(NamedTuple):
    """Ragged sequences: user `r` owns `steps[indptr[r]:indptr[r + 1]]`, oldest first."""

    users: Ids
    indptr: Ints
    steps: Records

    def of(self, row: int) -> Records:
        """The steps of the user in this row."""
        return self.steps[self.indptr[row] : self.indptr[row + 1]]


def unpack(users: Ids, values: Sequence[bytes | None]) -> Sequences:
    """Stored values, in the order of `users`, as one ragged array; a user without a value has no steps."""
    lengths = np.fromiter((len(v) if v else 0 for v in values), np.int64, len(values)) // STEP.itemsize
    indptr = np.zeros(len(values) + 1, np.int64)
    np.cumsum(lengths, out=indptr[1:])
    return Sequences(users, indptr, np.frombuffer(b"".join(v for v in values if v), STEP))


def from_events(events: Records, limit: int | None = None) -> Sequences:
    """Sequences of all users in `events`, by event time; equal times keep the order of arrival.

    >>> from state.events import make_events
    >>> from_events(make_events([7, 7, 8], [1, 2, 1], ts=[20, 10, 15])).of(0)["item"].tolist()
    [2, 1]
    """
    order = np.lexsort((events["ts"], events["user"]))
    ordered = events[order]
    users, starts = np.unique(ordered["user"], return_index=True)
    indptr = np.append(starts, len(ordered)).astype(np.int64)
    sequences = Sequences(users, indptr, steps_of(ordered))
    return sequences if limit is None else newest(sequences, limit)


def steps_of(events: Records) -> Records:
    """The STEPs of EVENTs, in their order."""
    steps = np.empty(len(events), STEP)
    for name in STEP.names or ():
        steps[name] = events[name]
    return steps


def newest(sequences: Sequences, limit: int) -> Sequences:
    """The newest `limit` steps of each sequence."""
    lengths = np.diff(sequences.indptr)
    kept = np.minimum(lengths, limit)
    indptr = np.zeros_like(sequences.indptr)
    np.cumsum(kept, out=indptr[1:])
    rows = np.arange(indptr[-1]) + np.repeat(sequences.indptr[1:] - indptr[1:], kept)
    return Sequences(sequences.users, indptr, sequences.steps[rows])


def positives(sequences: Sequences, kinds: Kinds) -> Sequences:
    """Only the steps that count: of a positive kind, and not undone."""
    counts = kinds.counts[sequences.steps["kind"]]
    if counts.all():
        return sequences
    for row in np.unique(
        np.searchsorted(sequences.indptr, np.flatnonzero(kinds.undo[sequences.steps["kind"]]), "right")
    ):
        part = slice(*sequences.indptr[row - 1 : row + 1])
        counts[part] = kinds.counting(sequences.steps[part])
    return where(sequences, counts)


def where(sequences: Sequences, kept: Mask) -> Sequences:
    """Only the steps where `kept` is true."""
    count = np.concatenate([[0], np.cumsum(kept)])
    return Sequences(sequences.users, count[sequences.indptr], sequences.steps[kept])


def of_users(sequences: Sequences, chosen: Mask) -> Sequences:
    """Only the users where `chosen` is true."""
    lengths = np.diff(sequences.indptr)
    indptr = np.concatenate([[0], np.cumsum(lengths[chosen])]).astype(np.int64)
    return Sequences(sequences.users[chosen], indptr, sequences.steps[np.repeat(chosen, lengths)])
