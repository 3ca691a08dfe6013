"""The spans of a worker. This class makes none: tracing is off. `open_telemetry.py` has the one that does."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping

from stream.tracing.headers import Trace, TraceHeaders

MAX_LINKS = 64
"""Links of a span to clicks, at most; OpenTelemetry's own limit is 128."""


class Spans:
    """What can be traced. Each method is a block, and lasts as long as the work in it."""

    def process(self, partition: int, records: int, traces: Iterable[Trace]) -> contextlib.AbstractContextManager[None]:
        """A batch of clicks is decoded, applied and written."""
        return contextlib.nullcontext()

    def rank(self, partition: int, users: int, traces: Iterable[Trace]) -> contextlib.AbstractContextManager[None]:
        """Pending users are ranked."""
        return contextlib.nullcontext()

    @contextlib.contextmanager
    def send(self, partition: int, messages: int, traces: Mapping[int, Trace]) -> Iterator[dict[int, TraceHeaders]]:
        """Recommendations are sent, until the broker has them. Yields the headers of each user's message."""
        yield {user: trace.headers for user, trace in traces.items()}

    def close(self) -> None:
        """Send what is left, for a short time."""
