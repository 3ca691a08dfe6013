"""The context of a trace in headers of Kafka messages (W3C Trace Context), and that of clicks that wait for an answer.

It needs no library, and does nothing where no message has such a header.
"""

import re
import time
from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter
from typing import NamedTuple, Protocol

from state.events import Records
from state.pending import Unanswered

TraceHeaders = tuple[tuple[str, bytes], ...]
"""`traceparent`, and `tracestate` if there is one, as they came."""

TRACEPARENT, TRACESTATE = "traceparent", "tracestate"
_TRACEPARENT = re.compile(rb"[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
MAX_TRACESTATE_BYTES = 512
"""What the standard asks everybody to pass on."""
MAX_WAITING = 10_000
"""Users whose newest click has a context and is not answered yet; beyond them the oldest contexts are dropped."""

_headers = attrgetter("headers")


class WithHeaders(Protocol):
    """The parts of a Kafka record that are read."""

    headers: Sequence[tuple[str, bytes | None]]
    offset: int


class Trace(NamedTuple):
    """The context of one click."""

    headers: TraceHeaders
    offset: int = -1
    """Offset of the click in the log."""
    read_ns: int = 0
    """When its batch was read, ns since 1970."""

    @property
    def sampled(self) -> bool:
        """Whether the trace is recorded: the lowest bit of its flags."""
        return bool(int(self.headers[0][1][53:55], 16) & 1)


def trace_headers(headers: Iterable[tuple[str, bytes | None]]) -> TraceHeaders:
    """The headers that carry the context, the first of each name; none where `traceparent` is missing or invalid."""
    found: dict[str, bytes] = {}
    for name, value in headers:
        if name in (TRACEPARENT, TRACESTATE) and value is not None:
            found.setdefault(name, value)
    parent, state = found.get(TRACEPARENT, b""), found.get(TRACESTATE, b"")
    if not _TRACEPARENT.fullmatch(parent) or parent.startswith(b"ff"):
        return ()
    if not 0 < len(state) <= MAX_TRACESTATE_BYTES or not state.isascii():
        return ((TRACEPARENT, parent),)
    return (TRACEPARENT, parent), (TRACESTATE, state)


def traces_of(records: Sequence[WithHeaders]) -> dict[int, Trace]:
    """The contexts of records by their offsets in the log; empty at once where no record has a header."""
    if not any(map(_headers, records)):
        return {}
    now = time.time_ns()
    found = ((record.offset, trace_headers(record.headers)) for record in records if record.headers)
    return {offset: Trace(headers, offset, now) for offset, headers in found if headers}


class WaitingTraces:
    """The context of each pending user's newest click. It is in memory only: a restart loses it, and no answer."""

    def __init__(self, limit: int = MAX_WAITING) -> None:
        self._limit = limit
        self._traces: dict[tuple[int, int], tuple[int, Trace]] = {}
        """By partition and user: the logical offset of the click, and its context. The last one was added last."""

    def __len__(self) -> int:
        return len(self._traces)

    def add(self, partition: int, traces: Mapping[int, Trace], events: Records) -> None:
        """Note the contexts of applied EVENTs; `traces` are by logical offset."""
        for user, offset in zip(events["user"].tolist(), events["offset"].tolist(), strict=True):
            if (trace := traces.get(offset)) is not None:
                self._put((partition, user), offset, trace)

    def take(self, partition: int, users: Mapping[int, Unanswered]) -> dict[int, Trace]:
        """Remove the contexts of users who are answered now; return those whose newest click has one."""
        if not self._traces:
            return {}
        found = {user: self._traces.pop((partition, user), None) for user in users}
        return {user: of[1] for user, of in found.items() if of is not None and of[0] == users[user].offset}

    def put_back(self, partition: int, traces: Mapping[int, Trace], users: Mapping[int, Unanswered]) -> None:
        """Their answers were not sent: they wait again, unless a newer click with a context has come since."""
        for user, trace in traces.items():
            if (partition, user) not in self._traces:
                self._put((partition, user), users[user].offset, trace)

    def _put(self, key: tuple[int, int], offset: int, trace: Trace) -> None:
        self._traces.pop(key, None)
        self._traces[key] = offset, trace
        if len(self._traces) > self._limit:
            del self._traces[next(iter(self._traces))]
