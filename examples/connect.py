"""How the examples reach Kafka: the address, and for a managed Kafka the same variables as `anabranch` reads.

Every failure ends with one sentence: a broker that does not answer, a topic that is not there.
"""

import contextlib
import logging
import os
import re
import signal
import sys
from collections.abc import Iterator
from typing import Any

from kafka import KafkaConsumer
from kafka.errors import KafkaError, UnsupportedCodecError

WITHIN_S = 5.0
VARIABLES = {
    "ANABRANCH_KAFKA__SECURITY": "security_protocol",
    "ANABRANCH_KAFKA__SASL_MECHANISM": "sasl_mechanism",
    "ANABRANCH_KAFKA__SASL_USER": "sasl_plain_username",
    "ANABRANCH_KAFKA__SASL_PASSWORD": "sasl_plain_password",
    "ANABRANCH_KAFKA__CA_FILE": "ssl_cafile",
    "ANABRANCH_KAFKA__CERT_FILE": "ssl_certfile",
    "ANABRANCH_KAFKA__KEY_FILE": "ssl_keyfile",
}


def client(broker: str) -> dict[str, Any]:
    """Arguments of any client of kafka-python. Raises ValueError."""
    for address in broker.split(","):
        if not re.fullmatch(r".+:\d{1,5}", address.strip()):
            raise ValueError(f"{address!r} is not HOST:PORT")
    given = {name: os.environ[variable] for variable, name in VARIABLES.items() if os.environ.get(variable)}
    if "sasl" in given.get("security_protocol", ""):
        given.setdefault("sasl_mechanism", "plain")
    for name in given.keys() & {"security_protocol", "sasl_mechanism"}:
        given[name] = given[name].upper()
    if given.get("security_protocol", "SSL") not in ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"):
        raise ValueError("ANABRANCH_KAFKA__SECURITY is one of plaintext, ssl, sasl_plaintext, sasl_ssl")
    for name in given.keys() & {"ssl_cafile", "ssl_certfile", "ssl_keyfile"}:
        if not os.path.isfile(given[name]):
            raise ValueError(f"{name} = {given[name]!r}: there is no such file")
    return {"bootstrap_servers": broker, "bootstrap_timeout_ms": int(WITHIN_S * 1000)} | given


@contextlib.contextmanager
def connected(broker: str, *topics: str) -> Iterator[dict[str, Any]]:
    """Check that the topics are there, without creating them, and yield the arguments of a client."""
    logging.getLogger("kafka").setLevel(logging.CRITICAL)  # it logs every try to connect
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # a terminal may know ASCII only
    try:
        arguments = client(broker)
        # kafka-python waits without end for a listener that never speaks, and for TLS where the broker has none.
        signal.signal(signal.SIGALRM, end_late)
        signal.alarm(int(2 * WITHIN_S))
        consumer = KafkaConsumer(**arguments)
        missing = sorted(set(topics) - consumer.topics())  # a question about one topic could create it
        consumer.close()
        if missing:
            sys.exit(
                f"there is no topic {' and no '.join(missing)} at {broker}: `anabranch init --broker {broker}` creates "
                f"the topics, and --help shows how to name others"
            )
        signal.alarm(0)
        yield arguments
    except BrokenPipeError:  # the reader of our output has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except ValueError as error:
        sys.exit(str(error))
    except UnsupportedCodecError as error:
        sys.exit(f"the topic is compressed ({error}): pip install 'kafka-python[lz4,snappy,zstd]'")
    except (KafkaError, OSError) as error:
        sys.exit(f"Kafka at {broker} did not serve this within {WITHIN_S:.0f} s: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


def end_late(*_: object) -> None:
    """End what waits for the broker."""
    raise TimeoutError("it accepts connections, but does not answer: is it a Kafka, and is the security right?")


def shown(text: object) -> str:
    """Text from a message, for a terminal: control characters are escaped."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(text))
