"""What deploy/compose.yaml says, started as processes: from one command to recommendations and their figures."""

import json
import shutil
import urllib.request
from typing import Any

import pytest
from kafka import KafkaProducer

from stream.config import Config
from tests.deploy.compose import Stack, may_isolate, network_of_its_own, services
from tests.deploy.processes import PROGRAMS, Processes
from tests.e2e.conftest import read_all
from tests.kafka import missing as kafka_missing

# kafka-python leaves the connection by which it found the broker to the garbage collector.
pytestmark = [pytest.mark.ops, pytest.mark.slow, pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")]

OUTSIDE = Config(broker="localhost:9094")
"""Kafka as programs on this machine reach it."""


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    if reason := kafka_missing() or may_isolate():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("compose")
    with network_of_its_own():
        made = Stack(Processes(folder, list(services())))
        try:
            made.up("kafka", "init", "worker", "trainer", "serve")
            yield made
        finally:
            made.down()


def get(url: str) -> Any:
    """The JSON document at a URL; None if it is not answered."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return json.load(answer)
    except OSError:
        return None


@pytest.mark.parametrize("service", ["worker", "trainer", "serve"])
def test_the_health_check_of_a_service_succeeds(stack, service):
    stack.wait_healthy(service)


def test_clicks_from_this_machine_come_back_as_recommendations(stack):
    producer = KafkaProducer(bootstrap_servers=OUTSIDE.broker)
    for user in ("alice", "bob"):
        for item in ("milk", "bread"):
            producer.send("clicks", key=user.encode(), value=json.dumps({"user": user, "item": item}).encode())
    producer.close()
    stack.wait("worker", lambda: {r.key for r in read_all(OUTSIDE, "recommendations")} == {b"alice", b"bob"})


def test_recommendations_are_read_over_http(stack):
    stack.wait("serve", lambda: get("http://localhost:8080/v1/users/alice/recommendations"), still_runs=True)
    assert get("http://localhost:8080/v1/users/alice/recommendations")["user"] == "alice"


def test_prometheus_reads_every_process(stack):
    if shutil.which(PROGRAMS["prometheus"]) is None:
        pytest.skip("no prometheus on the PATH: apt-get install prometheus")
    stack.up("prometheus")

    def all_up() -> bool:
        found = get("http://localhost:9090/api/v1/query?query=up==1")
        return found is not None and len(found["data"]["result"]) == 3

    stack.wait("prometheus", all_up, still_runs=True, within_s=60)
    rules = get("http://localhost:9090/api/v1/rules")["data"]["groups"]
    assert any(rule["type"] == "alerting" for group in rules for rule in group["rules"])


def test_alertmanager_takes_its_file(stack):
    if shutil.which(PROGRAMS["alertmanager"]) is None:
        pytest.skip("no prometheus-alertmanager on the PATH: apt-get install prometheus-alertmanager")
    stack.up("alertmanager")
    stack.wait("alertmanager", lambda: get("http://localhost:9093/api/v2/status"), still_runs=True, within_s=60)


def test_the_sample_clicks_are_published_and_answered(stack):
    stack.up("clicks")
    stack.wait("clicks", lambda: "500 events published to 'items'" in stack.log("clicks"), still_runs=True)
    stack.wait(
        "worker",
        lambda: any(r.key.startswith(b"shopper-") for r in read_all(OUTSIDE, "recommendations")),
        still_runs=True,
    )
