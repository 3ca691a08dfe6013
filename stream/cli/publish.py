"""`publish`: events or titles from a file into a topic."""

import asyncio
import sys
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from stream.cli.app import command
from stream.cli.output import show_json

if TYPE_CHECKING:
    from stream.config import Config

MAX_REPORTED_LINES = 20


@command()
def publish(
    file: Annotated[
        str,
        typer.Argument(
            help="CSV with a header (user,item,ts) or JSON lines with the same fields; - for standard input."
        ),
    ],
    *,
    topic: Annotated[
        Literal["clicks", "items"], typer.Option("--topic", help="clicks: events; items: titles.")
    ] = "clicks",
    speed: Annotated[
        str | None,
        typer.Option("--speed", metavar="N|Nx", help="N events a second, or N times event time; unset: full speed."),
    ] = None,
    settings: "Config",
    as_json: bool,
) -> None:
    """Publish events, or titles of items, from a file to Kafka."""
    from rich.console import Console
    from rich.progress import Progress, TextColumn, TimeElapsedColumn

    from stream.kafka.field_mapping import map_fields
    from stream.kafka.publish import Pace
    from stream.kafka.publish import publish as publish_rows
    from stream.kafka.topics import check
    from stream.operate.event_files import open_text, read_rows

    try:
        pace = Pace(speed)
    except ValueError:
        raise typer.BadParameter(f"--speed {speed}: give events a second (500) or times event time (60x)") from None
    check(settings)
    left_out = 0

    def on_broken_line(line: int, reason: str) -> None:
        nonlocal left_out
        left_out += 1
        if left_out <= MAX_REPORTED_LINES:
            print(f"line {line} {reason}; left out", file=sys.stderr)

    columns = (TextColumn("{task.completed:,.0f} events published"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar, open_text(file) as text:
        task = bar.add_task("publish", total=None)

        def on_progress(done: int) -> None:
            bar.update(task, completed=done)

        if topic == "clicks":
            name, fields = settings.topics.clicks, settings.clicks.fields
            rows = (row for _, row in read_rows(text, ("user", "item"), on_broken_line))
            sending = publish_rows(settings, name, rows, "user", pace, on_progress, lambda row: map_fields(row, fields))
        else:
            name = settings.topics.items
            rows = (row for _, row in read_rows(text, ("item", "title"), on_broken_line))
            sending = publish_rows(settings, name, rows, "item", pace, on_progress)
        count = asyncio.run(sending)
    if left_out > MAX_REPORTED_LINES:
        print(f"and {left_out - MAX_REPORTED_LINES} more lines left out", file=sys.stderr)
    if as_json:
        return show_json({"topic": name, "published": count, "left_out": left_out})
    print(f"{count:,} events published to {name!r}" + (f", {left_out} lines left out" if left_out else ""))
