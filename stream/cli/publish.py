"""`publish`: events or titles from a file into a topic."""

import asyncio
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from stream.cli.app import command
from stream.cli.output import Complaints, note, show, show_json
from stream.errors import AnabranchError

if TYPE_CHECKING:
    from stream.config import Config


@command()
def publish(
    file: Annotated[
        str,
        typer.Argument(
            help="CSV with a header (user,item,ts) or JSON with these fields or your own; - for standard input."
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

    from stream.kafka.publish import Pace, send
    from stream.kafka.topics import check
    from stream.operate.event_files import EventFile, titles

    try:
        pace = Pace(speed)
    except ValueError:
        raise typer.BadParameter(f"--speed {speed}: give events a second (500) or times event time (60x)") from None
    check(settings)
    complaints = Complaints()
    events = EventFile(file, settings.clicks, settings.state, note)
    if topic == "clicks":
        name, messages = settings.topics.clicks, events.messages(complaints)
        if events.can_be_read_twice:
            events.check_times()
    else:
        name, messages = settings.topics.items, titles(file, complaints)
    columns = (TextColumn("{task.completed:,.0f} events published"), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("publish", total=None)
        count = asyncio.run(
            send(
                settings,
                name,
                messages,
                pace,
                on_progress=lambda done: bar.update(task, completed=done),
                on_refused=complaints,
                live=not events.can_be_read_twice,
            )
        )
    complaints.end()
    if as_json:
        show_json({"topic": name, "published": count, "left_out": complaints.count})
    if not count:
        raise AnabranchError(f"nothing of {file} was published: it has no line that could be used")
    if not as_json:
        left_out = f", {complaints.count} lines left out" if complaints.count else ""
        show(f"{count:,} events published to {name!r}{left_out}")
