"""What `anabranch` runs, and how errors reach a person.

Exit 0 done, 1 failed, 2 wrong use, 130 interrupted. Documents go to stdout, logs and progress to stderr.
"""

import logging
import sys

from model.errors import ArtifactError, NothingToTest
from state.errors import StateError
from stream.cli import control, demo, evaluate, forget, inspect, publish, recovery, run, watch  # noqa: F401  each registers its own
from stream.cli.app import app
from stream.errors import AnabranchError, ConfigError


def main() -> None:
    """Run the command line; every error a person can cause is one message, never a traceback."""
    # The Kafka clients retry and tell of each try; what it comes to is said once, by us.
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


def fail(error: Exception, status: int) -> None:
    """Say what went wrong on stderr and exit."""
    print(f"anabranch: {error}", file=sys.stderr)
    sys.exit(status)
