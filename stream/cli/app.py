"""The command's frame: what every subcommand shares, and how errors reach a person.

Exit 0 done, 1 failed, 2 wrong use, 130 interrupted. Documents go to stdout, logs and progress to stderr. Heavy
imports happen inside commands: `anabranch --help` answers at once.
"""

import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from model.errors import ArtifactError
from state.errors import StateError
from stream.errors import AnabranchError, ConfigError

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


def need_broker(config: "Config") -> "Config":
    """Refuse a command that cannot do without a broker."""
    if not config.broker:
        raise ConfigError("no broker: name one with --broker HOST:PORT, ANABRANCH_BROKER or `broker` in anabranch.toml")
    return config


def main() -> None:
    """Run the command line; every error a person can cause is one message, never a traceback."""
    from stream.cli import control, demo, evaluate, forget, inspect, publish, recovery, run, watch  # noqa: F401  each registers its own

    # The Kafka clients retry and tell of each try; what it comes to is said once, by us.
    for client in ("aiokafka", "kafka"):
        logging.getLogger(client).setLevel(logging.CRITICAL)
    try:
        app()
    except ConfigError as error:
        fail(error, 2)
    except (AnabranchError, ArtifactError, StateError) as error:
        fail(error, 1)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(0)


def fail(error: Exception, status: int) -> None:
    """Say what went wrong on stderr and exit."""
    print(f"anabranch: {error}", file=sys.stderr)
    sys.exit(status)
