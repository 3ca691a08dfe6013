"""The routes of the interface for shops: the one list that handlers, rights, metrics and the description come from."""

from typing import Any, NamedTuple

from stream.http.answers import Recommendations, Related
from stream.http.event_body import MAX_EVENTS, EventsTaken
from stream.http.tokens import Right

MAX_LIMIT = 1_000


class Route(NamedTuple):
    """One method of one path."""

    name: str
    method: str
    path: str
    right: Right | None
    """What the caller's token must allow; None: no token is needed."""
    summary: str
    text: str
    status: int
    """Of an answer without an error."""
    answer: Any
    """Its type."""
    errors: tuple[int, ...]


ROUTES = [
    Route(
        "recommendations", "GET", "/v1/users/{user}/recommendations", "read",
        "What is recommended to a user now",
        "The worker that owns the user is asked. Where it does not answer within `serve.timeout_ms`, the answer is the "
        "user's last recommendation, or what is popular with everybody. `fallback` says which. A user who is not known "
        "gets what is popular.",
        200, Recommendations, (400, 401, 403, 429),
    ),
    Route(
        "related", "GET", "/v1/items/{item}/related", "read",
        "What users took after an item",
        "All workers are asked and their counts are added. The answer is kept for ten seconds. An item that is not "
        "known has no related ones.",
        200, Related, (400, 401, 403, 429),
    ),
    Route(
        "events", "POST", "/v1/events", "write",
        "Send events",
        f"One event, an array of at most {MAX_EVENTS:,}, or as many JSON lines. Each is checked as a worker checks it, "
        "and sent to `topics.clicks` under the key of its user, with Kafka's own partitioner. The answer comes when "
        "Kafka has acknowledged them. Events that were not sent are in `rejected`, each with a reason. With 202 at "
        "least one was sent, with 422 none was valid, and with 503 Kafka took none in time.",
        202, EventsTaken, (400, 401, 403, 408, 413, 415, 422, 429, 503),
    ),
]  # fmt: skip
DESCRIPTION = Route(
    "openapi", "GET", "/openapi.json", None, "This description", "", 200, None, (429,)
)  # fmt: skip
