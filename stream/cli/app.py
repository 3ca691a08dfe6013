"""The `anabranch` command, and the decorator that every subcommand is registered with.

Heavy imports happen inside commands, so that `anabranch --help` answers at once.
"""

import functools
import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from stream.cli.output import write
from stream.errors import ConfigError

if TYPE_CHECKING:
    from stream.config import Config

app = typer.Typer(
    name="anabranch",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def show_version(wanted: bool) -> None:
    """Print the version and end."""
    if wanted:
        from importlib.metadata import version

        write(f"anabranch {version('anabranch')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Show the version and end.")
    ] = False,
) -> None:
    """Clicks in through Kafka, fresh recommendations out through Kafka."""


DataOption = Annotated[Path | None, typer.Option("--data", help="Data directory.", show_default=False)]
BrokerOption = Annotated[str | None, typer.Option("--broker", metavar="HOST:PORT", help="Kafka's address.")]
ConfigOption = Annotated[Path | None, typer.Option("--config", help="Configuration file (anabranch.toml).")]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document on stdout, nothing else.")]

Function = TypeVar("Function", bound=Callable[..., None])


def command(*, broker_required: bool = True, logs_as: str | None = None) -> Callable[[Function], Function]:
    """Register a subcommand. Its keyword-only parameters are its flags, in the order of its help.

    Two of them stand for flags that commands share: `settings` for --data, --broker and --config, from which the
    configuration is loaded, and `as_json` for --json. A command that needs the path given with --config takes
    `config_file`. With `broker_required` the command is refused without a broker. One that runs until it is stopped
    logs as a member of the kind `logs_as`, by the name that the flag or the setting `instance` gives it.
    """

    def register(function: Function) -> Function:
        own = inspect.signature(function).parameters

        @functools.wraps(function)
        def run(data: Path | None, broker: str | None, config: Path | None, **flags: Any) -> None:
            from stream.load_config import load
            from stream.logs import held_until_configured, log_held, log_to_stderr

            with held_until_configured() as held:
                settings = load(config, data=data, broker=broker)
            if logs_as is not None:
                name = flags.get("instance") or getattr(getattr(settings, logs_as), "instance", "0")
                log_to_stderr(settings.log, f"{logs_as}/{name}")
            log_held(held)
            if broker_required:
                require_broker(settings)
            if "config_file" in own:
                flags["config_file"] = config
            function(settings=settings, **flags)

        parameters = [flag for parameter in own.values() for flag in _flags(parameter)]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        app.command()(run)
        return function

    return register


def _flags(parameter: inspect.Parameter) -> list[inspect.Parameter]:
    flag = functools.partial(inspect.Parameter, kind=inspect.Parameter.KEYWORD_ONLY)
    if parameter.name == "settings":
        shared = {"data": DataOption, "broker": BrokerOption, "config": ConfigOption}
        return [flag(name, default=None, annotation=annotation) for name, annotation in shared.items()]
    if parameter.name == "as_json":
        return [flag("as_json", default=False, annotation=JsonOption)]
    return [] if parameter.name == "config_file" else [parameter]


def utf8(text: str | None) -> str | None:
    """An argument as UTF-8, also in a locale that is not. Refuse another one: messages and RocksDB hold UTF-8 only."""
    try:
        return None if text is None else os.fsencode(text).decode()
    except UnicodeError:
        raise typer.BadParameter(f"{text!r} is not UTF-8") from None


def require_broker(settings: "Config") -> None:
    """Raise ConfigError unless a broker is named."""
    if not settings.broker:
        raise ConfigError("no broker: name one with --broker HOST:PORT, ANABRANCH_BROKER or `broker` in anabranch.toml")
