"""The events in the body of a request: one JSON object, an array of them, or JSON lines."""

from typing import Annotated, Any, NamedTuple

import msgspec

from state.settings import StateSettings
from stream.config import ClickSettings
from stream.http.answers import Event
from stream.http.problems import Problem, RejectedEvent
from stream.kafka.click_values import MAX_ID_BYTES, ClickReader, Invalid, type_name
from stream.kafka.messages import UNREADABLE
from stream.times import now_ms

MAX_EVENTS = 1_000
"""Events of one request."""
JSON, JSON_LINES = "application/json", "application/x-ndjson"

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_ID_BYTES)] | int


class SentEvent(msgspec.Struct):
    """An event with the default field names. Other fields are kept in the message and ignored. Ids are text or whole
    numbers, of at most 512 bytes."""

    user: Name
    item: Name
    event: str | None = None
    """The kind: `click` if it is missing."""
    ts: int | float | str | None = None
    """Time of the event: a number, ISO-8601 or RFC 2822. Kafka's time if it is missing."""
    id: Name | None = None
    """An event whose `id` has been seen is dropped: give events one if you may send them twice."""


class SentForget(msgspec.Struct):
    """An event that erases a user. It needs the operate token."""

    user: Name
    event: str


class EventsTaken(msgspec.Struct):
    """What became of the events of a request."""

    accepted: int
    """Events that Kafka has acknowledged."""
    rejected: list[RejectedEvent] = []
    """The others."""


class ReadEvents(NamedTuple):
    """The events of a body."""

    valid: dict[int, Event]
    """By their place in the body."""
    rejected: list[RejectedEvent]


class EventReader:
    """Reads events as workers do, with the same code and settings, so that none is a dead letter later."""

    def __init__(self, clicks: ClickSettings, state: StateSettings) -> None:
        self._reader = ClickReader(clicks, state)
        self._max_bytes = clicks.max_message_bytes

    def read(self, body: bytes, content_type: str, *, may_forget: bool) -> ReadEvents:
        """The events of a body. Raises Problem: it is no JSON, has no event or too many."""
        values = _values(body, content_type)
        if not values:
            raise Problem(400, "The body has no event.")
        if len(values) > MAX_EVENTS:
            raise Problem(413, f"The body has {len(values):,} events. At most {MAX_EVENTS:,} may be in one request.")
        valid: dict[int, Event] = {}
        rejected: list[RejectedEvent] = []
        now = now_ms()
        for index, value in enumerate(values):
            try:
                valid[index] = self._event(value, now, may_forget)
            except Invalid as reason:
                rejected.append(RejectedEvent(index, str(reason)))
        return ReadEvents(valid, rejected)

    def _event(self, value: bytes | msgspec.Raw, now: int, may_forget: bool) -> Event:
        try:
            document = msgspec.json.decode(value)
            message = bytes(msgspec.json.format(value, indent=-1))
        except UNREADABLE as error:
            raise Invalid(f"not JSON: {error}") from None
        if not isinstance(document, dict):
            raise Invalid(f"not a JSON object but {type_name(document)}")
        if len(message) > self._max_bytes:
            raise Invalid(f"{len(message):,} bytes, more than clicks.max_message_bytes = {self._max_bytes:,}")
        fields = self._reader.fields_of(document)
        click = self._reader.read_values(fields, now)
        if not may_forget and (fields.get("event") in self._reader.forgets):
            raise Invalid("an event that erases a user needs the operate token")
        return Event(click.user, message)


def _values(body: bytes, content_type: str) -> list[Any]:
    """The JSON of each event."""
    if content_type == JSON_LINES:
        return [line for line in body.split(b"\n") if line.strip()]
    try:
        if body.lstrip()[:1] == b"[":
            return msgspec.json.decode(body, type=list[msgspec.Raw])
        return [msgspec.json.decode(body, type=msgspec.Raw)]
    except UNREADABLE as error:
        raise Problem(400, f"The body is not JSON: {error}.") from None
