"""What deploy/compose.yaml says, started as processes: one command to recommendations."""

import json

import pytest
from kafka import KafkaProducer

from stream.config import Config
from tests.deploy.compose import Stack, may_isolate, network_of_its_own, services
from tests.deploy.processes import Processes
from tests.e2e.conftest import read_all
from tests.kafka import missing as kafka_missing

pytestmark = pytest.mark.ops


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    if reason := kafka_missing() or may_isolate():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("compose")
    with network_of_its_own():
        made = Stack(Processes(folder, list(services())))
        try:
            made.up("kafka", "init", "worker", "trainer")
            yield made
        finally:
            made.down()


def test_clicks_from_this_machine_come_back_as_recommendations(stack):
    producer = KafkaProducer(bootstrap_servers="localhost:9094")
    for user in ("alice", "bob"):
        for item in ("milk", "bread"):
            producer.send("clicks", key=user.encode(), value=json.dumps({"user": user, "item": item}).encode())
    producer.close()
    outside = Config(broker="localhost:9094")
    stack.wait("worker", lambda: {r.key for r in read_all(outside, "recommendations")} == {b"alice", b"bob"})
