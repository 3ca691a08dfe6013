"""Events from files: CSV with a header, or JSON lines; plain or .gz, or standard input.

A broken line is told by its number and the rest goes on. `timestamp` holds seconds, as in public data sets; `ts` holds
milliseconds or ISO-8601, as in clicks.
"""

import contextlib
import csv
import gzip
import io
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from state.events import Ints
from stream.errors import AnabranchError
from stream.times import iso_ms

Row = dict[str, Any]
Complain = Callable[[int, str], None]


@contextlib.contextmanager
def opened(file: str) -> Iterator[IO[str]]:
    """The text of a file, a .gz file or "-"; a byte-order mark is passed over. Raises AnabranchError."""
    if file == "-":
        yield io.TextIOWrapper(sys.stdin.buffer, encoding="utf-8-sig", errors="surrogateescape", newline="")
        return
    try:
        raw: IO[bytes] = gzip.open(file) if file.endswith(".gz") else Path(file).open("rb")  # type: ignore[assignment]  # noqa: SIM115
    except OSError as error:
        raise AnabranchError(f"cannot read {file}: {error.strerror}") from None
    with raw, io.TextIOWrapper(raw, encoding="utf-8-sig", errors="surrogateescape", newline="") as text:
        yield text


def rows(text: IO[str], needed: tuple[str, ...], complain: Complain) -> Iterator[tuple[int, Row]]:
    """Rows of a file that have the `needed` fields, with the number of their line; `timestamp` has become `ts`.

    Broken lines go to `complain` with their number and reason. Raises AnabranchError when a CSV lacks a needed column.
    """
    first = text.readline()
    read = _json_rows if first.lstrip().startswith("{") else _csv_rows
    for number, row in read(first, text, needed, complain) if first.strip() else ():
        if empty := next((n for n in needed if row.get(n) in (None, "")), None):
            complain(number, f"has no {empty}")
            continue
        if "timestamp" in row and "ts" not in row:
            try:
                row["ts"] = int(float(row["timestamp"]) * 1000)
            except (TypeError, ValueError, OverflowError):
                complain(number, f"timestamp {row['timestamp']!r} is not a number of seconds")
                continue
            del row["timestamp"]
        elif isinstance(ts := row.get("ts"), str) and ts.isdecimal():
            row["ts"] = int(ts)
        yield number, row


def _json_rows(first: str, text: IO[str], needed: tuple[str, ...], complain: Complain) -> Iterator[tuple[int, Row]]:
    line, number = first, 1
    while line:
        if line.strip():
            try:
                row = json.loads(line)
            except ValueError:
                row = None
            if isinstance(row, dict):
                yield number, row
            else:
                complain(number, "is not a JSON object")
        line, number = text.readline(), number + 1


def _csv_rows(first: str, text: IO[str], needed: tuple[str, ...], complain: Complain) -> Iterator[tuple[int, Row]]:
    header = [name.strip() for name in next(csv.reader([first]))]
    missing = [name for name in needed if name not in header]
    if missing:
        raise AnabranchError(
            f"the CSV has no column {', '.join(map(repr, missing))}: "
            f"its first line names {', '.join(map(repr, header))}"
        )
    reader = csv.reader(text)
    while True:
        try:
            values = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            complain(reader.line_num + 1, str(error))
            continue
        number = reader.line_num + 1
        if not values:
            continue
        row: Row = dict(zip(header, values, strict=False))
        if len(values) != len(header):
            complain(number, f"has {len(values)} fields, the header has {len(header)}")
        else:
            yield number, row


def read_interactions(file: str, complain: Complain) -> tuple[list[str], list[str], Ints]:
    """Users, items and times in ms of a whole file, sorted by time (equal times keep their order)."""
    users, items, times = [], [], []
    with opened(file) as text:
        for number, row in rows(text, ("user", "item"), complain):
            ts = row.get("ts")
            try:
                ms = iso_ms(ts) if isinstance(ts, str) else int(ts)  # type: ignore[arg-type]
            except (TypeError, ValueError, OverflowError):
                complain(number, f"has no ts in ms or ISO-8601, nor a timestamp in seconds, but {ts!r}")
                continue
            users.append(str(row["user"]))
            items.append(str(row["item"]))
            times.append(ms)
    ts_ms = np.array(times, np.int64)
    order = np.argsort(ts_ms, kind="stable")
    return [users[i] for i in order], [items[i] for i in order], ts_ms[order]
