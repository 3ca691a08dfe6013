"""`examples`: what the ranker learns from, as a table."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stream.cli.app import command
from stream.cli.output import note, show, show_json
from stream.errors import AnabranchError

if TYPE_CHECKING:
    from state.events import Ids
    from stream.config import Config

MAX_NEWEST = 50_000
"""Some 250 MB of memory."""


@command()
def examples(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Written as CSV (.csv) or JSON lines (.jsonl).")],
    *,
    newest: Annotated[
        int, typer.Option("--newest", metavar="N", min=1, max=MAX_NEWEST, help="How many examples, at most.")
    ] = 6_000,
    users: Annotated[bool, typer.Option("--users", help="With the ids of users.")] = False,
    settings: "Config",
    as_json: bool,
) -> None:
    """Write the newest examples to a file: what was shown with its features, and what the user took next.

    A row for each candidate item, a column for each feature. Items have their ids where this data directory knows them,
    else their hashes. Workers and the trainer may run.
    """
    from stream.operate.export_examples import WRITERS, export

    if file.suffix not in WRITERS:
        raise typer.BadParameter(f"{str(file)!r} ends neither in .csv nor in .jsonl", param_hint="FILE")
    found = asyncio.run(export(settings, file, newest, users=users, names=lambda items: names_here(settings, items)))
    if as_json:
        return show_json(found)
    if found.skipped:
        reasons = ", ".join(f"{count:,} {word}" for word, count in sorted(found.skipped.items()))
        note(f"messages that are not read as examples: {reasons}")
    show(f"{found.examples:,} examples, {found.rows:,} rows in {file}")


def names_here(settings: "Config", items: "Ids") -> list[str]:
    """The ids of items as this data directory knows them; else their hashes."""
    from state.errors import StateError
    from stream.cli.state_access import view_of
    from stream.operate.lookup import item_names

    try:
        with view_of(settings) as view:
            return item_names(view, items)
    except (AnabranchError, StateError):
        return [f"#{item:016x}" for item in items.tolist()]
