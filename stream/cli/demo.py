"""`demo`: three minutes of real purchases."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from stream.cli.app import app

NEXT = """
Where to look next: stream/worker/pipeline.py, the path of an event; model/encoders/create.py, the model
  {anabranch} status --data {data}
  {anabranch} user household-{user} --data {data}
Publish one event and watch the answer (the model just trained goes on serving and learning)
  {anabranch} up --data {data} --port 29092
  {anabranch} watch alice --broker 127.0.0.1:29092
  echo '{{"user": "alice", "item": "{item}"}}' | {anabranch} publish - --broker 127.0.0.1:29092
"""


@app.command()
def demo(
    data: Annotated[Path, typer.Option("--data", help="Where its state goes; made anew each time.")] = Path(
        "anabranch-data/demo"
    ),
    events: Annotated[int, typer.Option("--events", help="Purchases to replay.")] = 85_000,
    seconds: Annotated[float, typer.Option("--seconds", help="How long the replay takes.")] = 165.0,
) -> None:
    """Three minutes of real grocery purchases through Kafka, learning as they come."""
    import os

    from rich.console import Console

    from stream.cli.run import check_children, running
    from stream.config import load
    from stream.local import demo as it

    console = Console()
    os.environ.update({key: value for key, value in it.SETTINGS.items() if key not in os.environ})
    settings = load(data=data)
    it.fresh_directory(data)
    console.print("reading The Complete Journey: grocery purchases of 2,469 households …", highlight=False)
    bought = it.purchases(events)
    interrupted = False
    screen = None
    try:
        with running(settings) as settings:
            replay = it.Replay(settings, bought, seconds)
            screen = it.Screen(console, settings, replay, bought)
            replay.start()
            it.watch(console, settings, replay, screen, check_children, len(bought.clicks))
            screen.refresh()
            console.print(
                f"{screen.applied:,} purchases went through Kafka into the state; {screen.line()}",
                highlight=False,
                soft_wrap=True,
            )
            console.print(screen.quality(rolling=False))
            console.print(
                f"{len(screen.versions)} model versions were published and swapped in: {', '.join(screen.versions)}",
                highlight=False,
                soft_wrap=True,
            )
    except KeyboardInterrupt:
        interrupted = True
    finally:
        if screen is not None:
            screen.close()
    if interrupted:
        console.print("stopped; nothing is left running")
        sys.exit(130)
    example = bought.clicks[-1]
    command = os.path.relpath(sys.argv[0]) if sys.argv[0].endswith("anabranch") else "anabranch"
    told = NEXT.format(
        anabranch=command, data=data, user=example["user"].removeprefix("household-"), item=example["item"]
    )
    console.print(told, highlight=False, markup=False, soft_wrap=True)
