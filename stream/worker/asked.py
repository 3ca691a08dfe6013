"""What is asked in a poll of requests, and who is answered first."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec

from state.signing import Keys
from stream.kafka.click_values import Invalid, read_identifier
from stream.kafka.decode import DeadLetter, Record
from stream.kafka.messages import UNREADABLE, Request, Want
from stream.kafka.signing import refusal
from stream.tracing.headers import TraceHeaders, trace_headers

MAX_PAST = 64
"""Requests for a past time that are answered between two polls of clicks, at most."""


class Asked(NamedTuple):
    """A valid request."""

    user: str
    id: str | int
    offset: int = 0
    want: Want = "recommendation"
    item: str = ""
    limit: int = 0
    at: int = 0
    """An item is wanted as it was before this time, ms; 0: now."""
    ts: int = 0
    """When the broker got it, ms."""
    refused: bool = False
    """A user's history is wanted, and `kafka.signing_key` has not signed the request."""
    traced: TraceHeaders = ()
    """The headers of the request's trace, for its reply."""

    @property
    def subject(self) -> tuple[str, str]:
        """What it is about: the first request of every subject is answered before any second."""
        return self.user, self.item


def read_request(value: bytes | None, keys: Keys = ()) -> Asked:
    """The request in a message. `keys`: what signs those for a user's history. Raises Invalid."""
    try:
        request = msgspec.json.decode(value or b"", type=Request)
    except UNREADABLE as error:
        raise Invalid(str(error)) from None
    if request.id != "":
        read_identifier(request.id, "id")
    user = item = ""
    if request.want in ("recommendation", "user"):
        user = read_identifier(request.user, "user").decode()
    elif request.want == "item":
        item = read_identifier(request.item, "item").decode()
    refused = request.want == "user" and refusal(request, keys) is not None
    return Asked(user, request.id, want=request.want, item=item, limit=request.limit, at=request.at, refused=refused)


def read_requests(records: Sequence[Record], keys: Keys = ()) -> tuple[list[Asked], list[DeadLetter]]:
    """The requests in records, and the records that are no requests."""
    requests: list[Asked] = []
    dead: list[DeadLetter] = []
    for record in records:
        try:
            asked, traced = read_request(record.value, keys), trace_headers(record.headers)
            requests.append(asked._replace(offset=record.offset, ts=record.timestamp, traced=traced))
        except Invalid as reason:
            dead.append(DeadLetter(record, f"no request: {reason}", "request"))
    return requests, dead


def choose(asked: Mapping[int, Sequence[Asked]], limit: int) -> dict[int, set[int]]:
    """Which requests of each partition are answered, by position: the first of every user before anybody's second.

    Of those for a past time at most MAX_PAST: each reads the events of up to fifty users.
    """
    turns: list[tuple[int, int, int]] = []
    for number, requests in asked.items():
        seen: Counter[tuple[str, str]] = Counter()
        for at, request in enumerate(requests):
            turns.append((seen[request.subject], at, number))
            seen[request.subject] += 1
    chosen: dict[int, set[int]] = {number: set() for number in asked}
    past = MAX_PAST
    for _, at, number in sorted(turns):
        if not limit or (asked[number][at].at and not past):
            continue
        past -= bool(asked[number][at].at)
        limit -= 1
        chosen[number].add(at)
    return chosen
