"""How our Kafka clients connect: the one place that turns `broker` and `[kafka]` into the arguments of a client.

aiokafka and kafka-python take the same names. Every client is made with them (`tests/test_imports.py`), so that no
client connects without TLS while the others use it.
"""

import contextlib
import functools
import socket
import ssl
from typing import Any

from aiokafka.conn import collect_hosts

from stream.config import Config, KafkaSettings
from stream.errors import ConfigError
from stream.kafka.no_creation import only_look

CONNECT_WITHIN_S = 3.0
READ_COMMITTED = "read_committed"

only_look()


def connection(config: Config) -> dict[str, Any]:
    """Keyword arguments for any client of aiokafka or kafka-python. Raises ConfigError if a PEM file is invalid."""
    return {"bootstrap_servers": addresses(config)} | security(config.kafka)


def consumer_connection(config: Config) -> dict[str, Any]:
    """The same for a consumer: it reads nothing of a transaction that was aborted or is open. Raises ConfigError."""
    return connection(config) | {"isolation_level": READ_COMMITTED}


def addresses(config: Config) -> list[str]:
    """Each HOST:PORT of the setting `broker`."""
    return [address.strip() for address in config.broker.split(",")]


def reached(config: Config) -> bool:
    """Whether any of the addresses accepts a connection."""
    for host, port, _ in collect_hosts(addresses(config)):
        with contextlib.suppress(OSError):
            socket.create_connection((host, port), CONNECT_WITHIN_S).close()
            return True
    return False


def security(kafka: KafkaSettings) -> dict[str, Any]:
    """The arguments for TLS and SASL. Raises ConfigError."""
    arguments: dict[str, Any] = {"security_protocol": kafka.security.upper()}
    if kafka.tls:
        arguments["ssl_context"] = tls_context(kafka.ca_file, kafka.cert_file, kafka.key_file)
    if kafka.sasl:
        arguments["sasl_mechanism"] = kafka.sasl_mechanism.upper()
        arguments["sasl_plain_username"] = kafka.sasl_user
        arguments["sasl_plain_password"] = kafka.sasl_password
    return arguments


def faust_connection(config: Config) -> dict[str, Any]:
    """The same as settings of a Faust app, whose URLs begin with kafka:// with TLS too. Raises ConfigError."""
    from faust import SASLCredentials, SSLCredentials  # importing it takes a second, and only a worker needs it

    arguments = security(config.kafka)
    context = arguments.get("ssl_context")
    credentials: SASLCredentials | SSLCredentials | None = None
    if config.kafka.sasl:
        credentials = SASLCredentials(
            username=arguments["sasl_plain_username"],
            password=arguments["sasl_plain_password"],
            mechanism=arguments["sasl_mechanism"],
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
    """The trusted certificates, and the client's own if one is configured. Raises ConfigError.

    It is made once: a process that runs for months would otherwise read a file while it is being replaced.
    """
    try:
        context = ssl.create_default_context(cafile=ca_file or None)
    except OSError as error:
        raise ConfigError(f"kafka.ca_file = {ca_file!r} holds no certificate in PEM ({_reason(error)})") from None
    if cert_file:
        try:
            # Without a password an encrypted key would ask for one on the terminal; other keys ignore it.
            context.load_cert_chain(cert_file, key_file or None, password="")
        except OSError as error:
            raise ConfigError(
                f"kafka.cert_file = {cert_file!r} with kafka.key_file = {key_file!r} is not a certificate with its "
                f"key, in PEM and not encrypted ({_reason(error)})"
            ) from None
    return context


def _reason(error: OSError) -> str:
    return error.reason if isinstance(error, ssl.SSLError) else str(error.strerror)
