"""`[kafka]` as arguments of the clients: the same for all of them, and the password in no message."""

import asyncio
import socket
import ssl
import threading
import traceback
from pathlib import Path

import aiokafka.errors
import faust
import kafka.errors
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from faust.transport.drivers.aiokafka import credentials_to_aiokafka_auth
from kafka import KafkaAdminClient, KafkaConsumer

from stream.config import Config, KafkaSettings
from stream.errors import BrokerRefused, BrokerUnavailable, ConfigError
from stream.kafka.connection import connection, faust_connection, reached
from stream.kafka.diagnosis import unavailable
from stream.kafka.topics import topic_id
from stream.load_config import load

SECRET = "never-to-be-shown"


def user(security: str, mechanism: str = "plain") -> KafkaSettings:
    return KafkaSettings(security=security, sasl_mechanism=mechanism, sasl_user="ann", sasl_password=SECRET)


def test_a_plaintext_broker_needs_no_further_arguments():
    assert connection(Config(broker="a:1, b:2")) == {
        "bootstrap_servers": ["a:1", "b:2"],
        "security_protocol": "PLAINTEXT",
    }


def test_tls_verifies_the_broker_against_the_systems_authorities():
    arguments = connection(Config(broker="a:1", kafka=KafkaSettings(security="ssl")))
    assert arguments.keys() == {"bootstrap_servers", "security_protocol", "ssl_context"}
    assert arguments["security_protocol"] == "SSL"
    assert arguments["ssl_context"].verify_mode is ssl.CERT_REQUIRED
    assert arguments["ssl_context"].check_hostname


@pytest.mark.parametrize("mechanism", ["plain", "scram-sha-256", "scram-sha-512"])
@pytest.mark.parametrize("security", ["sasl_plaintext", "sasl_ssl"])
def test_faust_gets_the_same_arguments_as_the_other_clients(security, mechanism):
    config = Config(broker="a:1,b:2", kafka=user(security, mechanism))
    arguments = connection(config)
    assert (arguments["sasl_plain_username"], arguments["sasl_plain_password"]) == ("ann", SECRET)
    assert arguments["sasl_mechanism"] == mechanism.upper()
    app = faust.App("test", **faust_connection(config))
    assert [str(url) for url in app.conf.broker] == ["kafka://a:1", "kafka://b:2"]
    assert credentials_to_aiokafka_auth(app.conf.broker_credentials) == {"ssl_context": None} | {
        name: value for name, value in arguments.items() if name != "bootstrap_servers"
    }


def test_faust_gets_tls_without_a_user_and_plaintext():
    config = Config(broker="a:1", kafka=KafkaSettings(security="ssl"))
    arguments = credentials_to_aiokafka_auth(faust_connection(config)["broker_credentials"])
    assert arguments == {"security_protocol": "SSL", "ssl_context": connection(config)["ssl_context"]}
    assert faust_connection(Config(broker="a:1"))["broker_credentials"] is None


def test_every_client_accepts_these_arguments():
    arguments = connection(Config(broker="a:1", kafka=user("sasl_ssl"))).keys()
    for client in (AIOKafkaConsumer, AIOKafkaProducer, AIOKafkaAdminClient):
        assert arguments <= set(client.__init__.__code__.co_varnames)
    for client in (KafkaConsumer, KafkaAdminClient):
        assert arguments <= client.DEFAULT_CONFIG.keys()


def test_the_password_is_in_no_text(tmp_path):
    config = Config(broker="a:1", kafka=user("sasl_ssl"))
    shown = [repr(config), str(config), f"{config.kafka}", str(list(config.kafka.__rich_repr__()))]
    shown.append(repr(faust_connection(config)))
    for env in (
        {"SECURITY": "ssl", "SASL_USER": "ann"},
        {"SECURITY": "sasl_ssl"},
        {"SECURITY": "tls"},
        {"SECURITY": "sasl_ssl", "SASL_USER": "ann", "CA_FILE": "/nowhere"},
        {"SECURITY": "sasl_ssl", "SASL_USER": "ann", "SASL_PASSWORD__X": "1"},
    ):
        with pytest.raises(ConfigError) as refused:
            load(None, {f"ANABRANCH_KAFKA__{k}": v for k, v in ({"SASL_PASSWORD": SECRET} | env).items()})
        shown.append("".join(traceback.format_exception(refused.value)))
    assert [text for text in shown if SECRET in text] == []
    assert "ann" in shown[0]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"ca_file": "none.pem"}, r"kafka.ca_file = '\S+none.pem' holds no certificate in PEM"),
        ({"cert_file": "none.pem", "key_file": "none.pem"}, r"kafka.cert_file = '\S+none.pem' with kafka.key_file"),
    ],
)
def test_an_invalid_pem_file_is_named_with_its_setting(tmp_path: Path, files, message):
    (tmp_path / "none.pem").write_text("no certificate")
    kafka = KafkaSettings(security="ssl", **{name: str(tmp_path / file) for name, file in files.items()})
    with pytest.raises(ConfigError, match=message):
        connection(Config(broker="a:1", kafka=kafka))


@pytest.mark.parametrize("library", [aiokafka.errors, kafka.errors])
def test_a_missing_right_is_reported_without_a_second_connection(library):
    config = Config(
        broker="nowhere:1", kafka=KafkaSettings(security="sasl_plaintext", sasl_user="shop", sasl_password="x")
    )
    refusal = asyncio.run(unavailable(config, library.TopicAuthorizationFailedError("clicks")))
    assert isinstance(refusal, BrokerRefused)
    assert str(refusal).startswith("nowhere:1 does not allow user 'shop' to use a topic")
    assert "docs/messages.md lists the rights" in str(refusal)


def test_a_broker_that_does_not_answer_leaves_no_thread_behind():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        away = f"127.0.0.1:{taken.getsockname()[1]}"
        assert not reached(Config(broker=away))
        taken.listen()
        assert reached(Config(broker=f"127.0.0.1:1,{away}"))
    before = threading.active_count()
    with pytest.raises(BrokerUnavailable, match=f"no Kafka broker answers at {away}"):
        topic_id(Config(broker=away), "clicks")
    assert threading.active_count() == before
