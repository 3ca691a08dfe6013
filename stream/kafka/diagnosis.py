"""Find out why a client cannot use a Kafka broker, and name the setting to change.

The clients only report that they could not connect. So we connect once more ourselves and look at the error.
"""

import ssl
from typing import Any

from aiokafka.conn import collect_hosts, create_conn
from aiokafka.errors import (
    IllegalSaslStateError,
    KafkaError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)

from stream.config import Config, KafkaSettings
from stream.errors import BrokerRefused, BrokerUnavailable
from stream.kafka.connection import addresses, security

STEP_TIMEOUT_MS = 5_000
"""Timeout of each step of a connection. We connect to a broker at most twice."""
DENIED_RIGHTS = {29: "a topic", 30: "the consumer group", 31: "the cluster"}
"""The resource of an authorization error, by Kafka's error code. Both client libraries use the same codes."""
UNKNOWN_MECHANISM = "NONE"
"""A broker that requires SASL refuses this mechanism before any user is sent."""


async def unavailable(config: Config, error: Exception) -> BrokerUnavailable:
    """The error to raise after a client failed with `error`: BrokerRefused if a broker answers with a reason."""
    if (right := DENIED_RIGHTS.get(getattr(error, "errno", 0))) is not None:
        who = f"user {config.kafka.sasl_user!r}" if config.kafka.sasl else "us"
        return BrokerRefused(
            f"{config.broker} does not allow {who} to use {right} ({error}): "
            f"docs/messages.md lists the rights that each process needs"
        )
    for address in addresses(config):
        if (reason := await _refusal(config.kafka, address)) is not None:
            return BrokerRefused(f"{address} {reason}")
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
