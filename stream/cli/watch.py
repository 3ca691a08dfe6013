"""`watch`: recommendations as they come."""

import sys
from typing import Annotated

import typer

from stream.cli.app import BrokerOption, ConfigOption, DataOption, JsonOption, app, configured, need_broker, utf8


@app.command()
def watch(
    user: Annotated[str | None, typer.Argument(help="Only this user's.", callback=utf8)] = None,
    limit: Annotated[int | None, typer.Option("--limit", help="End after this many.")] = None,
    from_start: Annotated[bool, typer.Option("--from-start", help="Also those already there.")] = False,
    data: DataOption = None,
    broker: BrokerOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show recommendations as they come; Ctrl-C ends it."""
    import msgspec
    from kafka import KafkaConsumer

    from stream.kafka.connection import connection
    from stream.kafka.messages import Recommendation
    from stream.kafka.topics import check

    settings = need_broker(configured(config, data, broker))
    check(settings)
    consumer = KafkaConsumer(
        settings.topics.recommendations,
        **connection(settings),
        auto_offset_reset="earliest" if from_start else "latest",
        enable_auto_commit=False,
        group_id=None,
    )
    shown = 0
    wanted = user.encode() if user is not None else None
    try:
        for record in consumer:
            if wanted is not None and record.key != wanted:
                continue
            if record.value is None:
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


def one_line(message: object) -> str:
    """A recommendation as a person reads it."""
    from stream.kafka.messages import Recommendation

    assert isinstance(message, Recommendation)
    by = f"version {message.model}" if message.model else message.source
    names = ", ".join(r.title or r.item for r in message.items[:5])
    return f"{message.user} ({by}, after offset {message.partition}:{message.offset}): {names}"
