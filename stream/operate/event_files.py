"""Events and titles from files, for `publish` and `evaluate`.

A row has the field names of clicks, or those that the shop's messages have (`[clicks.fields]`), by the same reader as
the worker's. `timestamp` is another name of `ts`.

A time that is a number and not in milliseconds is noted before anything is made of it. If its unit is in doubt, the row
is left out.
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

OnNote = Callable[[str], None]
"""Called with what a person should know."""
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


class TimeReader:
    """Reads the times of one file: numbers in the unit that is set, or each in the unit that its size gives away."""

    def __init__(self, file: str, unit: Unit, on_note: OnNote) -> None:
        self._file, self.unit, self._on_note = file, unit, on_note
        self._seen: list[Unit] = []

    def read(self, ts: object, line: int) -> int:
        """A time in ms; the first one in each unit is noted unless all are in ms. Raises NotATime."""
        if self.unit != "auto":
            return to_ms(ts, self.unit)
        if isinstance(ts, str) and ts.isascii() and ts.isdecimal() and len(ts) < 20:
            ts = int(ts)
        ms = to_ms(ts)
        number = ts if isinstance(ts, int) else as_number(ts)
        if number is not None and (unit := unit_of(number)) not in self._seen:
            if unit != "ms" or self._seen:
                before = f", those before as {UNIT_NAMES[self._seen[-1]]}" if self._seen else ""
                self._on_note(f"{self._file}, line {line}: times are read as {UNIT_NAMES[unit]}, by their size{before}")
            self._seen.append(unit)
        return ms


class EventFile:
    """The events of a file, by the configured fields."""

    def __init__(
        self,
        file: str,
        clicks: ClickSettings,
        state: StateSettings | None = None,
        on_note: OnNote = lambda _: None,
    ) -> None:
        self.file, self._clicks = file, clicks
        self.reader = ClickReader(clicks, state)
        self.times = TimeReader(file, clicks.fields.ts_unit, on_note)
        """Its notes are what a person should know before the times are used."""

    @property
    def can_be_read_twice(self) -> bool:
        """Whether it is a file, and no pipe."""
        return self.file != "-" and Path(self.file).is_file()

    def check_times(self) -> None:
        """Read the whole file, and note the units of its times. Raises AnabranchError if it cannot be read."""
        with open_lines(self.file, ignore) as lines:
            for event in self.events(lines, ignore):
                if event.fields["ts"] is not None:
                    with contextlib.suppress(NotATime):  # such a row is reported when it is read
                        self.times.read(event.fields["ts"], event.line)

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
        ts = None if fields["ts"] is None else self.times.read(fields["ts"], line)
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
    on_note: OnNote = lambda _: None,
) -> tuple[list[str], list[str], Ints]:
    """Users, items and times in ms of a whole file, sorted by time (equal times keep their order).

    Where all times are numbers too small to be dates, they count from a beginning of their own: `ts` in ms, `timestamp`
    in seconds. Kinds of events are not looked at. `on_note` gets what a person should know. Raises AnabranchError.
    """
    events = EventFile(file, clicks or ClickSettings(), on_note=on_note)
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
                try:
                    ms = events.times.read(ts, line)
                except NotATime:
                    number = as_number(ts)
                    if number is None or not 0 <= number < MIN_NUMBER:
                        raise
                    ms = to_ms(ts, "s" if row.get("ts") is None else "ms")
                    small.append(len(users))
            except Invalid as reason:
                on_broken_line(line, str(reason))
            except NotATime as reason:
                on_broken_line(line, f"ts {show_value(ts)} {reason}")
            else:
                users.append(user)
                items.append(item)
                times.append(ms)
                lines.append(line)
    ts_ms, keep = np.array(times, np.int64), np.ones(len(times), bool)
    if small and len(small) < len(times):
        keep[small] = False
        for at in small:
            on_broken_line(lines[at], f"ts {times[at]} is too small to be a time, and other lines have dates")
    elif small:
        on_note(f"the times of {file} are too small to be dates: they are read as times since a beginning of their own")
    order = np.argsort(ts_ms, kind="stable")
    order = order[keep[order]]
    return [users[i] for i in order], [items[i] for i in order], ts_ms[order]
