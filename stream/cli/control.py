"""`retrain`, `rollback`, `shadow`, `pause`, `resume`: commands to the running system."""

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from stream.cli.app import command
from stream.cli.output import show, show_json
from stream.errors import AnabranchError, ConfigError
from stream.printable import printable

if TYPE_CHECKING:
    from stream.config import Config
    from stream.kafka.messages import CommandReply, Pointer


@command()
def retrain(
    *,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the end of the cycle.")] = False,
    shadow: Annotated[
        bool, typer.Option("--shadow", help="Score the new version on live events, without serving it.")
    ] = False,
    settings: "Config",
    as_json: bool,
) -> None:
    """Begin a training cycle now. Ctrl-C while waiting does not stop the cycle."""
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import Progress

    from stream.operate.send_command import REPLY_WITHIN_S, send_command

    ended = ("done", "kept", "failed")
    with Progress(console=Console(stderr=True), transient=True, disable=not wait) as bar:
        task = bar.add_task("waiting for the trainer", total=1.0)

        def on_progress(reply: "CommandReply") -> None:
            bar.update(task, completed=reply.share, description=escape(printable(reply.message)))

        if wait:
            reply = asyncio.run(send_command(settings, "retrain", ended, None, on_progress, shadow=shadow))
        else:
            accepted = ("waiting", "started", *ended)
            reply = asyncio.run(send_command(settings, "retrain", accepted, REPLY_WITHIN_S, shadow=shadow))
    show_json(reply) if as_json else show(reply.message)
    if reply.status == "failed":
        raise typer.Exit(1)


@command()
def rollback(
    version: Annotated[
        str | None, typer.Argument(help="The version to serve; the parent of the serving version if unset.")
    ] = None,
    *,
    unpin: Annotated[bool, typer.Option("--unpin", help="Let the trainer replace the serving version again.")] = False,
    sign: Annotated[
        bool,
        typer.Option("--sign", help="Sign VERSION first, as it is in the artifact store."),
    ] = False,
    settings: "Config",
    as_json: bool,
) -> None:
    """Serve another version, and pin it. The trainer does not replace a pinned version until --unpin."""
    from stream.kafka.pointers import read_pointers, roll_back

    if unpin and version is not None:
        raise ConfigError(f"--unpin keeps the serving version, but version {version!r} is named: leave one out")
    if sign:
        sign_named(settings, version)
    champion = asyncio.run(read_pointers(settings)).champion
    if unpin:
        pointer = unpin_champion(settings, champion)
        message = f"version {pointer.version} serves until the trainer promotes another"
    else:
        pointer = asyncio.run(roll_back(settings, champion, version))
        message = (
            f"serving version {pointer.version} from now on (was {champion.version if champion else 'none'}), pinned: "
            "`anabranch rollback --unpin` lets the trainer replace it again"
        )
    show_json(pointer) if as_json else show(message)


def sign_named(settings: "Config", version: str | None) -> None:
    """Sign a version that was published without a key, or with another one. Raises ConfigError or ArtifactError."""
    from model.learning.versions import sign_version
    from stream.kafka.pointers import MODEL_NAME

    if version is None or not settings.kafka.signing_keys:
        raise ConfigError("--sign needs the version to sign, and kafka.signing_key")
    sign_version(settings.artifacts_url, MODEL_NAME, version, settings.kafka.signing_keys)


def unpin_champion(settings: "Config", champion: "Pointer | None") -> "Pointer":
    """Publish the champion without its pin. Raises AnabranchError."""
    import msgspec

    from stream.kafka.pointers import publish_pointer, ts_after

    if champion is None or not champion.pinned:
        raise AnabranchError("the serving version is not pinned: the trainer may replace it already")
    unpinned = msgspec.structs.replace(champion, pinned=False, by="operator", moved_ts=ts_after(champion))
    return asyncio.run(publish_pointer(settings, unpinned))


@command()
def shadow(
    version: Annotated[str | None, typer.Argument(help="The version to score.")] = None,
    *,
    stop: Annotated[bool, typer.Option("--stop", help="Stop scoring the candidate.")] = False,
    settings: "Config",
    as_json: bool,
) -> None:
    """Score a version on live events beside the champion. With worker.ab set, some users get its recommendations."""
    from model.learning.manifests import list_versions
    from stream.kafka.pointers import MODEL_NAME, check_version, pointer_to, publish_pointer, read_pointers

    keys = settings.kafka.signing_keys
    if stop == (version is not None):
        raise ConfigError("give either the version to score or --stop")
    if version is not None:
        check_version(version, {m.version for m in list_versions(settings.artifacts_url, MODEL_NAME, keys)})
    pointers = asyncio.run(read_pointers(settings))
    pointer = pointer_to(settings, version or "", pointers.candidate, role="candidate")
    asyncio.run(publish_pointer(settings, pointer))
    started, stopped = f"version {version} is scored; `anabranch status` compares", "no candidate is scored from now on"
    show_json(pointer) if as_json else show(started if version else stopped)


@command()
def pause(*, settings: "Config", as_json: bool) -> None:
    """Stop every worker from reading clicks. Requests are still answered."""
    command_workers(settings, "pause", as_json)


@command()
def resume(*, settings: "Config", as_json: bool) -> None:
    """Let every worker read clicks again."""
    command_workers(settings, "resume", as_json)


def command_workers(settings: "Config", name: str, as_json: bool) -> None:
    """Send a command to all workers and show the first reply."""
    from stream.operate.send_command import REPLY_WITHIN_S, send_command

    reply = asyncio.run(send_command(settings, name, ("done",), REPLY_WITHIN_S))
    show_json(reply) if as_json else show(reply.message)
