"""`demo`: three minutes of real purchases."""

import os
import secrets
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stream.cli.app import app
from stream.cli.output import finite

if TYPE_CHECKING:
    from rich.console import Console

    from stream.config import Config
    from stream.local.demo_feed import Purchases

NEXT_STEPS = """
Where to look next: stream/worker/pipeline.py, the path of an event; model/learning/cycle.py, a cycle of learning
  {anabranch} status --data {data}
  {anabranch} user household-{user} --data {data}
Publish one event and watch the answer (the model just trained goes on serving and learning)
  {anabranch} up --data {data} --port 29092
  {anabranch} watch alice --broker 127.0.0.1:29092
  echo '{{"user": "alice", "item": "{item}"}}' | {anabranch} publish - --broker 127.0.0.1:29092
"""


@app.command()
def demo(
    data: Annotated[Path, typer.Option("--data", help="Directory of its state; emptied at each start.")] = Path(
        "anabranch-data/demo"
    ),
    events: Annotated[int, typer.Option("--events", min=1, help="Number of purchases to replay, at most.")] = 85_000,
    seconds: Annotated[
        float, typer.Option("--seconds", min=1, callback=finite, help="Duration of the replay in seconds.")
    ] = 150.0,
) -> None:
    """Replay real grocery purchases through Kafka for three minutes. The model learns as they come."""
    from rich.console import Console

    from stream.load_config import load
    from stream.local.demo import DEMO_SETTINGS, empty_directory
    from stream.local.demo_feed import read_purchases

    console = Console(highlight=False)
    chosen = DEMO_SETTINGS | {"ANABRANCH_SERVE__OPERATE_TOKEN": secrets.token_urlsafe(16)}
    os.environ.update({key: value for key, value in chosen.items() if key not in os.environ})
    settings = load(data=data)
    empty_directory(data)
    console.print("reading The Complete Journey: grocery purchases of 2,469 households …")
    purchases = read_purchases(events)
    try:
        play(console, settings, purchases, seconds)
    except KeyboardInterrupt:
        console.print("stopped; nothing is left running")
        sys.exit(130)
    last = purchases.clicks[-1]
    command = os.path.relpath(sys.argv[0]) if sys.argv[0].endswith("anabranch") else "anabranch"
    user = last["user"].removeprefix("household-")
    console.print(
        NEXT_STEPS.format(anabranch=command, data=data, user=user, item=last["item"]), markup=False, soft_wrap=True
    )


def play(console: "Console", settings: "Config", purchases: "Purchases", seconds: float) -> None:
    """Run everything, publish the purchases, and show what happens until all of them are applied."""
    from stream.local.demo import Screen, watch
    from stream.local.demo_feed import Answers, Feed
    from stream.local.page_address import open_when_there
    from stream.local.supervisor import run_everything

    with run_everything(settings, trainer_yields=False) as supervisor:
        if supervisor.page:
            console.print(f"watch it in a browser: {supervisor.page}", soft_wrap=True, markup=False)
            console.print(f"to act there, sign in with {settings.serve.operate_token}", soft_wrap=True, markup=False)
            open_when_there(supervisor.page)
        answers = Answers(supervisor.config)
        feed = Feed(supervisor.config, purchases, seconds, answers)
        screen = Screen(console, supervisor.config, feed, purchases)
        try:
            answers.start()
            feed.start()
            watch(console, supervisor.config, feed, screen, supervisor.check)
            screen.refresh()
            console.print(
                f"{screen.applied:,} purchases went through Kafka into the state; {screen.line()}", soft_wrap=True
            )
            if feed.published < len(purchases.clicks):
                console.print(
                    f"{feed.published:,} of {len(purchases.clicks):,} purchases were published: no more were answered "
                    f"in {seconds:.0f} s on this machine",
                    soft_wrap=True,
                )
            console.print(screen.quality_table(rolling=False))
            versions = screen.versions
            console.print(
                f"{len(versions)} model versions were published and swapped in: {', '.join(versions)}"
                if versions
                else "no model version was published: the replay was too short for one; popular items were recommended",
                soft_wrap=True,
            )
        finally:
            answers.close()
            screen.close()
