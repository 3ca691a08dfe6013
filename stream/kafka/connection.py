"""How our Kafka clients connect: the one place that makes `broker` and `[kafka]` what their constructors take.

aiokafka and kafka-python take the same names. No client is made without them (`tests/test_imports.py`), so that none
connects in the clear where the others do not.
"""

import contextlib
import functools
import socket
import ssl
from typing import Any

from aiokafka.conn import collect_hosts

from stream.config import Config, KafkaSettings
from stream.errors import ConfigError

REACHED_S = 3.0


def connection(config: Config) -> dict[str, Any]:
    """Keyword arguments for any client of aiokafka or kafka-python. Raises ConfigError where a PEM file is none."""
    return {"bootstrap_servers": addresses(config)} | security(config.kafka)


def addresses(config: Config) -> list[str]:
    """Each HOST:PORT of the setting `broker`."""
    return [address.strip() for address in config.broker.split(",")]


def reached(config: Config) -> bool:
    """Whether any of them takes a connection."""
    for host, port, _ in collect_hosts(addresses(config)):
        with contextlib.suppress(OSError):
            socket.create_connection((host, port), REACHED_S).close()
            return True
    return False


def security(kafka: KafkaSettings) -> dict[str, Any]:
    """Those of them that are the same for every address. Raises ConfigError."""
    arguments: dict[str, Any] = {"security_protocol": kafka.security.upper()}
    if kafka.tls:
        arguments["ssl_context"] = tls_context(kafka.ca_file, kafka.cert_file, kafka.key_file)
    if kafka.sasl:
        arguments["sasl_mechanism"] = kafka.sasl_mechanism.upper()
        arguments["sasl_plain_username"] = kafka.sasl_user
        arguments["sasl_plain_password"] = kafka.sasl_password
    return arguments


def faust_connection(config: Config) -> dict[str, Any]:
    """The same as settings of a Faust app, whose URLs are kafka:// with TLS too. Raises ConfigError."""
    from faust import SASLCredentials, SSLCredentials  # takes a second to import, and only a worker has an app

    told = security(config.kafka)
    context = told.get("ssl_context")
    credentials: SASLCredentials | SSLCredentials | None = None
    if config.kafka.sasl:
        credentials = SASLCredentials(
            username=told["sasl_plain_username"],
            password=told["sasl_plain_password"],
            mechanism=told["sasl_mechanism"],
            ssl_context=context,
        )
    elif context is not None:
        credentials = SSLCredentials(context)
    return {
        "broker": ";".join(f"kafka://{address}" for address in addresses(config)),
        "broker_credentials": credentials,
    }


@functools.cache
def tls_context(ca_file: str, cert_file: str, key_file: str) -> ssl.SSLContext:
    """What the broker has to prove, and our own certificate where it asks for one. Raises ConfigError.

    Made once: a process that goes on for months would otherwise meet a file that is just being replaced.
    """
    try:
        context = ssl.create_default_context(cafile=ca_file or None)
    except OSError as error:
        raise ConfigError(f"kafka.ca_file = {ca_file!r} holds no certificate in PEM ({_reason(error)})") from None
    if cert_file:
        try:
            # With a password none is asked for on the terminal; for a key that is not encrypted it means nothing.
            context.load_cert_chain(cert_file, key_file or None, password="")
        except OSError as error:
            raise ConfigError(
                f"kafka.cert_file = {cert_file!r} with kafka.key_file = {key_file!r} is no certificate with its key, "
                f"in PEM and not encrypted ({_reason(error)})"
            ) from None
    return context


def _reason(error: OSError) -> str:
    return error.reason if isinstance(error, ssl.SSLError) else str(error.strerror)
