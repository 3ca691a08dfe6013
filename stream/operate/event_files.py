"""Events from files: CSV with a header, or JSON lines; plain or .gz, or standard input.

A broken line, also one that is not UTF-8, is reported by its number and left out. `timestamp` holds seconds, as in
public data sets; `ts` holds milliseconds or ISO-8601, as in clicks.
"""

import contextlib
import csv
import gzip
import io
import itertools
import json
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import msgspec
import numpy as np

from state.events import Ints
from stream.errors import AnabranchError
from stream.times import MAX_MS, iso_ms

Row = dict[str, Any]
OnBrokenLine = Callable[[int, str], None]
"""Called with the number of a broken line and the problem."""


@contextlib.contextmanager
def open_text(file: str) -> Iterator[IO[str]]:
    """The text of a file, a .gz file or "-", without its byte-order mark. Raises AnabranchError."""
    if file == "-":
        if sys.stdin is None:
            raise AnabranchError("cannot read -: standard input is closed")
        yield io.TextIOWrapper(sys.stdin.buffer, encoding="utf-8-sig", errors="surrogateescape", newline="")
        return
    try:
        raw: IO[bytes] = gzip.open(file) if file.endswith(".gz") else Path(file).open("rb")  # type: ignore[assignment]  # noqa: SIM115
    except OSError as error:
        raise AnabranchError(f"cannot read {file}: {error.strerror}") from None
    with raw, io.TextIOWrapper(raw, encoding="utf-8-sig", errors="surrogateescape", newline="") as text:
        yield text


def read_rows(text: IO[str], needed: tuple[str, ...], on_broken_line: OnBrokenLine) -> Iterator[tuple[int, Row]]:
    """Rows of a file that have the `needed` fields, each with its line number. `timestamp` becomes `ts`.

    Raises AnabranchError if a CSV lacks a needed column, or the file cannot be read to its end.
    """
    lines = _lines(text)
    first = next(lines, "")
    read = _json_rows if first.lstrip().startswith("{") else _csv_rows
    for number, row in read(first, lines, needed, on_broken_line) if first.strip() else ():
        if not _is_utf8(row):
            on_broken_line(number, "is not UTF-8")
            continue
        if empty := next((n for n in needed if row.get(n) in (None, "")), None):
            on_broken_line(number, f"has no {empty}")
            continue
        if wrong := _set_time(row):
            on_broken_line(number, wrong)
            continue
        yield number, row


def _lines(text: IO[str]) -> Iterator[str]:
    number = 0
    try:
        for number, line in enumerate(text, 1):  # noqa: B007  named where reading fails
            yield line
    except (OSError, EOFError, zlib.error) as error:
        beyond = f" beyond line {number}" if number else ""
        raise AnabranchError(f"cannot read {text.name}{beyond}: {_why(error)}") from None


def _why(error: Exception) -> str:
    if isinstance(error, EOFError):
        return "the compressed file is cut off: copy or compress it again"
    if isinstance(error, gzip.BadGzipFile | zlib.error):
        return f"it is not a valid gzip file, though its name ends in .gz: {error}"
    return str(error.strerror if isinstance(error, OSError) else error)


def _is_utf8(value: Row | list[str]) -> bool:
    """Whether all text in it can be sent. Bytes that were not UTF-8 and half a surrogate pair of JSON cannot."""
    try:
        msgspec.json.encode(value)
    except UnicodeEncodeError:
        return False
    return True


def _set_time(row: Row) -> str | None:
    """Turn `timestamp`, or a `ts` of digits, into a `ts` in ms. Return the problem, or None."""
    if "timestamp" in row and "ts" not in row:
        try:
            row["ts"] = int(float(row["timestamp"]) * 1000)
        except (TypeError, ValueError, OverflowError):
            return f"timestamp {row['timestamp']!r} is not a number of seconds"
        del row["timestamp"]
    elif isinstance(ts := row.get("ts"), str) and ts.isdecimal():
        if len(ts) > len(str(MAX_MS)):
            return f"has a ts of {len(ts)} digits, which is not a time in ms"
        row["ts"] = int(ts)
    if isinstance(ts := row.get("ts"), int | float) and not abs(ts) <= MAX_MS:
        return f"ts {ts} is not a time in ms"
    return None


def _json_rows(
    first: str, lines: Iterator[str], needed: tuple[str, ...], on_broken_line: OnBrokenLine
) -> Iterator[tuple[int, Row]]:
    for number, line in enumerate(itertools.chain([first], lines), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if isinstance(row, dict):
            yield number, row
        else:
            on_broken_line(number, "is not a JSON object")


def _csv_rows(
    first: str, lines: Iterator[str], needed: tuple[str, ...], on_broken_line: OnBrokenLine
) -> Iterator[tuple[int, Row]]:
    try:
        header = [name.strip() for name in next(csv.reader([first]))]
    except csv.Error as error:
        raise AnabranchError(f"the CSV's first line does not name its columns: {error}") from None
    if not _is_utf8(header):
        raise AnabranchError(f"the CSV is not UTF-8: its first line is {first.strip()[:100]!r}; convert it (iconv)")
    missing = [name for name in needed if name not in header]
    if missing:
        raise AnabranchError(
            f"the CSV has no column {', '.join(map(repr, missing))}: "
            f"its first line names {', '.join(map(repr, header))}"
        )
    reader = csv.reader(lines)
    while True:
        try:
            values = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            on_broken_line(reader.line_num + 1, str(error))
            continue
        number = reader.line_num + 1
        if not values:
            continue
        row: Row = dict(zip(header, values, strict=False))
        if len(values) != len(header):
            on_broken_line(number, f"has {len(values)} fields, the header has {len(header)}")
        else:
            yield number, row


def read_interactions(file: str, on_broken_line: OnBrokenLine) -> tuple[list[str], list[str], Ints]:
    """Users, items and times in ms of a whole file, sorted by time (equal times keep their order)."""
    users, items, times = [], [], []
    with open_text(file) as text:
        for number, row in read_rows(text, ("user", "item"), on_broken_line):
            ts = row.get("ts")
            try:
                ms = iso_ms(ts) if isinstance(ts, str) else int(ts)  # type: ignore[arg-type]
            except (TypeError, ValueError, OverflowError):
                on_broken_line(number, f"has no ts in ms or ISO-8601, nor a timestamp in seconds, but {ts!r}")
                continue
            users.append(str(row["user"]))
            items.append(str(row["item"]))
            times.append(ms)
    ts_ms = np.array(times, np.int64)
    order = np.argsort(ts_ms, kind="stable")
    return [users[i] for i in order], [items[i] for i in order], ts_ms[order]
