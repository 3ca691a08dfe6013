"""`forget`: erase a user."""

from typing import TYPE_CHECKING, Annotated

import typer

from stream.cli.app import command, utf8
from stream.cli.output import finite, show, show_json

if TYPE_CHECKING:
    from stream.config import Config
    from stream.operate.forget import ForgetReport


@command()
def forget(
    name: Annotated[str, typer.Argument(metavar="USER", callback=utf8)],
    *,
    within_s: Annotated[
        float, typer.Option("--within", min=0, callback=finite, help="Seconds to wait for the worker.")
    ] = 120.0,
    settings: "Config",
    as_json: bool,
) -> None:
    """Erase a user for good, then search every file for what is left.

    A state rebuilt from the log stays without the user.
    """
    from stream.kafka.topics import check
    from stream.operate.forget import forget as erase

    check(settings)
    report = erase(settings, name, within_s)
    show_json(report) if as_json else show_report(report, settings)
    if report.found:
        raise typer.Exit(1)


def show_report(report: "ForgetReport", settings: "Config") -> None:
    """Print where the event went, and what the search found."""
    for event in report.published:
        show(f"forget event of {report.user} at partition {event.partition}, offset {event.offset}")
    searched = report.searched
    show(
        f"searched {searched.files:,} files ({searched.bytes / 1e6:,.1f} MB) and {searched.records:,} "
        f"records in {settings.data} for the id and its hash: "
        + (f"found in {len(report.found)} places" if report.found else "nothing")
    )
    for place in report.found:
        show(f"  {place}")
    if report.not_here:
        show(f"the state of partitions {report.not_here} is not in {settings.data}: run this where it is")
