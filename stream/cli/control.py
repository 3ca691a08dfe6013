"""`retrain`, `rollback`, `pause`, `resume`, `evaluate`: telling the running system what to do, and measuring files."""

import asyncio
import sys
import time
import uuid
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from stream.cli.app import BrokerOption, ConfigOption, DataOption, JsonOption, app, configured, need_broker
from stream.cli.inspect import show, show_json
from stream.errors import AnabranchError

if TYPE_CHECKING:
    from stream.config import Config
    from stream.messages import CommandReply

ANSWER_WITHIN_S = 15.0
LOOK_EVERY_S = 10.0


@app.command()
def retrain(
    wait: Annotated[bool, typer.Option("--wait", help="Follow the cycle to its end.")] = False,
    data: DataOption = None,
    broker: BrokerOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Tell the trainer to begin a cycle now. Ctrl-C while waiting does not stop it."""
    import msgspec

    settings = need_broker(configured(config, data, broker))
    until = ("done", "failed") if wait else ("started", "done", "failed")
    reply = asyncio.run(ask(settings, "retrain", until, None if wait else ANSWER_WITHIN_S))
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
    data: DataOption = None,
    broker: BrokerOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Move the pointer back to an older version; every worker follows at once."""
    import msgspec

    from stream.pointers import move, read_champion

    settings = need_broker(configured(config, data, broker))
    champion = asyncio.run(read_champion(settings))
    pointer = asyncio.run(move(settings, champion, version))
    if as_json:
        show_json(msgspec.to_builtins(pointer))
    else:
        before = champion.version if champion else "none"
        show(f"serving version {pointer.version} from now on (was {before})")


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


@app.command()
def evaluate(
    file: Annotated[str, typer.Argument(help="CSV with user,item,timestamp.")],
    protocol: Annotated[Literal["global-temporal", "prequential"], typer.Option("--protocol")],
    seed: Annotated[int, typer.Option("--seed")] = 0,
    data: DataOption = None,
    broker: BrokerOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure the model and its baselines on a file, by the code that runs in production."""
    from rich.console import Console
    from rich.progress import Progress

    from model.evaluation import global_temporal, prequential
    from stream.files import read_interactions

    settings = configured(config, data, broker)
    complain = lambda line, reason: print(f"line {line} {reason}; left out", file=sys.stderr)  # noqa: E731
    users, items, ts = read_interactions(file, complain)
    if len(ts) < 100:
        raise AnabranchError(f"{file} has {len(ts)} usable events; an evaluation needs 100 at least")
    measure = global_temporal if protocol == "global-temporal" else prequential
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("evaluating", total=1.0)
        found = measure(
            users, items, ts,
            model=settings.model, training=settings.training, ranking=settings.ranking, state=settings.state,
            seed=seed, progress=lambda done, what: bar.update(task, completed=done, description=what),
        )  # fmt: skip
    if as_json:
        return show_json(found)
    from rich.table import Table

    table = Table("model", "", "NDCG@10", "MRR", "Recall@10 / Hit@10", box=None)
    for name, scores in found["models"].items():
        for target, s in scores.items() if protocol == "global-temporal" else [("", scores)]:
            recall = s.get("recall@10", s.get("hit@10"))
            table.add_row(name, target, *(f"{100 * v:.2f}%" for v in (s["ndcg@10"], s["mrr"], recall)))
    show(table)


async def ask(
    settings: "Config", command: str, until: tuple[str, ...], within_s: float | None, id: str | None = None
) -> "CommandReply":
    """Publish a command and wait for a reply whose status is one of `until`. Raises AnabranchError."""
    import msgspec
    from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
    from aiokafka.errors import KafkaConnectionError, KafkaError

    from stream.messages import Command, CommandReply, encode
    from stream.topics import cluster_id, unavailable

    told = Command(command, id or uuid.uuid4().hex)
    listener = AIOKafkaConsumer(bootstrap_servers=settings.broker, enable_auto_commit=False)
    producer = AIOKafkaProducer(bootstrap_servers=settings.broker)
    try:
        await listener.start()
        await producer.start()
        replies = TopicPartition(settings.topics.command_replies, 0)
        listener.assign([replies])
        await listener.seek_to_end(replies)
        await producer.send_and_wait(settings.topics.commands, encode(told), key=told.id.encode())
        asked = looked = time.monotonic()
        while within_s is None or time.monotonic() - asked < within_s:
            for record in (await listener.getmany(replies, timeout_ms=500)).get(replies, []):
                reply = msgspec.json.decode(record.value, type=CommandReply)
                if reply.id == told.id and reply.status in until:
                    return reply
            if time.monotonic() - looked > LOOK_EVERY_S:  # the client would wait for a broker that is gone
                looked = time.monotonic()
                await asyncio.to_thread(cluster_id, settings.broker)
    except (KafkaConnectionError, KafkaError) as error:
        raise unavailable(settings.broker, error) from None
    finally:
        await listener.stop()
        await producer.stop()
    who = "trainer" if command == "retrain" else "worker"
    raise AnabranchError(f"nobody answered {command!r} within {within_s:.0f} s: does a {who} run on {settings.broker}?")
