"""`watch`: recommendations as they are sent."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from stream.cli.app import command, utf8
from stream.cli.output import ranked_by

if TYPE_CHECKING:
    from stream.config import Config
    from stream.kafka.messages import Recommendation

ITEMS_SHOWN = 5


@command()
def watch(
    user: Annotated[str | None, typer.Argument(help="Show only this user's recommendations.", callback=utf8)] = None,
    *,
    limit: Annotated[int | None, typer.Option("--limit", help="End after this many recommendations.")] = None,
    from_start: Annotated[bool, typer.Option("--from-start", help="Also show recommendations sent before.")] = False,
    settings: "Config",
    as_json: bool,
) -> None:
    """Show recommendations as they are sent; Ctrl-C ends it."""
    import msgspec

    from stream.kafka.follow import follow
    from stream.kafka.messages import Recommendation
    from stream.kafka.topics import check

    check(settings)
    consumer = follow(settings, settings.topics.recommendations, from_start=from_start)
    shown = 0
    key = user.encode() if user is not None else None
    try:
        for record in consumer:
            if record.value is None or key not in (None, record.key):
                continue
            if as_json:
                print(record.value.decode(), flush=True)
            else:
                print(one_line(msgspec.json.decode(record.value, type=Recommendation)), flush=True)
            shown += 1
            if limit is not None and shown >= limit:
                break
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        consumer.close()


def one_line(message: "Recommendation") -> str:
    """A recommendation as a person reads it."""
    names = ", ".join(item.title or item.item for item in message.items[:ITEMS_SHOWN])
    return f"{message.user} ({ranked_by(message)}, after offset {message.partition}:{message.offset}): {names}"
