"""What the interface counts."""

from prometheus_client import Counter

from stream.metrics.instruments import HttpInstruments


class ApiInstruments(HttpInstruments):
    """Of the interface for shops (`stream.http.api.ApiCounts`)."""

    def __init__(self) -> None:
        super().__init__()
        self._recommendations = self._make_each(Counter, "http_recommendations_total")
        self._events = self._make_each(Counter, "http_events_total")

    def recommended(self, by: str) -> None:
        """A recommendation came from the owner of the user, or from a fallback."""
        self._recommendations[by].inc()

    def sent(self, outcome: str, count: int) -> None:
        """So many events ended so."""
        self._events[outcome].inc(count)
