"""From Kafka records to events: whole batches at once, one at a time only where something is wrong.

A batch of values is joined by newlines and decoded in one call. That cannot shift an event to another record: each
value must begin with `{` and end with `}`, JSON strings cannot hold a raw newline, so no value can be completed by
the next, and the count must agree.
"""

from collections.abc import Sequence
from operator import eq, sub
from typing import Any, NamedTuple, Protocol

import msgspec
import numpy as np

from state.events import EventBatch, make_batch
from state.kinds import kinds_of
from state.progress import Progress
from state.settings import StateSettings
from stream.config import ClickFields, ClickSettings
from stream.times import iso_ms

MAX_ID_BYTES = 512
DEFAULT_KIND = "click"
SECONDS_BELOW = 100_000_000_000
"""A time below this is 1973 in ms and the year 5138 in s: somebody sent seconds."""
YEAR_2100 = 4_102_444_800_000
"""No record's own timestamp lies behind this, ms: it would be one in micro- or nanoseconds."""
CHUNK = 512
"""Records decoded together; a bad one costs its chunk the fast path, no more."""


class Record(Protocol):
    """What is read of a Kafka record."""

    key: bytes | None
    value: bytes | None
    offset: int
    timestamp: int
    timestamp_type: int
    """1: the broker's time, 0: the producer's."""


class DeadLetter(NamedTuple):
    """A record that is no event, and why."""

    record: Record
    reason: str


class Decoded(NamedTuple):
    """The events of a batch of records, and the rest."""

    batch: EventBatch
    dead: list[DeadLetter]
    key_mismatch: int


class Click(msgspec.Struct, gc=False):
    """The default layout of a click; unknown fields are ignored."""

    user: str | int
    item: str | int
    ts: int | float | str | None = None
    event: str = "click"
    id: str | int | None = None


class Invalid(ValueError):
    """A record is no event; the message is the dead letter's reason."""


class Row(NamedTuple):
    """One event."""

    user: bytes
    item: bytes
    ts: int
    kind: int
    id: bytes | None


class Columns(NamedTuple):
    """Events, field by field."""

    users: list[bytes]
    items: list[bytes]
    ts: list[int]
    kinds: list[int]
    ids: list[bytes | None]
    offsets: list[int]
    keys: list[bytes | None]
    """Of the records they came in."""


_lines: msgspec.json.Decoder[Click] = msgspec.json.Decoder(Click)


class Decoder:
    """Decodes clicks laid out as the configuration says."""

    def __init__(self, clicks: ClickSettings, state: StateSettings | None = None) -> None:
        kinds = kinds_of(state or StateSettings())
        self._codes, self._forgets = kinds.codes, {n for n, code in kinds.codes.items() if kinds.forget[code]}
        self._limit_bytes = clicks.max_message_bytes
        self._max_future_ms = clicks.max_future_s * 1000
        self._paths = None if clicks.fields == ClickFields() else msgspec.structs.asdict(clicks.fields)

    def decode(self, records: Sequence[Record], progress: Progress | None = None) -> Decoded:
        """Events and dead letters of records in log order; the progress maps their offsets to logical ones."""
        columns = Columns([], [], [], [], [], [], [])
        dead: list[DeadLetter] = []
        for start in range(0, len(records), CHUNK):
            chunk = records[start : start + CHUNK]
            for column, more in zip(columns, self._all_at_once(chunk) or self._one_by_one(chunk, dead), strict=True):
                column.extend(more)  # type: ignore[attr-defined]
        keyed = len(columns.keys) - columns.keys.count(None)
        agreeing = sum(map(eq, columns.keys, columns.users))
        return Decoded(_batch(columns, progress or Progress()), dead, keyed - agreeing)

    def one(self, record: Record) -> Row:
        """One record as an event. Raises Invalid with the reason."""
        value = record.value
        if value is None:
            raise Invalid("no value: a tombstone is no event")
        if len(value) > self._limit_bytes:
            raise Invalid(f"message of {len(value)} bytes, more than clicks.max_message_bytes = {self._limit_bytes}")
        try:
            fields = msgspec.json.decode(value)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Invalid(f"not JSON: {error}") from None
        except RecursionError:
            raise Invalid("not JSON that we read: nested too deeply") from None
        if not isinstance(fields, dict):
            raise Invalid(f"not a JSON object but {_type_name(fields)}")
        if self._paths:
            fields = {name: _at(fields, path) for name, path in self._paths.items()}
        kind = fields.get("event") if fields.get("event") is not None else DEFAULT_KIND
        if not isinstance(kind, str) or kind not in self._codes:
            raise Invalid(
                f"unknown event kind {_show(kind)}: known are {', '.join(self._codes)}; "
                f"one of your own needs a section [state.kinds.NAME]"
            )
        given_id = fields.get("id")
        return Row(
            _identifier(fields.get("user"), "user"),
            b"" if kind in self._forgets else _identifier(fields.get("item"), "item"),
            self._time(fields.get("ts"), record.timestamp),
            self._codes[kind],
            None if given_id is None else _identifier(given_id, "id"),
        )

    def _one_by_one(self, records: Sequence[Record], dead: list[DeadLetter]) -> Columns:
        columns = Columns([], [], [], [], [], [], [])
        for record in records:
            try:
                row = self.one(record)
            except Invalid as reason:
                dead.append(DeadLetter(record, str(reason)))
                continue
            columns.users.append(row.user)
            columns.items.append(row.item)
            columns.ts.append(row.ts)
            columns.kinds.append(row.kind)
            columns.ids.append(row.id)
            columns.offsets.append(record.offset)
            columns.keys.append(record.key)
        return columns

    def _all_at_once(self, records: Sequence[Record]) -> Columns | None:
        """Flawless records in the default layout; None where any needs a closer look."""
        values = [r.value for r in records]
        if self._paths or None in values:
            return None
        try:
            if not all(v[0] == 123 and v[-1] == 125 for v in values):  # type: ignore[index]
                return None
            joined = b"\n".join(values)  # type: ignore[arg-type]
            clicks = _lines.decode_lines(joined)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, IndexError):
            return None
        if len(clicks) != len(records) or max(map(len, values)) > self._limit_bytes:  # type: ignore[arg-type]
            return None
        users, items, times = [c.user for c in clicks], [c.item for c in clicks], [c.ts for c in clicks]
        if set(map(type, users)) != {str} or set(map(type, items)) != {str}:
            return None
        stamps = [r.timestamp for r in records]
        if set(map(type, times)) == {type(None)}:
            times = stamps  # type: ignore[assignment]
        elif set(map(type, times)) != {int}:
            return None
        if min(times) < SECONDS_BELOW or max(map(sub, times, stamps)) > self._max_future_ms:  # type: ignore
            return None
        if min(stamps) < SECONDS_BELOW or max(stamps) > YEAR_2100:
            return None
        try:
            codes = self._codes
            user_ids, item_ids = [u.encode() for u in users], [i.encode() for i in items]  # type: ignore[union-attr]
            kinds = [codes[c.event] for c in clicks]
        except (UnicodeEncodeError, KeyError):
            return None
        user_bytes, item_bytes = set(map(len, user_ids)), set(map(len, item_ids))
        if min(min(user_bytes), min(item_bytes)) < 1 or max(max(user_bytes), max(item_bytes)) > MAX_ID_BYTES:
            return None
        given = [c.id for c in clicks]
        if given.count(None) != len(given) and set(map(type, given)) - {str, type(None)}:
            return None
        ids = [None if i is None else i.encode() for i in given]  # type: ignore[union-attr]
        if any(i is not None and not 0 < len(i) <= MAX_ID_BYTES for i in ids):
            return None
        offsets, keys = [r.offset for r in records], [r.key for r in records]
        return Columns(user_ids, item_ids, times, kinds, ids, offsets, keys)  # type: ignore[arg-type]

    def _time(self, ts: object, broker_ms: int) -> int:
        if not SECONDS_BELOW <= broker_ms <= YEAR_2100:
            raise Invalid(
                f"the record's own timestamp {broker_ms} is no time in milliseconds: its producer sets it wrongly"
            )
        if ts is None:
            return broker_ms
        if isinstance(ts, str):
            try:
                ms: float = iso_ms(ts)
            except ValueError:
                raise Invalid(f"ts {_show(ts)} is neither milliseconds nor ISO-8601") from None
        elif isinstance(ts, bool) or not isinstance(ts, int | float) or ts != ts:
            raise Invalid(f"ts {_show(ts)} is neither milliseconds nor ISO-8601")
        else:
            ms = ts
        if ms < 0:
            raise Invalid(f"ts {_show(ts)} is negative")
        if ms < SECONDS_BELOW and not isinstance(ts, str):
            raise Invalid(f"ts {_show(ts)} looks like seconds: milliseconds are expected")
        if abs(ms) > 2**62:  # Python's whole numbers have no end, floats have
            raise Invalid(f"ts {_show(ts)} is no time in milliseconds")
        if ms > broker_ms + self._max_future_ms:
            raise Invalid(
                f"ts {_show(ts)} is {(ms - broker_ms) / 1000:.0f} s ahead of the broker's clock, more than "
                f"clicks.max_future_s = {self._max_future_ms / 1000:.0f}"
            )
        return int(ms)


def _batch(columns: Columns, progress: Progress) -> EventBatch:
    without = columns.ids.count(None) == len(columns.ids)
    given = {} if without else {row: i for row, i in enumerate(columns.ids) if i is not None}
    offset = progress.logical(np.array(columns.offsets, np.int64))
    return make_batch(columns.users, columns.items, ts=columns.ts, offset=offset, kind=columns.kinds, ids=given)


def _identifier(value: object, name: str) -> bytes:
    if value is None:
        raise Invalid(f"{name} is missing or null")
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise Invalid(f"{name} {_show(value)} is neither text nor a whole number")
    try:
        identifier = str(value).encode()
    except UnicodeEncodeError:
        raise Invalid(f"{name} is not valid UTF-8") from None
    if not identifier:
        raise Invalid(f"{name} is empty")
    if len(identifier) > MAX_ID_BYTES:
        raise Invalid(f"{name} is {len(identifier)} bytes long, more than {MAX_ID_BYTES}")
    return identifier


def _at(fields: dict[str, Any], path: str) -> Any:
    found: Any = fields
    for key in path.split("."):
        found = found.get(key) if isinstance(found, dict) else None
    return found


def _show(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _type_name(value: object) -> str:
    return {list: "an array", str: "a string", int: "a number", float: "a number", bool: "a boolean"}.get(
        type(value), "null"
    )
