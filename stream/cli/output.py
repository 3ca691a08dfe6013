"""What commands print: documents and tables on stdout, notes on stderr.

Text of others passes through `stream.printable` here, so that no id or title moves the cursor.
"""

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import typer

from stream.errors import AnabranchError
from stream.operate.reasons_in_words import in_words
from stream.printable import printable, printable_json

if TYPE_CHECKING:
    from rich.table import Table

    from stream.kafka.messages import Recommendation

UNKNOWN = "-"
MAX_COMPLAINTS = 20
WIDTH_WITHOUT_TERMINAL = 100
"""Columns of a table in a file or a pipe."""


class OutputClosed(Exception):
    """The reader of standard output has read enough."""


def show(text_or_table: "str | Table") -> None:
    """Print a line of text or a table for a person."""
    if isinstance(text_or_table, str):
        return write(printable(text_or_table))
    from rich.console import Console

    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else WIDTH_WITHOUT_TERMINAL
    console = Console(soft_wrap=True, markup=False, highlight=False, emoji=False, width=width)
    with console.capture() as captured:
        console.print(_printable_table(text_or_table))
    write(captured.get().removesuffix("\n"))


def show_json(document: Any) -> None:
    """Print one JSON document."""
    import msgspec

    write_json(msgspec.json.encode(document))


def write_json(document: bytes) -> None:
    """Print a JSON document as one line."""
    write(printable_json(document, getattr(sys.stdout, "encoding", None)))


def write(text: str) -> None:
    """Print text that is for print. Raises OutputClosed, or AnabranchError if it cannot be written."""
    with output_errors():
        print(text)


@contextlib.contextmanager
def output_errors() -> Iterator[None]:
    """Turn an error of standard output into ours."""
    try:
        yield
    except BrokenPipeError:
        raise OutputClosed from None
    except OSError as error:
        raise AnabranchError(f"cannot write to standard output: {error.strerror}") from None


def end_output() -> None:
    """Write what is still buffered. Raises as `write`; then nothing is left for the interpreter to fail on."""
    for stream in (sys.stdout, sys.stderr):
        try:
            with output_errors():
                if stream is not None:
                    stream.flush()
        except (OutputClosed, AnabranchError):
            with contextlib.suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
            if stream is sys.stdout:
                raise


def note(text: str) -> None:
    """Print a note on stderr, where it does not mix with a document."""
    with contextlib.suppress(OSError):  # nobody can read it, and the document counts
        print(f"anabranch: {printable(text)}", file=sys.stderr)


class Complaints:
    """Reports the lines of a file, or the offsets of a log, that are left out: the first ones, and then how many."""

    def __init__(self, what: str = "line") -> None:
        self.count, self._what = 0, what

    def __call__(self, number: int, reason: str) -> None:
        """Report a line."""
        self.count += 1
        if self.count <= MAX_COMPLAINTS:
            note(f"{self._what} {number}: {reason}; left out")

    def end(self) -> None:
        """Report how many lines were not named."""
        if self.count > MAX_COMPLAINTS:
            note(f"and {self.count - MAX_COMPLAINTS} more {self._what}s left out")


def _printable_table(table: "Table") -> "Table":
    from rich.table import Table

    safe = Table(*(printable(column.header) for column in table.columns), box=None)
    for row, cells in zip(table.rows, zip(*(column.cells for column in table.columns), strict=True), strict=True):
        safe.add_row(*map(printable, cells), style=row.style)
    return safe


def show_recommendation(message: "Recommendation | None") -> None:
    """Print a recommendation message, an item a line."""
    if message is None:
        return show("nothing recommended yet")
    show(f"recommended by {ranked_by(message)}:")
    for item in message.items:
        because = f"because of {', '.join(item.because)}" if item.because else ""
        reason = "; ".join(filter(None, (in_words(item.why), because)))
        show(f"  {item.score:8.3f}  {item.item}  {item.title or ''}{'   ' if reason else ''}{reason}")


def ranked_by(message: "Recommendation") -> str:
    """Which version ranked, or what stood in for one."""
    return f"version {message.model}" if message.model else message.source


def number(value: object) -> str:
    """A count; - if it is not known (None, or a field that is not set)."""
    return f"{value:,}" if isinstance(value, int) else UNKNOWN


def percent(value: object) -> str:
    """A share in percent; - if it is not known."""
    return f"{100 * value:.2f}%" if isinstance(value, int | float) else UNKNOWN


def time_argument(text: str) -> int:
    """The time in an argument, in ms. Raises typer.BadParameter."""
    from stream.times import NotATime, to_ms

    if text.strip() == "0":  # the beginning of time in every unit
        return 0
    try:
        return to_ms(text)
    except NotATime as reason:
        raise typer.BadParameter(
            f"{text[:60]!r} is not a time, it {reason}: give ISO-8601 (2026-11-24T18:00) or milliseconds"
        ) from None


def finite(number: float | None) -> float | None:
    """Refuse an option's number that is not a number, or has no end."""
    if number is not None and number - number != 0:
        raise typer.BadParameter(f"{number} is not a finite number")
    return number
