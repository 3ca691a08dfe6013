"""Rows of a text file, each with its line number: CSV with a header, JSON lines, or a JSON array.

A file may be plain or compressed by gzip, in UTF-8 or UTF-16, or standard input. Another kind of file is named. A
broken line is reported by its number and left out; the lines after it are read.
"""

import codecs
import contextlib
import csv
import gzip
import json
import re
import sys
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from io import BufferedReader, TextIOWrapper
from pathlib import Path
from typing import IO, Any

import msgspec

from stream.errors import AnabranchError

Row = dict[str, Any]
OnBrokenLine = Callable[[int, str], None]
"""Called with the number of a broken line and the problem."""
CheckColumns = Callable[[list[str]], None]
"""Called with the names in a CSV's first line; raises AnabranchError."""

MAX_LINE_CHARACTERS = 16 << 20
MAX_LINES_OF_A_ROW = 100
"""A quoted field of a CSV holds fewer lines: else its quote is not closed."""
DELIMITERS = ",;\t|"

GZIP = b"\x1f\x8b"
OTHER_KINDS = {
    b"PK\x03\x04": "a zip archive or a spreadsheet: unpack it, or save the sheet as CSV",
    b"BZh": "compressed by bzip2: bzcat FILE | anabranch … -",
    b"\xfd7zXZ": "compressed by xz: xzcat FILE | anabranch … -",
    b"(\xb5/\xfd": "compressed by zstd: zstdcat FILE | anabranch … -",
    b"PAR1": "a Parquet file: convert it to CSV or JSON lines",
    b"Obj\x01": "an Avro file: convert it to JSON lines",
    b"SQLite format 3": "an SQLite database: export the table as CSV",
}
TAR = slice(257, 262)
BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # begins with that of UTF-16
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


class Lines:
    """The lines of a file, counted from 1. Raises AnabranchError where the file cannot be read further."""

    def __init__(self, name: str, text: IO[str], on_broken_line: OnBrokenLine) -> None:
        self.name = name
        self._text, self._on_broken_line = text, on_broken_line
        self._again: deque[str] = deque()
        self.number = 0
        """Of the line read last."""
        self.first_is_left_out = False
        """The first line is too long to be read."""

    def __iter__(self) -> Iterator[str]:
        return iter(self.next, "")

    def next(self) -> str:
        """The next line; empty at the end."""
        line = self._again.popleft() if self._again else self._read(MAX_LINE_CHARACTERS)
        self.number += bool(line)
        while len(line) == MAX_LINE_CHARACTERS and not line.endswith("\n"):
            self._on_broken_line(self.number, f"it is longer than {MAX_LINE_CHARACTERS:,} characters")
            self.first_is_left_out |= self.number == 1
            while line and not line.endswith("\n"):
                line = self._read(MAX_LINE_CHARACTERS)
            line = self._read(MAX_LINE_CHARACTERS)
            self.number += bool(line)
        return line

    def read_again(self, lines: list[str]) -> None:
        """Take back lines, which come again next."""
        self._again.extendleft(reversed(lines))
        self.number -= len(lines)

    def rest(self) -> str:
        """All of the text that was not read yet."""
        again = "".join(self._again)
        self._again.clear()
        return again + self._read(-1)

    def _read(self, limit: int) -> str:
        try:
            return self._text.readline(limit) if limit > 0 else self._text.read()
        except (OSError, EOFError, zlib.error, UnicodeError) as error:
            beyond = f" beyond line {self.number}" if self.number else ""
            raise AnabranchError(f"cannot read {self.name}{beyond}: {_why(error)}") from None


@contextlib.contextmanager
def open_lines(file: str, on_broken_line: OnBrokenLine) -> Iterator[Lines]:
    """The lines of a file, or of standard input for "-", without a byte-order mark. Raises AnabranchError."""
    with _open_bytes(file) as raw:
        try:
            head = raw.peek(512)
            if head.startswith(GZIP) or file.endswith(".gz"):
                raw = gzip.open(raw)  # type: ignore[assignment]  # noqa: SIM115  closed with the file below it
                head = raw.peek(512)
        except (OSError, EOFError, zlib.error) as error:
            raise AnabranchError(f"cannot read {file}: {_why(error)}") from None
        for magic, kind in OTHER_KINDS.items():
            if head.startswith(magic):
                raise AnabranchError(f"cannot read {file}: it is {kind}")
        if head[TAR] == b"ustar":
            raise AnabranchError(f"cannot read {file}: it is a tar archive: tar -xOf FILE | anabranch … -")
        encoding = _encoding(file, head)
        escape = "surrogateescape" if encoding.startswith("utf-8") else "strict"
        yield Lines(file, TextIOWrapper(raw, encoding=encoding, errors=escape, newline=""), on_broken_line)


def _open_bytes(file: str) -> BufferedReader:
    if file == "-":
        if sys.stdin is None:
            raise AnabranchError("cannot read -: standard input is closed")
        try:
            # A reader of its own: the interpreter closes sys.stdin at its end, while a thread may still wait there.
            return open(sys.stdin.fileno(), "rb", closefd=False)
        except OSError:  # not a file: a test's
            return BufferedReader(sys.stdin.buffer)  # type: ignore[arg-type]
    try:
        return Path(file).open("rb")
    except (OSError, ValueError) as error:
        raise AnabranchError(f"cannot read {file}: {_why(error)}") from None


def _encoding(file: str, head: bytes) -> str:
    for mark, encoding in BYTE_ORDER_MARKS.items():
        if head.startswith(mark):
            return encoding
    if not any(head[:4]) and head:
        raise AnabranchError(f"cannot read {file}: it is not a text")
    if len(head) > 1 and (head[0] == 0) != (head[1] == 0):  # a Latin letter in two bytes
        return "utf-16-be" if head[0] == 0 else "utf-16-le"
    return "utf-8"


def _why(error: Exception) -> str:
    if isinstance(error, EOFError):
        return "the compressed file is cut off: copy or compress it again"
    if isinstance(error, gzip.BadGzipFile | zlib.error):
        return f"it is not a valid gzip file: {error}"
    if isinstance(error, UnicodeError):
        return f"it is not in the encoding with which it begins: {error}"
    return str((error.strerror if isinstance(error, OSError) else None) or error)


def read_rows(lines: Lines, check_columns: CheckColumns, on_broken_line: OnBrokenLine) -> Iterator[tuple[int, Row]]:
    """The rows of a file, each with its line number. Cells of a CSV that are empty are left out.

    Raises AnabranchError if `check_columns` does, or the file cannot be read to its end.
    """
    first = next((line for line in lines if line.strip()), "")
    begin = first.lstrip()
    if not begin:
        return
    lines.read_again([first])
    if begin.startswith("[") or begin.rstrip() == "{":
        yield from _json_values(lines, on_broken_line)
    elif begin.startswith("{"):
        yield from _json_lines(lines, on_broken_line)
    else:
        yield from _csv_rows(lines, check_columns, on_broken_line)


def _json_lines(lines: Lines, on_broken_line: OnBrokenLine) -> Iterator[tuple[int, Row]]:
    for line in lines:
        if not line.strip():
            continue
        try:
            row = _decode(line)
        except ValueError as error:
            on_broken_line(lines.number, str(error))
        else:
            yield lines.number, row


def _decode(text: str) -> Row:
    """One JSON object, read as the worker reads it. Raises ValueError."""
    try:
        row = msgspec.json.decode(text.encode())
    except UnicodeEncodeError:
        raise ValueError("it is not UTF-8") from None
    except RecursionError:
        raise ValueError("it is JSON that is nested too deeply") from None
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ValueError(f"it is not JSON: {error}") from None
    if not isinstance(row, dict):
        raise ValueError("it is not a JSON object")
    return row


BETWEEN_VALUES = re.compile(r"[\s,\[\]]*")


def _json_values(lines: Lines, on_broken_line: OnBrokenLine) -> Iterator[tuple[int, Row]]:
    """Objects of an array, or one after another over many lines. A broken one hides where the next begins.

    A value that ends, and yet is no object that a worker would read, is one broken line.
    """
    line, text, at = lines.number + 1, lines.rest(), 0
    scan = json.JSONDecoder()
    while True:
        begin = BETWEEN_VALUES.match(text, at).end()  # type: ignore[union-attr]
        line, at = line + text.count("\n", at, begin), begin
        if at == len(text):
            return
        try:
            _, end = scan.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            of = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
            wrong = line + text.count("\n", at, getattr(error, "pos", at))
            raise AnabranchError(f"cannot read {lines.name}: its JSON is broken at line {wrong}: {of}") from None
        try:
            row = _decode(text[at:end])
        except ValueError as error:
            on_broken_line(line, str(error))
        else:
            yield line, row
        line, at = line + text.count("\n", at, end), end


def _csv_rows(lines: Lines, check_columns: CheckColumns, on_broken_line: OnBrokenLine) -> Iterator[tuple[int, Row]]:
    if lines.first_is_left_out:
        raise AnabranchError(
            f"the CSV's first line names no columns: it is longer than {MAX_LINE_CHARACTERS:,} characters"
        )
    header, delimiter = _read_header(lines.next())
    check_columns(header)
    while line := lines.next():
        if not line.strip():
            continue
        number = lines.number
        try:
            values = _cells(line, lines, delimiter, len(header))
            "".join(values).encode()
        except csv.Error as error:
            on_broken_line(number, str(error))
            continue
        except UnicodeEncodeError:
            on_broken_line(number, "it is not UTF-8")
            continue
        if len(values) != len(header):
            on_broken_line(number, f"it has {len(values)} fields, the header has {len(header)}")
        else:
            yield number, {name: value for name, value in zip(header, values, strict=True) if value and name}


def _read_header(line: str) -> tuple[list[str], str]:
    """The names of a CSV's columns, and its delimiter."""
    outside_quotes = re.sub('"[^"]*"', "", line)
    delimiter = max(DELIMITERS, key=outside_quotes.count)
    try:
        line.encode()
        return [name.strip() for name in next(csv.reader([line], delimiter=delimiter))], delimiter
    except csv.Error as error:
        raise AnabranchError(f"the CSV's first line does not name its columns: {error}") from None
    except UnicodeEncodeError:
        raise AnabranchError(
            f"the CSV is not UTF-8: its first line is {line.strip()[:100]!r}; convert it (iconv)"
        ) from None


def _cells(line: str, lines: Lines, delimiter: str, columns: int) -> list[str]:
    """The cells of a row, which may go on over the next lines inside of quotes. Raises csv.Error.

    If the quote is not closed, the next lines are rows of their own.
    """
    if '"' not in line:
        return line.rstrip("\r\n").split(delimiter)
    used = [line]

    def with_next_lines() -> Iterator[str]:
        yield line
        while len(used) < MAX_LINES_OF_A_ROW and (following := lines.next()):
            used.append(following)
            yield following

    cells: list[str] = []
    try:
        cells = next(csv.reader(with_next_lines(), delimiter=delimiter, strict=True))
    except csv.Error as error:
        if len(used) == 1 and "unexpected end" not in str(error):  # a quote in the middle of a cell
            return next(csv.reader([line], delimiter=delimiter))
    if not cells or (len(used) > 1 and len(cells) != columns):
        lines.read_again(used[1:])
        raise csv.Error("it has a quote that is not closed")
    return cells
