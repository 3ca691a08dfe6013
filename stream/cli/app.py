"""What every subcommand shares. Heavy imports happen inside commands: `anabranch --help` answers at once."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stream.errors import ConfigError

if TYPE_CHECKING:
    from stream.config import Config

app = typer.Typer(
    name="anabranch",
    help="Clicks in through Kafka, fresh recommendations out through Kafka.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

DataOption = Annotated[Path | None, typer.Option("--data", help="Data directory.", show_default=False)]
BrokerOption = Annotated[str | None, typer.Option("--broker", metavar="HOST:PORT", help="Kafka's address.")]
ConfigOption = Annotated[Path | None, typer.Option("--config", help="Configuration file (anabranch.toml).")]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document on stdout, nothing else.")]


def configured(config: Path | None, data: Path | None, broker: str | None, **more: Any) -> "Config":
    """The configuration with this command's flags on top."""
    from stream.config import load

    return load(config, data=data, broker=broker, **more)


def utf8(text: str | None) -> str | None:
    """Refuse an argument that is not UTF-8, as the names in messages are."""
    try:
        (text or "").encode()
    except UnicodeEncodeError:
        raise typer.BadParameter(f"{text!r} is not UTF-8") from None
    return text


def need_broker(config: "Config") -> "Config":
    """Refuse a command that cannot do without a broker."""
    if not config.broker:
        raise ConfigError("no broker: name one with --broker HOST:PORT, ANABRANCH_BROKER or `broker` in anabranch.toml")
    return config
