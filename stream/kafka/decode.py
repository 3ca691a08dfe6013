"""From Kafka records to events: a chunk at once where all its records are valid, else one record at a time.

`Row` is the one list of the columns of an event. A field that joins the click joins `Click` (`stream.kafka.messages`),
`ClickFields` and `CLICK_PATHS` (`stream.config`), `ClickValues` and `ClickReader` (`stream.kafka.click_values`), `Row`,
`Decoder._valid_chunk` and `_decoded`. To reach the recommendation it also joins `EVENT`, `make_events` and `make_batch`
(`state/events.py`), `Unanswered` and `Pending.apply` (`state/pending.py`), `message_of`
(`stream/worker/recommendation.py`) and `Recommendation`. A new `EVENT` needs a new `LAYOUT` (`state/identity.py`): the
state is then rebuilt from the log.

A chunk's values are joined by newlines and decoded in one call. No event can move to another record. Each value begins
with `{` and ends with `}`, and a JSON string holds no raw newline, so no value completes the one before it. The number
of events must equal the number of records.
"""

from collections.abc import Sequence
from operator import eq, sub
from typing import Any, NamedTuple, Protocol

import msgspec
import numpy as np

from state.events import EventBatch, make_batch
from state.id_hash import UNKEYED, IdHash
from state.progress import Progress
from state.settings import StateSettings
from stream.config import ClickSettings
from stream.kafka.click_values import MAX_ID_BYTES, MAX_STAMP_MS, MIN_STAMP_MS, ClickReader, Invalid, type_name
from stream.kafka.messages import Click
from stream.times import LIKELY_MS

CHUNK_RECORDS = 512
"""Records decoded together. An invalid record costs its own chunk the fast path, no other."""


class Record(Protocol):
    """The parts of a Kafka record that are read."""

    key: bytes | None
    value: bytes | None
    offset: int
    timestamp: int
    timestamp_type: int
    """1: the broker's time, 0: the producer's."""
    headers: Sequence[tuple[str, bytes | None]]


class DeadLetter(NamedTuple):
    """A record that is not an event, and the reason."""

    record: Record
    reason: str
    word: str = "event"
    """The reason in one word, of few."""


class Decoded(NamedTuple):
    """The events of a batch of records, and the records that are not events."""

    batch: EventBatch
    dead: list[DeadLetter]
    key_mismatch: int
    """Events whose record's key is not their user."""
    keys: list[bytes | None]
    """The key of each event's record."""


class Row(NamedTuple):
    """One event, and the offset and the key of its record."""

    user: bytes
    item: bytes
    ts: int
    kind: int
    id: bytes | None
    offset: int
    key: bytes | None


Columns = list[list[Any]]
"""Many events: a list for each field of `Row`, in its order."""

_lines: msgspec.json.Decoder[Click] = msgspec.json.Decoder(Click)


class Decoder:
    """Decodes the messages of the topic `clicks`."""

    def __init__(self, clicks: ClickSettings, state: StateSettings | None = None, id_hash: IdHash = UNKEYED) -> None:
        self._reader = ClickReader(clicks, state)
        self._codes = self._reader.codes
        self._max_bytes = clicks.max_message_bytes
        self._has_plain_fields = self._reader.has_own_names and self._reader.unit in ("auto", "ms")
        self._max_future_ms = self._reader.max_future_ms
        self._id_hash = id_hash

    def decode(self, records: Sequence[Record], progress: Progress | None = None) -> Decoded:
        """Events and dead letters of records in log order; the progress maps their offsets to logical ones."""
        columns: Columns = [[] for _ in Row._fields]
        dead: list[DeadLetter] = []
        for start in range(0, len(records), CHUNK_RECORDS):
            chunk = records[start : start + CHUNK_RECORDS]
            for column, more in zip(columns, self._valid_chunk(chunk) or self._one_by_one(chunk, dead), strict=False):
                column.extend(more)
        return _decoded(columns, progress or Progress(), dead, self._id_hash)

    def one(self, record: Record) -> Row:
        """One record as an event. Raises Invalid with the reason."""
        value = record.value
        if value is None:
            raise Invalid("no value: a tombstone is not an event", "tombstone")
        if len(value) > self._max_bytes:
            reason = f"message of {len(value)} bytes, more than clicks.max_message_bytes = {self._max_bytes}"
            raise Invalid(reason, "too_large")
        try:
            fields = msgspec.json.decode(value)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Invalid(f"not JSON: {error}", "not_json") from None
        except RecursionError:
            raise Invalid("JSON that is nested too deeply", "not_json") from None
        if not isinstance(fields, dict):
            raise Invalid(f"not a JSON object but {type_name(fields)}", "not_json")
        click = self._reader.read(fields, record.timestamp)
        return Row(*click, offset=record.offset, key=record.key)

    def _one_by_one(self, records: Sequence[Record], dead: list[DeadLetter]) -> Columns:
        rows: list[Row] = []
        for record in records:
            try:
                rows.append(self.one(record))
            except Invalid as reason:
                dead.append(DeadLetter(record, str(reason), reason.word))
        return [list(column) for column in zip(*rows, strict=True)]

    def _valid_chunk(self, records: Sequence[Record]) -> Columns | None:
        """Records that are all valid and have the default field names; None if any needs a closer look."""
        clicks = self._clicks(records)
        if clicks is None:
            return None
        users, items, times = [c.user for c in clicks], [c.item for c in clicks], [c.ts for c in clicks]
        events, forgets = [c.event for c in clicks], self._reader.forgets
        has_forgets = not forgets.isdisjoint(events)
        if has_forgets:  # they have no item, whatever their message says
            items = ["-" if event in forgets else item for event, item in zip(events, items, strict=True)]
        if set(map(type, users)) != {str} or set(map(type, items)) != {str}:
            return None
        stamps = [r.timestamp for r in records]
        if set(map(type, times)) == {type(None)}:
            times = stamps  # type: ignore[assignment]
        elif set(map(type, times)) != {int}:
            return None
        if min(times) < LIKELY_MS[0] or max(times) > LIKELY_MS[-1]:  # type: ignore[type-var,operator]
            return None
        if min(stamps) < MIN_STAMP_MS or max(stamps) > MAX_STAMP_MS:
            return None
        if max(map(sub, times, stamps)) > self._max_future_ms:
            return None
        try:
            codes = self._codes
            user_ids, item_ids = [u.encode() for u in users], [i.encode() for i in items]  # type: ignore[union-attr]
            kinds = [codes[event] for event in events]
        except (UnicodeEncodeError, KeyError):
            return None
        user_bytes, item_bytes = set(map(len, user_ids)), set(map(len, item_ids))
        if min(min(user_bytes), min(item_bytes)) < 1 or max(max(user_bytes), max(item_bytes)) > MAX_ID_BYTES:
            return None
        if has_forgets:
            item_ids = [b"" if event in forgets else item for event, item in zip(events, item_ids, strict=True)]
        given = [c.id for c in clicks]
        if given.count(None) != len(given) and set(map(type, given)) - {str, type(None)}:
            return None
        ids = [None if i is None else i.encode() for i in given]  # type: ignore[union-attr]
        if any(i is not None and not 0 < len(i) <= MAX_ID_BYTES for i in ids):
            return None
        return [user_ids, item_ids, times, kinds, ids, [r.offset for r in records], [r.key for r in records]]

    def _clicks(self, records: Sequence[Record]) -> list[Click] | None:
        """The JSON of a chunk, decoded in one call; None unless each record holds one click."""
        values = [r.value for r in records]
        if not self._has_plain_fields or None in values:
            return None
        try:
            if not all(v[0] == 123 and v[-1] == 125 for v in values):  # type: ignore[index]
                return None
            clicks = _lines.decode_lines(b"\n".join(values))  # type: ignore[arg-type]
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, IndexError):
            return None
        if len(clicks) != len(records) or max(map(len, values)) > self._max_bytes:  # type: ignore[arg-type]
            return None
        return clicks


def _decoded(columns: Columns, progress: Progress, dead: list[DeadLetter], id_hash: IdHash) -> Decoded:
    users, items, times, kinds, ids, offsets, keys = columns
    without_ids = ids.count(None) == len(ids)
    given = {} if without_ids else {row: i for row, i in enumerate(ids) if i is not None}
    logical = progress.logical(np.array(offsets, np.int64))
    batch = make_batch(users, items, ts=times, offset=logical, kind=kinds, ids=given, hashed_by=id_hash.of_many)
    with_key = len(keys) - keys.count(None)
    return Decoded(batch, dead, with_key - sum(map(eq, keys, users)), keys)
