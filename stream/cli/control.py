"""`retrain`, `rollback`, `shadow`, `pause`, `resume`: telling the running system what to do."""

import asyncio
import math
import time
import uuid
from typing import TYPE_CHECKING, Annotated

import typer

from stream.cli.app import BrokerOption, ConfigOption, DataOption, JsonOption, app, configured, need_broker
from stream.cli.inspect import show, show_json
from stream.errors import AnabranchError, ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from stream.config import Config
    from stream.kafka.messages import CommandReply

ANSWER_WITHIN_S = 15.0
SAID_AGAIN_S = 3.0
LOOK_EVERY_S = 10.0


@app.command()
def retrain(
    wait: Annotated[bool, typer.Option("--wait", help="Follow the cycle to its end.")] = False,
    shadow: Annotated[
        bool, typer.Option("--shadow", help="Score what is learned on live events, without serving it.")
    ] = False,
    data: DataOption = None,
    broker: BrokerOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Tell the trainer to begin a cycle now. Ctrl-C while waiting does not stop it."""
    import msgspec
    from rich.console import Console
    from rich.progress import Progress

    settings = need_broker(configured(config, data, broker))
    begun = ("waiting", "started", "done", "kept", "failed")
    with Progress(console=Console(stderr=True), transient=True, disable=not wait) as bar:
        task = bar.add_task("waiting for the trainer", total=1.0)

        def follow(reply: "CommandReply") -> None:
            bar.update(task, completed=reply.share, description=reply.message)

        reply = asyncio.run(
            ask(
                settings, "retrain", begun[2:] if wait else begun,
                None if wait else ANSWER_WITHIN_S, follow if wait else None, shadow=shadow,
            )
        )  # fmt: skip
    if as_json:
        show_json(msgspec.to_builtins(reply))
    else:
        show(reply.message)
    if reply.status == "failed":
        raise typer.Exit(1)


@app.command()
def rollback(
    version: Annotated[
        str | None, typer.Argument(help="The version to serve; the serving one's parent if unset.")
    ] = None,
    unpin: Annotated[bool, typer.Option("--unpin", help="Let the trainer replace the serving version again.")] = False,
    data: DataOption = None,
    broker: BrokerOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Serve another version and pin it: the trainer does not replace it until --unpin."""
    import msgspec

    from stream.kafka.pointers import publish_pointer, read_pointers, roll_back

    settings = need_broker(configured(config, data, broker))
    if unpin and version is not None:
        raise ConfigError("--unpin keeps the serving version: name a version or say --unpin, not both")
    champion = asyncio.run(read_pointers(settings)).champion
    if unpin:
        if champion is None or not champion.pinned:
            raise AnabranchError("the serving version is not pinned")
        told = msgspec.structs.replace(champion, pinned=False, by="operator", moved_ts=champion.moved_ts + 1)
        pointer = asyncio.run(publish_pointer(settings, told))
        said = f"version {pointer.version} serves until the trainer promotes another"
    else:
        pointer = asyncio.run(roll_back(settings, champion, version))
        before = champion.version if champion else "none"
        said = (
            f"serving version {pointer.version} from now on (was {before}), pinned: "
            "`anabranch rollback --unpin` lets the trainer replace it again"
        )
    show_json(msgspec.to_builtins(pointer)) if as_json else show(said)


@app.command()
def shadow(
    version: Annotated[str | None, typer.Argument(help="The version to score.")] = None,
    stop: Annotated[bool, typer.Option("--stop", help="Score none any more.")] = False,
    data: DataOption = None,
    broker: BrokerOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Score a version on live events beside the champion; with the setting worker.ab some users get it."""
    import msgspec

    from model.learning.versions import list_versions
    from stream.kafka.pointers import MODEL_NAME, check_version, pointer_to, publish_pointer, read_pointers

    settings = need_broker(configured(config, data, broker))
    if stop == (version is not None):
        raise ConfigError("name the version to score, or say --stop")
    if version is not None:
        check_version(version, {m.version for m in list_versions(settings.artifacts_url, MODEL_NAME)})
    pointers = asyncio.run(read_pointers(settings))
    pointer = pointer_to(settings, version or "", pointers.candidate, role="candidate")
    asyncio.run(publish_pointer(settings, pointer))
    said = f"version {version} is scored; `anabranch status` compares" if version else "no candidate is scored any more"
    show_json(msgspec.to_builtins(pointer)) if as_json else show(said)


@app.command()
def pause(
    data: DataOption = None,
    broker: BrokerOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Tell every worker to stop reading clicks; requests are still answered."""
    tell_workers(need_broker(configured(config, data, broker)), "pause", as_json)


@app.command()
def resume(
    data: DataOption = None,
    broker: BrokerOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Tell every worker to go on reading clicks."""
    tell_workers(need_broker(configured(config, data, broker)), "resume", as_json)


def tell_workers(settings: "Config", command: str, as_json: bool) -> None:
    """Publish a command and show what the first worker that heard it says."""
    import msgspec

    reply = asyncio.run(ask(settings, command, ("done",), ANSWER_WITHIN_S))
    show_json(msgspec.to_builtins(reply)) if as_json else show(reply.message)


async def ask(
    settings: "Config",
    command: str,
    until: tuple[str, ...],
    within_s: float | None,
    follow: "Callable[[CommandReply], None] | None" = None,
    *,
    shadow: bool = False,
    id: str | None = None,
) -> "CommandReply":
    """Publish a command and wait for a reply whose status is one of `until`; `follow` hears the others.

    It is said again until somebody answers: a worker that is just starting may not have heard it.
    Without `within_s` the first reply must come within ANSWER_WITHIN_S, the last whenever it does. Raises
    AnabranchError.
    """
    import msgspec
    from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
    from aiokafka.errors import KafkaConnectionError, KafkaError

    from stream.kafka.connection import connection
    from stream.kafka.diagnosis import unavailable
    from stream.kafka.messages import UNREADABLE, Command, CommandReply, encode
    from stream.kafka.topics import cluster_id

    told = Command(command, id or uuid.uuid4().hex, shadow=shadow)
    listener = AIOKafkaConsumer(**connection(settings), enable_auto_commit=False)
    producer = AIOKafkaProducer(**connection(settings))
    try:
        await listener.start()
        await producer.start()
        replies = TopicPartition(settings.topics.command_replies, 0)
        listener.assign([replies])
        await listener.seek_to_end(replies)
        asked = looked = time.monotonic()
        said, heard = -math.inf, False
        while (within_s is None and heard) or time.monotonic() - asked < (within_s or ANSWER_WITHIN_S):
            if not heard and time.monotonic() - said > SAID_AGAIN_S:
                said = time.monotonic()
                await producer.send_and_wait(settings.topics.commands, encode(told), key=told.id.encode())
            for record in (await listener.getmany(replies, timeout_ms=500)).get(replies, []):
                try:
                    reply = msgspec.json.decode(record.value or b"", type=CommandReply)
                except UNREADABLE:  # anybody may write there
                    continue
                if reply.id != told.id:
                    continue
                if reply.status in until:
                    return reply
                heard = True
                if follow is not None:
                    follow(reply)
            if time.monotonic() - looked > LOOK_EVERY_S:  # the client would wait for a broker that is gone
                looked = time.monotonic()
                await asyncio.to_thread(cluster_id, settings)
    except (KafkaConnectionError, KafkaError) as error:
        raise await unavailable(settings, error) from None
    finally:
        await listener.stop()
        await producer.stop()
    who = "trainer" if command == "retrain" else "worker"
    waited = within_s or ANSWER_WITHIN_S
    raise AnabranchError(f"nobody answered {command!r} within {waited:.0f} s: does a {who} run on {settings.broker}?")
