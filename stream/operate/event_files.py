"""Events and titles from files, for `publish` and `evaluate`.

A row has the field names of clicks, or those that the shop's messages have (`[clicks.fields]`), by the same reader as
the worker's. `timestamp` is another name of `ts`.

The numbers of a file's times are in one unit. If they are not, or the unit is in doubt, the file is refused, or the
rows that differ are left out, before anything is made of them.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from state.events import Ints
from state.settings import StateSettings
from stream.config import CLICK_PATHS, ClickSettings
from stream.errors import AnabranchError
from stream.kafka.click_values import ClickReader, Invalid, read_identifier, show_value
from stream.kafka.field_mapping import map_fields
from stream.kafka.messages import encode
from stream.kafka.publish import Message
from stream.operate.file_rows import Lines, OnBrokenLine, Row, open_lines, read_rows
from stream.times import MIN_NUMBER, UNIT_NAMES, NotATime, Unit, as_number, iso, to_ms, unit_of

TIMESTAMP = "timestamp"
"""Another name of `ts`, as in public data sets."""


class FileEvent(NamedTuple):
    """A row as an event, not yet checked."""

    line: int
    fields: dict[str, Any]
    """Ours: user, item, ts, event, id."""
    row: Row
    is_message: bool
    """The row is a message as the shop sends it."""


class TimeUnit:
    """The unit of the times of one file: of the numbers in it, each judged by its size, or the one that is set."""

    def __init__(self, unit: Unit) -> None:
        self._unit = unit
        self.seen: dict[Unit, int] = {}
        """The first line of each unit."""

    def read(self, ts: object, line: int) -> int:
        """A time in ms. Raises NotATime, also if it is a number whose unit is in doubt."""
        if self._unit != "auto":
            return to_ms(ts, self._unit)
        if isinstance(ts, str) and ts.isascii() and ts.isdecimal() and len(ts) < 20:
            ts = int(ts)
        number = as_number(ts)
        ms = to_ms(ts)
        if number is not None:
            self.seen.setdefault(unit_of(number), line)
        return ms

    def is_first(self, ts: object) -> bool:
        """Whether a time that was read is in the unit of the first one."""
        number = as_number(ts)
        return number is None or len(self.seen) < 2 or unit_of(number) == next(iter(self.seen))

    @property
    def problem(self) -> str | None:
        """Why the unit of the file is in doubt."""
        if len(self.seen) < 2:
            return None
        where = " and ".join(f"in {UNIT_NAMES[unit]} (line {line})" for unit, line in self.seen.items())
        return f"has times {where}: correct it, or set clicks.fields.ts_unit"

    @property
    def note(self) -> str | None:
        """What a person should know about the unit before the times are used."""
        other = next((unit for unit in self.seen if unit != "ms"), None)
        return f"its times are read as {UNIT_NAMES[other]}, by their size" if other else None


class EventFile:
    """The events of a file, by the configured fields."""

    def __init__(self, file: str, clicks: ClickSettings, state: StateSettings | None = None) -> None:
        self.file, self._clicks = file, clicks
        self.reader = ClickReader(clicks, state)
        self.unit = TimeUnit(clicks.fields.ts_unit)

    @property
    def can_be_read_twice(self) -> bool:
        """Whether it is a file, and no pipe."""
        return self.file != "-" and Path(self.file).is_file()

    def check_units(self) -> None:
        """Read the whole file and look at its times. Raises AnabranchError if their unit is in doubt."""
        with open_lines(self.file, ignore) as lines:
            for event in self.events(lines, ignore):
                with contextlib.suppress(NotATime):  # such a row is reported when it is read
                    self.unit.read(event.fields["ts"], event.line)
        if self.unit.problem:
            raise AnabranchError(f"{self.file} {self.unit.problem}")

    def events(self, lines: Lines, on_broken_line: OnBrokenLine) -> Iterator[FileEvent]:
        """The rows. Raises AnabranchError if a CSV has no column for the user or the item."""
        self._is_csv = False
        for line, row in read_rows(lines, self._check_columns, on_broken_line):
            yield FileEvent(line, *self._fields(row))

    def messages(self, on_broken_line: OnBrokenLine) -> Iterator[Message]:
        """The rows as messages for the topic of clicks, checked as the worker will check them."""
        with open_lines(self.file, on_broken_line) as lines:
            for event in self.events(lines, on_broken_line):
                try:
                    yield self._message(event)
                except Invalid as reason:
                    on_broken_line(event.line, str(reason))

    def _message(self, event: FileEvent) -> Message:
        line, fields, row, is_message = event
        self.reader.read_values(fields, int(time.time() * 1000))
        ts = None if fields["ts"] is None else self._read_time(fields["ts"], line)
        if not is_message:
            given = {name: value for name, value in fields.items() if value is not None}
            if ts is not None:
                given["ts"] = ts if self.reader.unit in ("auto", "ms") else iso(ts)
            row = map_fields(self._without_fields(row) | given, self._clicks.fields)
        value = encode(row)
        if len(value) > self._clicks.max_message_bytes:
            raise Invalid(
                f"{len(value)} bytes are more than clicks.max_message_bytes = {self._clicks.max_message_bytes}"
            )
        return Message(str(fields["user"]).encode(), value, ts, line)

    def _read_time(self, ts: object, line: int) -> int:
        try:
            ms = self.unit.read(ts, line)
        except NotATime as reason:
            raise Invalid(f"ts {show_value(ts)} {reason}") from None
        if not self.unit.is_first(ts):
            raise Invalid(f"ts {show_value(ts)} is in another unit: the file {self.unit.problem}")
        return ms

    def _fields(self, row: Row) -> tuple[dict[str, Any], Row, bool]:
        """Our fields of a row, and whether it is a message of the shop."""
        reader = self.reader
        theirs = {} if reader.has_own_names else reader.fields_of(row)
        ours = {name: row.get(name) for name in CLICK_PATHS}
        is_message = theirs.get("user") is not None and (theirs.get("item") is not None or ours["item"] is None)
        fields = theirs if is_message or (theirs and ours["user"] is None) else ours
        if fields["ts"] is None and reader.paths["ts"] == "ts" and TIMESTAMP in row:
            fields["ts"], is_message = row[TIMESTAMP], False
        return fields, row, is_message and not self._is_csv

    def _without_fields(self, row: Row) -> Row:
        """The other columns of a row."""
        names = {TIMESTAMP, *CLICK_PATHS}
        for path in self.reader.paths.values():
            names.update(path.split("|"))
        return {name: value for name, value in row.items() if name not in names}

    def _check_columns(self, header: list[str]) -> None:
        self._is_csv = True
        fields, *_ = self._fields(dict.fromkeys(header, "x"))
        missing = [name for name in ("user", "item") if fields[name] is None]
        for name in header:
            if header.count(name) > 1 and name in (*CLICK_PATHS, TIMESTAMP, *self.reader.paths.values()):
                raise AnabranchError(f"the CSV has two columns {name!r}: rename one of them")
        if missing:
            wanted = [name if self.reader.paths[name] == name else self.reader.paths[name] for name in missing]
            raise AnabranchError(
                f"the CSV has no column {', '.join(map(repr, wanted))}: "
                f"its first line names {', '.join(map(repr, header))}"
            )


def ignore(_line: int, _reason: str) -> None:
    """Report nothing: another reading of the same lines does."""


def titles(file: str, on_broken_line: OnBrokenLine) -> Iterator[Message]:
    """The rows of a file with the columns `item` and `title`, as messages for the topic of items."""

    def check_columns(header: list[str]) -> None:
        if missing := [name for name in ("item", "title") if name not in header]:
            raise AnabranchError(
                f"the CSV has no column {', '.join(map(repr, missing))}: "
                f"its first line names {', '.join(map(repr, header))}"
            )

    with open_lines(file, on_broken_line) as lines:
        for line, row in read_rows(lines, check_columns, on_broken_line):
            title = row.get("title")
            try:
                item = read_identifier(row.get("item"), "item")
                if not isinstance(title, str) or not title:
                    raise Invalid("title is missing" if not title else f"title {show_value(title)} is not text")
            except Invalid as reason:
                on_broken_line(line, str(reason))
            else:
                yield Message(item, encode(row), None, line)


def read_interactions(
    file: str,
    on_broken_line: OnBrokenLine,
    clicks: ClickSettings | None = None,
    on_note: Callable[[str], None] = lambda _: None,
) -> tuple[list[str], list[str], Ints]:
    """Users, items and times in ms of a whole file, sorted by time (equal times keep their order).

    Where all times are numbers too small to be dates, they count from a beginning of their own: `ts` in ms, `timestamp`
    in seconds. Kinds of events are not looked at. `on_note` gets what a person should know. Raises AnabranchError.
    """
    events = EventFile(file, clicks or ClickSettings())
    users: list[str] = []
    items: list[str] = []
    times: list[int] = []
    lines: list[int] = []
    small: list[int] = []
    with open_lines(file, on_broken_line) as text:
        for line, fields, row, _ in events.events(text, on_broken_line):
            ts = fields["ts"]
            try:
                user, item = (read_identifier(fields[name], name).decode() for name in ("user", "item"))
                if ts is None:
                    raise Invalid("it has no time: `ts` or `timestamp`")
                number = as_number(ts)
                is_small = events.reader.unit == "auto" and number is not None and 0 <= number < MIN_NUMBER
                ms = to_ms(ts, "s" if row.get("ts") is None else "ms") if is_small else events.unit.read(ts, line)
            except Invalid as reason:
                on_broken_line(line, str(reason))
            except NotATime as reason:
                on_broken_line(line, f"ts {show_value(ts)} {reason}")
            else:
                if is_small:
                    small.append(len(users))
                users.append(user)
                items.append(item)
                times.append(ms)
                lines.append(line)
    if events.unit.problem:
        raise AnabranchError(f"{file} {events.unit.problem}")
    ts_ms, keep = np.array(times, np.int64), np.ones(len(times), bool)
    if small and len(small) < len(times):
        keep[small] = False
        for at in small:
            on_broken_line(lines[at], f"ts {times[at]} is too small to be a time, and other lines have dates")
    elif small:
        on_note(f"the times of {file} are too small to be dates: they are read as times since a beginning of their own")
    if events.unit.note:
        on_note(f"{file}: {events.unit.note}")
    order = np.argsort(ts_ms, kind="stable")
    order = order[keep[order]]
    return [users[i] for i in order], [items[i] for i in order], ts_ms[order]
