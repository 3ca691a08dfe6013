"""Events from files: CSV with a header, or JSON lines; plain or .gz, or standard input.

A broken line is told by its number and the rest goes on. A CSV column `timestamp` holds whole seconds, as public
data sets do; `ts` holds milliseconds or ISO-8601, as clicks do.
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


def rows(text: IO[str], needed: tuple[str, ...], complain: Complain) -> Iterator[Row]:
    """Rows of a file that have the `needed` fields; broken lines go to `complain` with their number and reason.

    Raises AnabranchError when a CSV lacks a needed column.
    """
    first = text.readline()
    if first.lstrip().startswith("{"):
        yield from _json_rows(first, text, needed, complain)
    elif first.strip():
        yield from _csv_rows(first, text, needed, complain)


def _json_rows(first: str, text: IO[str], needed: tuple[str, ...], complain: Complain) -> Iterator[Row]:
    line, number = first, 1
    while line:
        if line.strip():
            try:
                row = json.loads(line)
                missing = [n for n in needed if row.get(n) in (None, "")]
                if missing:
                    complain(number, f"has no {missing[0]}")
                else:
                    yield row
            except (ValueError, AttributeError):
                complain(number, "is not a JSON object")
        line, number = text.readline(), number + 1


def _csv_rows(first: str, text: IO[str], needed: tuple[str, ...], complain: Complain) -> Iterator[Row]:
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
        elif empty := next((n for n in needed if not row[n]), None):
            complain(number, f"has no {empty}")
        elif "timestamp" in row and "ts" not in row:
            try:
                row["ts"] = int(float(row.pop("timestamp")) * 1000)
            except (ValueError, OverflowError):
                complain(number, f"timestamp {row.get('timestamp', '')!r} is not a number of seconds")
                continue
            yield row
        else:
            if row.get("ts", "").isdigit():
                row["ts"] = int(row["ts"])
            yield row


def read_interactions(file: str, complain: Complain) -> tuple[list[str], list[str], Ints]:
    """Users, items and times in ms of a whole file, sorted by time (equal times keep their order)."""
    users, items, times = [], [], []
    with opened(file) as text:
        for number, row in enumerate(rows(text, ("user", "item"), complain), 1):
            ts = row.get("ts")
            if not isinstance(ts, int | float):
                complain(number, f"has no numeric ts or timestamp but {ts!r}")
                continue
            users.append(str(row["user"]))
            items.append(str(row["item"]))
            times.append(int(ts))
    ts_ms = np.array(times, np.int64)
    order = np.argsort(ts_ms, kind="stable")
    return [users[i] for i in order], [items[i] for i in order], ts_ms[order]
