"""The values in the fields of a click: which are accepted, and why another one is refused.

`ClickReader` reads the JSON object of a message or the row of a file: workers, `publish` and `evaluate` read alike.
"""

from typing import Any, NamedTuple

from state.kinds import kinds_of
from state.settings import StateSettings
from stream.config import ClickSettings
from stream.kafka.field_mapping import paths_of, read_fields
from stream.printable import printable
from stream.times import MS_NUMBERS, NotATime, Unit, to_ms

MAX_ID_BYTES = 512
DEFAULT_KIND = "click"
MIN_STAMP_MS, MAX_STAMP_MS = MS_NUMBERS[0], 4_102_444_800_000
"""March 1973 to the year 2100. A record's own timestamp outside is not in milliseconds."""


class Invalid(ValueError):
    """A record is not an event; the message is the dead letter's reason."""

    def __init__(self, reason: str, word: str = "event") -> None:
        """`word` is the reason in one word, of few (`DEAD_LETTER_REASONS` in `stream/metrics/catalogue.py`)."""
        super().__init__(reason)
        self.word = word


class ClickValues(NamedTuple):
    """The values of a valid click."""

    user: bytes
    item: bytes
    ts: int
    kind: int
    id: bytes | None


class ClickReader:
    """Reads clicks by the configured paths, kinds and unit of time."""

    def __init__(self, clicks: ClickSettings, state: StateSettings | None = None) -> None:
        kinds = kinds_of(state or StateSettings())
        self.codes = kinds.codes
        """Codes of the event kinds by name."""
        self.forgets = {name for name, code in kinds.codes.items() if kinds.forget[code]}
        """Names of the kinds that erase a user. Their events have no item."""
        self.paths = paths_of(clicks.fields)
        self.unit: Unit = clicks.fields.ts_unit
        self.max_future_ms = clicks.max_future_s * 1000
        self.has_own_names = all(name == path for name, path in self.paths.items())
        """Whether the fields have the names that they have here."""
        self._shown = {name: name if name == path else f"{name} ({path})" for name, path in self.paths.items()}

    def fields_of(self, message: dict[str, Any]) -> dict[str, Any]:
        """Our fields of a message, each None where the message has none."""
        return message if self.has_own_names else read_fields(message, self.paths)

    def read(self, message: dict[str, Any], broker_ms: int) -> ClickValues:
        """A click that the broker received at `broker_ms`. Raises Invalid with the reason."""
        return self.read_values(self.fields_of(message), broker_ms)

    def read_values(self, fields: dict[str, Any], broker_ms: int) -> ClickValues:
        """A click from our fields. Raises Invalid with the reason."""
        get, shown = fields.get, self._shown
        kind = self._kind(get("event"))
        given_id = get("id")
        return ClickValues(
            user=read_identifier(get("user"), shown["user"]),
            item=b"" if kind in self.forgets else read_identifier(get("item"), shown["item"]),
            ts=read_time(get("ts"), broker_ms, self.max_future_ms, self.unit, shown["ts"]),
            kind=self.codes[kind],
            id=None if given_id is None else read_identifier(given_id, shown["id"]),
        )

    def _kind(self, event: object) -> str:
        if event is None:
            return DEFAULT_KIND
        if not isinstance(event, str) or event not in self.codes:
            raise Invalid(
                f"unknown event kind {show_value(event)}: known are {', '.join(self.codes)}; "
                f"a kind of your own needs a section [state.kinds.NAME]"
            )
        return event


def read_identifier(value: object, name: str) -> bytes:
    """The id in the field `name`, text or a whole number, as bytes. Raises Invalid."""
    word = name.partition(" ")[0]
    if value is None:
        raise Invalid(f"{name} is missing or null", word)
    if isinstance(value, bool) or not isinstance(value, str | int):
        inner = (
            f": name the path of its inner field, as in {_inner_path(name, value)}"
            if value and isinstance(value, dict | list)
            else ""
        )
        raise Invalid(f"{name} {show_value(value)} is neither text nor a whole number{inner}", word)
    try:
        identifier = str(value).encode()
    except UnicodeEncodeError:
        raise Invalid(f"{name} is not valid UTF-8", word) from None
    if not identifier:
        raise Invalid(f"{name} is empty", word)
    if len(identifier) > MAX_ID_BYTES:
        raise Invalid(f"{name} is {len(identifier)} bytes long, more than {MAX_ID_BYTES}", word)
    return identifier


def _inner_path(name: str, value: dict[str, Any] | list[Any]) -> str:
    """The path of the first inner value of a field shown as `name` or `name (path)`."""
    path = name.partition(" (")[2].rstrip(")").split("|")[0] or name
    return printable(f"{path}.{next(iter(value)) if isinstance(value, dict) else 0}")[:100]


def read_time(ts: object, broker_ms: int, max_future_ms: float, unit: Unit = "auto", name: str = "ts") -> int:
    """`ts` in ms; the record's own time `broker_ms` if it is None. Raises Invalid."""
    if not MIN_STAMP_MS <= broker_ms <= MAX_STAMP_MS:
        raise Invalid(
            f"the record's own timestamp {broker_ms} is not a time in milliseconds: its producer sets it wrongly",
            "time",
        )
    if ts is None:
        return broker_ms
    try:
        ms = to_ms(ts, unit)
    except NotATime as reason:
        raise Invalid(f"{name} {show_value(ts)} {reason}", "time") from None
    if ms < 0:
        raise Invalid(f"{name} {show_value(ts)} is before 1970", "time")
    if ms > broker_ms + max_future_ms:
        raise Invalid(
            f"{name} {show_value(ts)} is {(ms - broker_ms) / 1000:.0f} s ahead of the broker's clock, more than "
            f"clicks.max_future_s = {max_future_ms / 1000:.0f}",
            "time",
        )
    return ms


def show_value(value: object) -> str:
    """A value in a dead letter's reason, cut to a readable length."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def type_name(value: object) -> str:
    """The JSON type of a decoded value."""
    return {list: "an array", str: "a string", int: "a number", float: "a number", bool: "a boolean"}.get(
        type(value), "null"
    )
