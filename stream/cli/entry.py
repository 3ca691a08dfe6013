"""The entry point of `anabranch`: it registers the commands, and turns errors into messages.

Exit status: 0 done, 1 failed, 2 wrong use, 130 interrupted. Documents go to stdout, logs and progress to stderr.
"""

import logging
import sys

from model.errors import ArtifactError, NothingToTest
from state.errors import StateError

# Each module registers its commands; this is their order in `anabranch --help`.
from stream.cli import (  # noqa: F401  # isort: skip
    status, inspect, control, demo, evaluate, forget, withdraw, publish, run, recovery, watch,
)  # fmt: skip
from stream.cli.app import app
from stream.errors import AnabranchError, ConfigError


def main() -> None:
    """Run the command line. An error that a person can cause ends it with a message, not with a traceback."""
    # The Kafka clients log every try to connect; we log the outcome once.
    for client in ("aiokafka", "kafka"):
        logging.getLogger(client).setLevel(logging.CRITICAL)
    try:
        app()
    except ConfigError as error:
        fail(error, 2)
    except (AnabranchError, ArtifactError, NothingToTest, StateError) as error:
        fail(error, 1)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(0)


def fail(error: Exception, exit_status: int) -> None:
    """Print the error on stderr and exit."""
    print(f"anabranch: {error}", file=sys.stderr)
    sys.exit(exit_status)
