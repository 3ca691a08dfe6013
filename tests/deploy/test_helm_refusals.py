"""Wrong values end an installation before anything is installed, with a sentence that names the value."""

import pytest

from tests.deploy.chart import MISSING, helm, template

pytestmark = [pytest.mark.ops, pytest.mark.skipif(helm() is None, reason=MISSING)]

REFUSED = {
    "a setting that does not exist": (
        ["config.trainer.evry_s=60"], "at '/config/trainer': additional properties 'evry_s' not allowed"
    ),
    "a value that does not exist": (["worker.replica=3"], "at '/worker': additional properties 'replica' not allowed"),
    "a number that is a text": (
        ["config.trainer.every_s=often"], "at '/config/trainer/every_s': got string, want number"
    ),
    "a choice that does not exist": (
        ["config.kafka.security=tls"], "at '/config/kafka/security': value must be one of"
    ),
    "a number below its limit": (
        ["config.topics.partitions=0"], "at '/config/topics/partitions': minimum: got 0, want 1"
    ),
    "a password in the ConfigMap": (
        ["config.kafka.sasl_password=x"],
        "config.kafka.sasl_password would be readable in a ConfigMap: set secrets.saslPassword.existingSecret",
    ),
    "a token in the ConfigMap": (
        ["config.serve.write_token=0123456789abcdef"], "config.serve.write_token would be readable in a ConfigMap"
    ),
    "a short secret": (["secrets.signingKey.value=short"], "at '/secrets/signingKey/value': minLength: got 5, want 16"),
    "a name that Kubernetes refuses": (["fullnameOverride=Ab_c"], "at '/fullnameOverride': 'Ab_c' does not match"),
    "a resource that does not exist": (["worker.resources.limits.memry=1Gi"], "invalid propertyName 'memry'"),
    "a secret twice": (
        ["secrets.readToken.value=0123456789abcdef", "secrets.readToken.existingSecret=y"],
        "secrets.readToken has a value and an existingSecret",
    ),
    "a port": (["config.worker.http=:9000"], "config.worker.http is the chart's: ports are fixed"),
    "a data directory": (["config.data=/elsewhere"], "config.data is the chart's"),
    "a file": (
        ["config.kafka.ca_file=/ca.pem"], "put the file in a Secret and name it in kafkaTls.existingSecret"
    ),
    "a user without a password": (
        ["config.kafka.security=sasl_ssl", "config.kafka.sasl_user=shop"],
        "config.kafka.security is sasl_ssl: set config.kafka.sasl_user, and secrets.saslPassword",
    ),
    "a password that is not sent": (
        ["secrets.saslPassword.value=x"], "config.kafka.security is plaintext and sends no user"
    ),
    "certificates without TLS": (
        ["kafkaTls.existingSecret=x"], "config.kafka.security is plaintext and not encrypted"
    ),
    "more workers than partitions": (
        ["worker.replicas=3"], "worker.replicas is 3, but the clicks topic has 2 partitions"
    ),
    "more workers than partitions, later": (
        ["worker.autoscaling.enabled=true"], "worker.autoscaling.maxReplicas is 4, but the clicks topic has 2"
    ),
    "workers without a common store": (["worker.replicas=2"], "worker.replicas is 2, but config.artifacts is empty"),
    "fewer at most than at least": (
        ["serve.autoscaling.enabled=true", "serve.replicas=9"],
        "serve.autoscaling.maxReplicas is 6, and serve.replicas, the smallest number, is 9",
    ),
    "an ingress without a host": (["serve.ingress.enabled=true"], "serve.ingress.hosts is empty"),
}  # fmt: skip
"""What is set beside a broker, and the sentence that refuses it."""


@pytest.mark.parametrize("case", REFUSED)
def test_wrong_values_are_refused_with_a_sentence_that_names_them(case):
    changes, sentence = REFUSED[case]
    done = template("--set", "config.broker=kafka:9092", *(flag for change in changes for flag in ("--set", change)))
    assert done.returncode == 1
    assert sentence in done.stderr


def test_a_short_secret_is_refused_without_being_shown():
    done = template("--set", "config.broker=kafka:9092", "--set", "secrets.signingKey.value=in-a-ci-log")
    assert done.returncode == 1
    assert "in-a-ci-log" not in done.stdout + done.stderr


def test_a_chart_without_a_broker_says_how_to_name_one():
    done = template()
    assert done.returncode == 1
    assert "config.broker is empty: name your Kafka, for example --set config.broker=" in done.stderr
