"""`init`: the topics that everything needs, and the key that ids are hashed with."""

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from stream.cli.app import command
from stream.cli.output import note, show_json

if TYPE_CHECKING:
    from stream.config import Config


@command()
def init(
    *,
    id_key: Annotated[
        Literal["new", "data"] | None,
        typer.Option(
            "--id-key",
            help="Replace the key that ids are hashed with: by a new one, or by the one of the state in --data.",
        ),
    ] = None,
    settings: "Config",
    as_json: bool,
) -> None:
    """Create the missing topics and the key that ids are hashed with; change nothing that exists, and report faults."""
    from stream.kafka.topics import cluster_id, create_missing, inspect, refuse
    from stream.stores.id_key import UNKEYED, settle_key

    topics = create_missing(settings)
    found = inspect(settings)
    if not as_json:
        for topic in topics:
            outcome = "created" if topic.created else "exists"
            print(f"{outcome:8} {topic.name} ({topic.partitions} partition{'s' if topic.partitions > 1 else ''})")
    warnings = found.warnings(settings)
    for line in warnings:
        note(line)
    refuse(found.deviations)
    settled = settle_key(settings, cluster_id(settings), id_key)
    ids = settled.record.ids
    if as_json:
        key = {"fingerprint": ids.fingerprint or None, "written": settled.written}
        return show_json({"topics": topics, "warnings": warnings, "id_key": key})
    if ids.keyed:
        print(f"{'created' if settled.written else 'exists':8} the id key {ids.fingerprint}")
    else:
        note(UNKEYED)
    if id_key is not None:
        note("restart every worker and trainer: until then they go on with the key before")
