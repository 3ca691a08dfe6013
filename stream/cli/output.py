"""What commands print: documents and tables on stdout, notes on stderr."""

import sys
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from stream.kafka.messages import Recommendation

UNKNOWN = "-"


def show(text_or_table: Any) -> None:
    """Print for a person. Nothing in a text is read as markup."""
    from rich.console import Console

    Console(soft_wrap=True, markup=False, highlight=False, emoji=False).print(text_or_table)


def show_json(document: Any) -> None:
    """Print one JSON document."""
    import msgspec

    print(msgspec.json.encode(document).decode())


def note(text: str) -> None:
    """Print a note on stderr, where it does not mix with a document."""
    print(f"anabranch: {text}", file=sys.stderr)


def show_recommendation(message: "Recommendation | None") -> None:
    """Print a recommendation message, an item a line."""
    if message is None:
        return show("nothing recommended yet")
    show(f"recommended by {ranked_by(message)}:")
    for item in message.items:
        because = f"   because of {', '.join(item.because)}" if item.because else ""
        show(f"  {item.score:8.3f}  {item.item}  {item.title or ''}{because}")


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
    from stream.times import instant

    try:
        return instant(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a time: give milliseconds or ISO-8601 (2026-11-24T18:00)") from None
