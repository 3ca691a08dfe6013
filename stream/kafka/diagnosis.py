"""Find out why a client cannot use a Kafka broker, and name the setting to change.

The clients only report that they could not connect. So we connect once more ourselves and look at the error.
"""

import asyncio
import socket
import ssl
from typing import Any

import msgspec
from aiokafka.client import AIOKafkaClient
from aiokafka.conn import collect_hosts, create_conn
from aiokafka.errors import (
    IllegalSaslStateError,
    KafkaError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)

from stream.config import Config, KafkaSettings
from stream.errors import BrokerRefused, BrokerUnavailable
from stream.kafka.connection import addresses, connection, reached, security

STEP_TIMEOUT_MS = 5_000
"""Timeout of each step of a connection. We connect to a broker at most twice."""
DENIED_RIGHTS = {29: "a topic", 30: "the consumer group", 31: "the cluster"}
"""The resource of an authorization error, by Kafka's error code. Both client libraries use the same codes."""
ARE_ALL_UP = "are all brokers up? `kafka-topics.sh --bootstrap-server HOST:PORT --describe"
NO_LEADER = f"no leader for a partition ({ARE_ALL_UP} --unavailable-partitions` lists them)"
TOO_FEW_REPLICAS = (
    f"fewer replicas in sync than min.insync.replicas: {ARE_ALL_UP} --under-min-isr-partitions` lists the partitions"
)
TOO_LARGE = "larger than the topic's max.message.bytes, or the broker's message.max.bytes: raise it, or send less"
UNKNOWN_MECHANISM = "NONE"
"""A broker that requires SASL refuses this mechanism before any user is sent."""


REASONS = {
    3: "has no such topic: `anabranch init` creates the topics that are missing",
    5: f"has {NO_LEADER}",
    6: f"has {NO_LEADER}",
    9: f"has {NO_LEADER}",
    10: f"refuses a message that is {TOO_LARGE}",
    18: f"refuses messages that are together {TOO_LARGE}",
    19: f"has {TOO_FEW_REPLICAS}",
    20: f"has {TOO_FEW_REPLICAS}",
    32: "refuses the time of a message: see message.timestamp.before.max.ms and .after.max.ms of the topic",
    44: "refuses it by a policy of its operator",
    56: "cannot use a disk: its own log names the disk",
    87: "refuses a message: a topic with cleanup.policy=compact takes none without a key",
}
"""What a broker that answers says, by Kafka's error code."""
WAITING_HELPS = {5, 6, 9, 19, 20, 56}


async def unavailable(config: Config, error: Exception, waiting_for: str = "") -> BrokerUnavailable:
    """The error to raise after a client failed with `error`: BrokerRefused if a broker answers with a reason.

    `waiting_for` is what did not come, as in "waiting for the answer": it is part of the message.
    """
    found = await _explained(config, error)
    return type(found)(f"{found}; waited for {waiting_for}") if waiting_for else found


async def _explained(config: Config, error: Exception) -> BrokerUnavailable:
    code = getattr(error, "errno", None) if not isinstance(error, OSError) else None
    if code in REASONS:
        kind = BrokerUnavailable if code in WAITING_HELPS else BrokerRefused
        return kind(f"{config.broker} {REASONS[code]} ({error})")
    if (right := DENIED_RIGHTS.get(getattr(error, "errno", 0))) is not None:
        who = f"user {config.kafka.sasl_user!r}" if config.kafka.sasl else "us"
        return BrokerRefused(
            f"{config.broker} does not allow {who} to use {right} ({error}): "
            f"docs/messages.md lists the rights that each process needs"
        )
    for address in addresses(config):
        reason = await _not_served(msgspec.structs.replace(config, broker=address))
        if reason is not None:
            return BrokerUnavailable(f"{address} {reason} ({error})")
        if (reason := await _refusal(config.kafka, address)) is not None:
            return BrokerRefused(f"{address} {reason}")
        if await asyncio.to_thread(reached, msgspec.structs.replace(config, broker=address)):
            return BrokerUnavailable(
                f"{address} accepts a connection and does not answer: is it a Kafka broker, and is it hung? ({error})"
            )
    return BrokerUnavailable(
        f"no Kafka broker answers at {config.broker}: is it running, is --broker right, does it require TLS or SASL? "
        f"See [kafka] in docs/configuration.md ({error})"
    )


async def _refusal(kafka: KafkaSettings, address: str) -> str | None:
    """Why this broker refuses our connection, as a predicate of its address; None if the reason is unknown."""
    ours = security(kafka)
    error = await _refused(address, ours)
    if error is None:
        if kafka.sasl or not await _requires_sasl(address, ours):
            return None
        return (
            f"requires a user and a password, but kafka.security is '{kafka.security}': set it to "
            f"'sasl_{kafka.security}', with kafka.sasl_user and kafka.sasl_password"
        )
    if isinstance(error, SaslAuthenticationFailed):
        return (
            f"refuses user {kafka.sasl_user!r} (sasl_mechanism {kafka.sasl_mechanism}): "
            f"check kafka.sasl_user and kafka.sasl_password"
        )
    if isinstance(error, UnsupportedSaslMechanismError):
        return (
            f"does not support sasl_mechanism {kafka.sasl_mechanism}: set kafka.sasl_mechanism to one that it supports"
        )
    if isinstance(error, IllegalSaslStateError):
        return (
            f"accepts no user, but kafka.security is '{kafka.security}': set it to "
            f"'{kafka.security.removeprefix('sasl_')}', and remove kafka.sasl_user and kafka.sasl_password"
        )
    if isinstance(error, ssl.SSLCertVerificationError):
        trusted = f"kafka.ca_file ({kafka.ca_file})" if kafka.ca_file else "kafka.ca_file (not set)"
        return (
            f"has a certificate that is not trusted ({error.verify_message}): check {trusted}, and that --broker is "
            f"the host name in the certificate"
        )
    if kafka.tls and (alert := _alert(error)) is not None:
        return (
            f"ends the TLS handshake ({alert}): does it require a client certificate? "
            f"Check kafka.cert_file and kafka.key_file"
        )
    if kafka.tls and await _refused(address, {"security_protocol": "PLAINTEXT"}) is None:
        return (
            f"does not speak TLS, but kafka.security is '{kafka.security}': use its TLS port, or set kafka.security to "
            f"'{'sasl_plaintext' if kafka.sasl else 'plaintext'}'"
        )
    if not kafka.tls and await _speaks_tls(address):
        return (
            f"speaks TLS, but kafka.security is '{kafka.security}': set it to 'sasl_ssl', with kafka.sasl_user and "
            f"kafka.sasl_password, or to 'ssl' if it requires no user"
        )
    return None


async def _not_served(config: Config) -> str | None:
    """Why a broker that answers does not serve us, as a predicate of its address; None if it does not answer us."""
    client = AIOKafkaClient(**connection(config), request_timeout_ms=STEP_TIMEOUT_MS)
    try:
        await client.bootstrap()
        for node in client.cluster.brokers():
            host = f"[{node.host}]" if ":" in node.host else node.host
            if (error := await _refused(f"{host}:{node.port}", security(config.kafka))) is not None:
                return (
                    f"answers, and names {host}:{node.port} as broker {node.nodeId}, which cannot be reached from here "
                    f"({_cause(error)}): set advertised.listeners of that broker to an address that its clients reach"
                )
        described = await client.fetch_all_metadata()
        for topic in described.topics() & {*msgspec.structs.astuple(config.topics)}:
            led = described.available_partitions_for_topic(topic)
            if without := sorted(described.partitions_for_topic(topic) - led):
                return f"has {NO_LEADER}: {topic!r}, partition {without[0]}"
        return "answers, but not here: its own log may say why"
    except (KafkaError, OSError):
        return None
    finally:
        await client.close()


def _cause(error: Exception) -> str:
    if isinstance(error, socket.gaierror):
        return "the name cannot be resolved"
    return "no answer" if isinstance(error, TimeoutError) else str(error)


async def _requires_sasl(address: str, ours: dict[str, Any]) -> bool:
    with_user = {"security_protocol": f"SASL_{ours['security_protocol']}", "sasl_mechanism": UNKNOWN_MECHANISM}
    return isinstance(await _refused(address, ours | with_user), UnsupportedSaslMechanismError)


async def _speaks_tls(address: str) -> bool:
    unverified = ssl.create_default_context()
    unverified.check_hostname, unverified.verify_mode = False, ssl.CERT_NONE  # no secret is sent
    answer = await _refused(address, {"security_protocol": "SSL", "ssl_context": unverified})
    return answer is None or _alert(answer) is not None


async def _refused(address: str, arguments: dict[str, Any]) -> Exception | None:
    """Connect as a client does and close again; the error, or None if it worked."""
    [(host, port, _)] = collect_hosts([address])
    try:
        made = await create_conn(host, port, request_timeout_ms=STEP_TIMEOUT_MS, **arguments)
    except (OSError, KafkaError) as error:
        return error
    await made.close()
    return None


def _alert(error: BaseException | None) -> str | None:
    """The TLS alert by which the other side closed the connection, if it sent one."""
    while error is not None and not isinstance(error, ssl.SSLError):
        error = error.__cause__
    return error.reason if error is not None and "ALERT" in (error.reason or "") else None
