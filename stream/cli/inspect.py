"""`user`, `item`, `graph`, `recommend`: looking into the state, whether workers run or not."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stream.cli.app import command, utf8
from stream.cli.output import note, show, show_json, show_recommendation, time_argument
from stream.cli.state_access import here_or_asked, pointers_of, serving, view_of
from stream.errors import AnabranchError

if TYPE_CHECKING:
    from state.view import View
    from stream.config import Config
    from stream.kafka.documents import ItemReport

AtOption = Annotated[
    str | None, typer.Option("--at", metavar="TIME", help="As it was before this time: ms or ISO-8601.")
]
NO_END = 2**62


@command(broker_required=False)
def user(
    name: Annotated[str, typer.Argument(metavar="USER", callback=utf8)],
    *,
    at: AtOption = None,
    settings: "Config",
    as_json: bool,
) -> None:
    """Show a user's sequence and last recommendation.

    The user's owner is asked where it is on another machine. `--at` reads this data directory only.
    """
    from stream.kafka.documents import UserReport
    from stream.operate import ask_owner, lookup
    from stream.times import moment

    found: UserReport | lookup.UserAt
    if at:
        with of_this_directory(settings, "--at") as view:
            found = lookup.user_at(settings, view, name, time_argument(at))
    else:
        found = here_or_asked(
            settings, name, lambda view: lookup.user(settings, view, name), lambda: ask_owner.ask_user(settings, name)
        )
    if as_json:
        return show_json(found)
    if not found.sequence:
        raise AnabranchError(
            f"no events of user {name!r}" if isinstance(found, UserReport) else no_events(settings, name)
        )
    for step in found.sequence:
        show(f"{moment(step.ts)}  {step.event:8}  {step.item}")
    if isinstance(found, UserReport):
        show_recommendation(found.recommended)
        if len(found.partitions) > 1:
            note(
                f"user {name!r} has events in the partitions {', '.join(map(str, found.partitions))} of "
                f"{settings.topics.clicks!r}: each has a part of the sequence, shown is that of the first, and each "
                f"recommends from its own part. All events of a user must get into one partition: key them by the "
                f"user, with the same partitioner in all producers (docs/messages.md)"
            )


def no_events(settings: "Config", name: str) -> str:
    """The sentence about a user without events."""
    if settings.broker:
        return f"no events of user {name!r}"
    return f"no events of user {name!r} in {settings.data}; with --broker the other workers are asked too"


def of_this_directory(settings: "Config", flag: str) -> "View":
    """The state in the data directory, for what no other machine is asked. Raises AnabranchError."""
    try:
        return view_of(settings)
    except AnabranchError as error:
        raise AnabranchError(
            f"{error}. {flag} reads the stores of one machine only: run it where the partition is served "
            f"(`anabranch status` names the owners)"
        ) from None


@command(broker_required=False)
def item(
    name: Annotated[str, typer.Argument(metavar="ITEM", callback=utf8)],
    *,
    at: AtOption = None,
    settings: "Config",
    as_json: bool,
) -> None:
    """Show an item's degree, its popularity and the items that follow it, over all partitions.

    Their owners are asked where this data directory has not all of them. `--at` reads this data directory only.
    """
    if at:
        return show_item_at(settings, name, time_argument(at), as_json)
    from stream.operate import ask_owner, lookup

    def ask() -> "ItemReport":
        asked = ask_owner.ask_item(settings, name)
        for why in asked.missing:
            note(f"{why}: its events of {name!r} are not counted")
        return asked.item

    found = here_or_asked(
        settings, None, lambda view: lookup.item(settings, view, name, items_of_champion(settings)), ask
    )
    if as_json:
        return show_json(found)
    if not found.degree:
        raise AnabranchError(f"no events of item {name!r}")
    known = {True: "known to the model", False: "not known to the model yet", None: "no model"}
    show(f"{found.item}  {found.title or ''}")
    show(f"{found.degree:,} events, popularity {found.popularity:.2f}, {known[found.known_to_model]}")
    for follower in found.next:
        show(f"  {follower.weight:8.2f}  {follower.item}  {follower.title or ''}")


def items_of_champion(settings: "Config") -> set[str] | None:
    """Ids of the items that the serving version knows; None where there is none, or it cannot be read."""
    champion = serving(settings)
    if champion is None:
        return None
    from model.errors import ArtifactError
    from stream.stores.artifacts import fetch_version

    try:
        return set(fetch_version(champion, settings).trained.vocabulary.ids)
    except ArtifactError as error:
        note(str(error))
        return None


def show_item_at(settings: "Config", name: str, t: int, as_json: bool) -> None:
    """Print an item as it was before `t`."""
    from stream.operate import lookup
    from stream.times import moment

    with of_this_directory(settings, "--at") as view:
        found = lookup.item_at(settings, view, name, t)
    if as_json:
        return show_json(found)
    show(f"{name} at {moment(t)}: {found.degree:,} events, popularity {found.popularity:.2f}")
    for follower in found.next:
        show(f"  {follower.weight:8.2f}  {follower.item}")
    for last in found.last_users:
        show(f"{moment(last.ts)}  {last.event:8}  {last.user}")


@command(broker_required=False)
def graph(
    *,
    start: Annotated[
        str | None, typer.Option("--from", metavar="TIME", help="Only events after this time: ms or ISO-8601.")
    ] = None,
    end: Annotated[str | None, typer.Option("--to", metavar="TIME", help="Only events up to this time.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Write the events to this .npz file.")] = None,
    settings: "Config",
    as_json: bool,
) -> None:
    """Show the temporal graph in numbers, whole or in a window of time."""
    from stream.operate import lookup
    from stream.times import moment

    if start or end or out:
        return show_window(settings, time_argument(start or "0"), time_argument(end) if end else NO_END, out, as_json)
    with view_of(settings) as view:
        found = lookup.graph(view)
    if as_json:
        return show_json(found)
    show(f"{found.users:,} users, {found.items:,} items, {found.edges:,} edges")
    if found.oldest_ts is not None and found.newest_ts is not None:
        show(f"from {moment(found.oldest_ts)} to {moment(found.newest_ts)}")
    show("events an item: " + ", ".join(f"{quantile} {count:,}" for quantile, count in found.item_degree.items()))


def show_window(settings: "Config", start: int, end: int, out: Path | None, as_json: bool) -> None:
    """Print the events with start < time <= end in numbers, and write them to `out` if it is given."""
    from stream.operate import lookup

    with view_of(settings) as view:
        found, events = lookup.window(view, start, end)
    if out is not None:
        import numpy as np

        try:
            with out.open("wb") as file:
                np.savez(file, user=events["user"], item=events["item"], ts=events["ts"], kind=events["kind"])
        except OSError as error:
            raise AnabranchError(f"cannot write --out {out}: {error.strerror}") from None
    if as_json:
        return show_json(found)
    written = f", in {out}" if out else ""
    show(f"{found.edges:,} edges of {found.users:,} users and {found.items:,} items{written}")


@command(broker_required=False)
def recommend(
    name: Annotated[str, typer.Argument(metavar="USER", callback=utf8)], *, settings: "Config", as_json: bool
) -> None:
    """Show what would be recommended to a user now.

    The user's owner is asked. Where that is the worker of this data directory, its version, learned weights, filters
    and A/B arm are used here. The worker counts clicks in memory, and this command reads them from the state. So a
    score can differ in its last digits, and so can the rank of an item that the version does not know yet.
    """
    from stream.operate import ask_owner
    from stream.operate.recommend import answer_now

    found = here_or_asked(
        settings, name, lambda view: answer_now(settings, view, pointers_of(settings), name),
        lambda: ask_owner.ask_recommendation(settings, name),
    )  # fmt: skip
    if as_json:
        return show_json(found)
    show_recommendation(found)
