"""The entry point of `anabranch`: it registers the commands, and turns errors into messages.

Exit status: 0 done, 1 failed, 2 wrong use, 130 interrupted. A reader who closes stdout has read enough: 0. Documents go
to stdout, logs and progress to stderr.
"""

import errno
import io
import logging
import os
import sys

import typer

from model.errors import ArtifactError, NothingToTest
from state.errors import StateError

# Each module registers its commands; this is their order in `anabranch --help`.
from stream.cli import (  # noqa: F401  # isort: skip
    status, health, inspect, control, demo, evaluate, examples, forget, withdraw, publish, init, run, serve, recovery,
    watch,
)  # fmt: skip
from stream.cli.app import app
from stream.cli.output import OutputClosed, end_output, note
from stream.errors import AnabranchError, ConfigError
from stream.files.permissions import create_private_files

WrongUse: type[Exception] = typer.BadParameter.__bases__[0]
"""The base of all errors in the arguments; typer has no public name for it."""
WRITE_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG)


def main() -> None:
    """Run the command line. An error that a person can cause ends it with a message, not with a traceback."""
    create_private_files()
    # The Kafka clients log every try to connect; we log the outcome once.
    for client in ("aiokafka", "kafka"):
        logging.getLogger(client).setLevel(logging.CRITICAL)
    open_streams()
    exit_status = run_command()
    try:
        end_output()
    except OutputClosed:
        pass
    except AnabranchError as error:
        exit_status = exit_status or fail(error, 1)
    sys.exit(exit_status)


def run_command() -> int:
    """Run a command and return the exit status."""
    try:
        return int(app(standalone_mode=False) or 0)
    except ConfigError as error:
        return fail(error, 2)
    except (AnabranchError, ArtifactError, NothingToTest, StateError) as error:
        return fail(error, 1)
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except OutputClosed:
        return 0
    except WrongUse as error:
        return fail_usage(error)
    except OSError as error:
        if error.filename is None and error.errno in WRITE_ERRORS:
            return fail(f"cannot write: {error.strerror}", 1)
        raise


def open_streams() -> None:
    """Let no stream fail on a character that its encoding lacks, and no file get the number of a closed stream."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    while (number := os.open(os.devnull, os.O_RDWR)) < 3:
        pass
    os.close(number)


def fail_usage(error: Exception) -> int:
    """Print what is wrong with the arguments, on one line, or the help if there are none. Return the exit status."""
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()  # type: ignore[attr-defined]
        return 2
    context = getattr(error, "ctx", None)
    problem = " ".join(error.format_message().split())  # type: ignore[attr-defined]
    command = context.command_path if context is not None else "anabranch"
    return fail(f"{problem}{'' if problem[-1:] in '.?' else '.'} See {command} --help", 2)


def fail(error: object, exit_status: int) -> int:
    """Print the error on stderr, or log it where lines are JSON, and return the exit status."""
    from stream.logs import are_json

    if are_json():
        logging.getLogger("anabranch").critical("%s", error)
    else:
        note(str(error))
    return exit_status
