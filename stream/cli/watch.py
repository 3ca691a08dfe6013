"""`watch`: recommendations as they are sent."""

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stream.cli.app import command, utf8
from stream.cli.output import Complaints, output_errors, ranked_by, write, write_json
from stream.printable import printable

if TYPE_CHECKING:
    from stream.config import Config
    from stream.kafka.messages import Recommendation

ITEMS_SHOWN = 5


@command()
def watch(
    user: Annotated[str | None, typer.Argument(help="Show only this user's recommendations.", callback=utf8)] = None,
    *,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="End after this many recommendations.")] = None,
    from_start: Annotated[bool, typer.Option("--from-start", help="Also show recommendations sent before.")] = False,
    settings: "Config",
    as_json: bool,
) -> None:
    """Show recommendations as they are sent; Ctrl-C ends it."""
    from stream.kafka.follow import follow
    from stream.kafka.topics import check

    check(settings)
    consumer = follow(settings, settings.topics.recommendations, from_start=from_start)
    shown, foreign = 0, Complaints("offset")
    key = user.encode() if user is not None else None
    try:
        for record in consumer:
            if record.value is None or key not in (None, record.key):
                continue
            if not show_message(record, as_json, foreign):
                continue
            shown += 1
            if limit is not None and shown >= limit:
                break
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        foreign.end()
        consumer.close()


def show_message(record: Any, as_json: bool, foreign: Complaints) -> bool:
    """Print a record of the topic; return whether it is a recommendation. Others may write there."""
    import msgspec

    from stream.kafka.messages import UNREADABLE, Recommendation

    try:
        message = msgspec.json.decode(record.value, type=Recommendation)
        document = msgspec.json.encode(msgspec.json.decode(record.value))
    except UNREADABLE as error:
        foreign(record.offset, f"no recommendation, in partition {record.partition}: {error}")
        return False
    write_json(document) if as_json else write(one_line(message))
    with output_errors():
        sys.stdout.flush()
    return True


def one_line(message: "Recommendation") -> str:
    """A recommendation as a person reads it."""
    names = ", ".join(item.title or item.item for item in message.items[:ITEMS_SHOWN])
    return printable(
        f"{message.user} ({ranked_by(message)}, after offset {message.partition}:{message.offset}): {names}"
    )
