"""`publish`: events or titles from a file into a topic."""

import asyncio
import sys
from typing import Annotated, Literal

import typer

from stream.cli.app import BrokerOption, ConfigOption, DataOption, JsonOption, app, configured, need_broker

MOST_COMPLAINTS = 20


@app.command()
def publish(
    file: Annotated[
        str,
        typer.Argument(
            help="CSV with a header (user,item,ts) or JSON lines with the same fields; - for standard input."
        ),
    ],
    topic: Annotated[Literal["clicks", "items"], typer.Option("--topic", help="Which topic.")] = "clicks",
    speed: Annotated[
        str | None,
        typer.Option("--speed", metavar="N|Nx", help="N events a second, or N times the events' own time."),
    ] = None,
    data: DataOption = None,
    broker: BrokerOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Publish a file's events (or items' titles) to Kafka."""
    import msgspec
    from rich.console import Console
    from rich.progress import Progress, TextColumn, TimeElapsedColumn

    from stream.kafka.field_mapping import map_fields
    from stream.kafka.publish import Pace
    from stream.kafka.publish import publish as send
    from stream.kafka.topics import check
    from stream.operate.event_files import opened, rows

    settings = need_broker(configured(config, data, broker))
    try:
        pace = Pace(speed)
    except ValueError:
        raise typer.BadParameter(f"--speed {speed}: give events a second (500) or times event time (60x)") from None
    check(settings)
    broken = 0

    def complain(line: int, reason: str) -> None:
        nonlocal broken
        broken += 1
        if broken <= MOST_COMPLAINTS:
            print(f"line {line} {reason}; left out", file=sys.stderr)

    name = settings.topics.clicks if topic == "clicks" else settings.topics.items
    needed = ("user", "item") if topic == "clicks" else ("item", "title")
    columns = (TextColumn("{task.completed:,.0f} events published"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar, opened(file) as text:
        task = bar.add_task("publish", total=None)
        source = (row for _, row in rows(text, needed, complain))
        key, layout = (
            ("user", lambda row: map_fields(row, settings.clicks.fields)) if topic == "clicks" else ("item", dict)
        )
        count = asyncio.run(
            send(settings, name, source, key, pace, lambda done: bar.update(task, completed=done), layout)
        )
    if broken > MOST_COMPLAINTS:
        print(f"and {broken - MOST_COMPLAINTS} more lines left out", file=sys.stderr)
    if as_json:
        print(msgspec.json.encode({"topic": name, "published": count, "left_out": broken}).decode())
    else:
        print(f"{count:,} events published to {name!r}" + (f", {broken} lines left out" if broken else ""))
