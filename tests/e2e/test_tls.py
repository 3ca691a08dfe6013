"""A Kafka with TLS, users or certificates: everything works, and an error names the setting to change."""

import functools
import gc
import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest
from kafka import KafkaAdminClient
from kafka.admin import ScramMechanism, UserScramCredentialUpsertion

from stream.config import Config, KafkaSettings
from stream.errors import BrokerRefused
from stream.kafka.topics import cluster_id
from stream.local.embedded_broker import free_port
from tests.certificates import Authority
from tests.certificates import missing as openssl_missing
from tests.conftest import with_topics
from tests.e2e import conftest
from tests.e2e.conftest import anabranch, read_all, until
from tests.kafka import Kafka as Broker
from tests.kafka import missing as kafka_missing
from tests.kafka import restartable_broker

pytestmark = [pytest.mark.broker, pytest.mark.slow]

PASSWORD, SCRAM_PASSWORD = "never-to-be-shown", "shown-neither"


class Secured(NamedTuple):
    """A broker with a listener of each kind, and the files that clients need."""

    process: Broker
    plaintext: str
    ssl: str
    sasl_plaintext: str
    sasl_ssl: str
    ca_file: str
    other_ca_file: str
    cert_file: str
    key_file: str

    def user(self, security: str = "sasl_ssl", **more: str) -> KafkaSettings:
        given = {"sasl_user": "ann", "sasl_password": PASSWORD, "ca_file": self.ca_file} | more
        return KafkaSettings(security=security, **{name: value for name, value in given.items() if value})


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    if reason := kafka_missing() or openssl_missing():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("certificates")
    authority, other = Authority(folder, "authority"), Authority(folder, "other")
    cert, key = authority.sign("broker")
    (folder / "broker.pem").write_text(key.read_text() + cert.read_text())
    ours = authority.sign("anabranch")
    names = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
    ports = {name: f"127.0.0.1:{free_port()}" for name in (*names, "CONTROLLER")}
    plain = "org.apache.kafka.common.security.plain.PlainLoginModule required"
    scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
    properties = {
        "listeners": ",".join(f"{name}://{address}" for name, address in ports.items()),
        "advertised.listeners": ",".join(f"{name}://{ports[name]}" for name in names),
        "controller.quorum.voters": f"1@{ports['CONTROLLER']}",
        "listener.security.protocol.map": ",".join(["CONTROLLER:PLAINTEXT", *(f"{name}:{name}" for name in names)]),
        "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-512",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": f"{folder}/broker.pem",
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(authority.ca_file),
        "listener.name.ssl.ssl.client.auth": "required",
    }
    for name in ("sasl_plaintext", "sasl_ssl"):
        properties[f"listener.name.{name}.plain.sasl.jaas.config"] = f'{plain} user_ann="{PASSWORD}";'
        properties[f"listener.name.{name}.scram-sha-512.sasl.jaas.config"] = scram
    with restartable_broker(**properties) as process:
        admin = KafkaAdminClient(bootstrap_servers=ports["PLAINTEXT"])
        admin.alter_user_scram_credentials(
            [UserScramCredentialUpsertion("bob", ScramMechanism.SCRAM_SHA_512, SCRAM_PASSWORD)]
        )
        admin.close()
        files = (authority.ca_file, other.ca_file, *ours)
        yield Secured(process, *(ports[name] for name in names), *map(str, files))


run = functools.partial(conftest.run, within_s=90)


BOB = {"sasl_mechanism": "scram-sha-512", "sasl_user": "bob", "sasl_password": SCRAM_PASSWORD}
WAYS_TO_CONNECT = {
    "plain over TLS": lambda b: (b.sasl_ssl, b.user()),
    "SCRAM over TLS": lambda b: (b.sasl_ssl, b.user(**BOB)),
    "SCRAM in the clear": lambda b: (b.sasl_plaintext, b.user("sasl_plaintext", ca_file="", **BOB)),
    "mutual TLS": lambda b: (
        b.ssl,
        KafkaSettings(security="ssl", ca_file=b.ca_file, cert_file=b.cert_file, key_file=b.key_file),
    ),
}


@pytest.mark.parametrize("way", WAYS_TO_CONNECT)
def test_every_command_and_process_connects(secured, tmp_path, way):
    address, kafka = WAYS_TO_CONNECT[way](secured)
    config = with_topics(address, tmp_path / "data", kafka=kafka)
    clicks = tmp_path / "clicks.jsonl"
    clicks.write_text("".join(f'{{"user": "user-{n % 20}", "item": "item-{n % 7}"}}\n' for n in range(600)))
    quick = {"ANABRANCH_TRAINING__EPOCHS": "1", "ANABRANCH_TRAINING__WARM_UP_EPOCHS": "1"}

    assert "exists" in run(config, "init").stdout
    with anabranch(config, "worker"), anabranch(config, "trainer", env=quick):
        assert "600 events published" in run(config, "publish", str(clicks)).stdout
        arguments = ["watch", "user-3", "--from-start", "--limit", "1", "--json"]
        assert json.loads(run(config, *arguments).stdout)["user"] == "user-3"
        until(lambda: "trainer ready" in (config.data / "trainer.log").read_text())
        assert "000001" in run(config, "retrain", "--wait").stdout
        until(lambda: "serving version 000001" in (config.data / "worker.log").read_text())
        assert run(config, "pause").stdout.startswith("worker 0: paused")
        assert run(config, "resume").stdout.startswith("worker 0: resumed")
        assert json.loads(run(config, "recommend", "user-3", "--json").stdout)["items"]
        status = json.loads(run(config, "status", "--json").stdout)
        assert [p["lag"] for p in status["partitions"]] == [0, 0]
        assert run(config, "forget", "user-3").returncode == 0
        until(
            lambda: [r for r in read_all(config, config.topics.recommendations) if r.key == b"user-3"][-1].value is None
        )
    replayed = run(config, "replay", "--from", "earliest")
    assert replayed.returncode == 0, replayed.stderr
    logs = "".join(log.read_text() for log in config.data.glob("*.log"))
    assert "Traceback" not in logs
    assert PASSWORD not in logs
    assert SCRAM_PASSWORD not in logs


def test_a_worker_goes_on_when_a_broker_with_tls_comes_back(secured, tmp_path):
    config = with_topics(secured.sasl_ssl, tmp_path / "data", kafka=secured.user())
    clicks, log = tmp_path / "clicks.jsonl", config.data / "worker.log"
    clicks.write_text('{"user": "ann", "item": "milk"}\n')
    with anabranch(config, "worker"):
        run(config, "publish", str(clicks))
        until(lambda: len(read_all(config, config.topics.recommendations)) == 1)
        secured.process.kill()
        until(lambda: "the group has not confirmed this worker" in log.read_text())
        secured.process.start()
        assert "1 events published" in run(config, "publish", str(clicks)).stdout
        until(lambda: len(read_all(config, config.topics.recommendations)) == 2)
    assert "Traceback" not in log.read_text()


WRONG_SETTINGS = {
    "wrong password": (
        lambda b: (b.sasl_ssl, b.user(sasl_password="guessed")),
        "refuses user 'ann' (sasl_mechanism plain): check kafka.sasl_user and kafka.sasl_password",
    ),
    "unknown SCRAM user": (
        lambda b: (b.sasl_ssl, b.user(sasl_mechanism="scram-sha-512", sasl_user="eve")),
        "refuses user 'eve' (sasl_mechanism scram-sha-512): check kafka.sasl_user and kafka.sasl_password",
    ),
    "unknown mechanism": (
        lambda b: (b.sasl_ssl, b.user(sasl_mechanism="scram-sha-256")),
        "does not support sasl_mechanism scram-sha-256: set kafka.sasl_mechanism to one that it supports",
    ),
    "wrong CA": (
        lambda b: (b.sasl_ssl, b.user(ca_file=b.other_ca_file)),
        "has a certificate that is not trusted (unable to get local issuer certificate): check kafka.ca_file (/",
    ),
    "the system's CAs": (
        lambda b: (b.sasl_ssl, b.user(ca_file="")),
        "has a certificate that is not trusted (unable to get local issuer certificate): check kafka.ca_file (not",
    ),
    "another name": (
        lambda b: (b.sasl_ssl.replace("127.0.0.1", "localhost"), b.user()),
        "has a certificate that is not trusted (Hostname mismatch, certificate is not valid for 'localhost'.): check",
    ),
    "no certificate of ours": (
        lambda b: (b.ssl, KafkaSettings(security="ssl", ca_file=b.ca_file)),
        "ends the TLS handshake (",
    ),
    "TLS not used": (
        lambda b: (b.sasl_ssl, b.user("sasl_plaintext", ca_file="")),
        "speaks TLS, but kafka.security is 'sasl_plaintext': set it to 'sasl_ssl', with kafka.sasl_user and",
    ),
    "nothing set at all": (
        lambda b: (b.sasl_ssl, KafkaSettings()),
        "speaks TLS, but kafka.security is 'plaintext': set it to 'sasl_ssl', with kafka.sasl_user and",
    ),
    "TLS not used where it wants a certificate": (
        lambda b: (b.ssl, KafkaSettings()),
        "speaks TLS, but kafka.security is 'plaintext': set it to 'sasl_ssl', with kafka.sasl_user and",
    ),
    "TLS to a plain port": (
        lambda b: (b.sasl_plaintext, b.user()),
        "does not speak TLS, but kafka.security is 'sasl_ssl': use its TLS port, or set kafka.security to 'sasl",
    ),
    "a user not sent": (
        lambda b: (b.sasl_plaintext, KafkaSettings()),
        "requires a user and a password, but kafka.security is 'plaintext': set it to 'sasl_plaintext', with",
    ),
    "a user not sent over TLS": (
        lambda b: (b.sasl_ssl, KafkaSettings(security="ssl", ca_file=b.ca_file)),
        "requires a user and a password, but kafka.security is 'ssl': set it to 'sasl_ssl', with kafka.sasl_user and",
    ),
    "a user not wanted": (
        lambda b: (b.plaintext, b.user("sasl_plaintext", ca_file="")),
        "accepts no user, but kafka.security is 'sasl_plaintext': set it to 'plaintext', and remove kafka.sasl_user",
    ),
}
"""Settings that do not fit, and the error about HOST:PORT."""


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # aiokafka waits for no connection that it gives up
@pytest.mark.parametrize("what", WRONG_SETTINGS)
def test_an_error_names_the_setting_to_change(secured, what):
    settings, error = WRONG_SETTINGS[what]
    address, kafka = settings(secured)
    with pytest.raises(BrokerRefused) as refused:
        cluster_id(Config(broker=address, kafka=kafka))
    assert str(refused.value).startswith(f"{address} {error}")
    assert PASSWORD not in str(refused.value)
    gc.collect()


@pytest.mark.parametrize("command", ["init", "worker", "trainer", "up", "watch", "retrain", "rollback"])
@pytest.mark.parametrize("what", ["wrong password", "wrong CA"])
def test_a_command_ends_with_that_error(secured, tmp_path: Path, what, command):
    settings, error = WRONG_SETTINGS[what]
    address, kafka = settings(secured)
    done = run(msgspec.structs.replace(Config(broker=address, kafka=kafka), data=tmp_path), command)
    assert done.returncode == 1
    assert done.stderr.startswith(f"anabranch: {address} {error}")
    assert "Traceback" not in done.stderr
    assert kafka.sasl_password not in done.stderr + done.stdout
