"""The pods of the minimal chart as processes, with the arguments, variables and files that the chart gives them."""

import json
import re
import socket
import sys
import urllib.error
import urllib.request

import pytest
from kafka import KafkaProducer

from stream.config import Config
from tests.deploy.chart import MISSING, Object, containers, helm, of_kind, set_in
from tests.e2e.conftest import read_all
from tests.kafka import missing as kafka_missing

pytest.importorskip("yaml", reason="no PyYAML: pip install -e '.[ops]'")

from tests.deploy.compose import Service, Stack, may_isolate, network_of_its_own, services
from tests.deploy.processes import Processes

pytestmark = [pytest.mark.ops, pytest.mark.slow, pytest.mark.skipif(helm() is None, reason=MISSING)]

PORTS = {"worker": 8081, "trainer": 8082, "serve": 8080}


def service(objects: list[Object], owner: str, container: Object) -> Service:
    """A container as a process: its mounts are folders of the test, and its pod's name is that of its object."""
    role = owner.removeprefix("anabranch-")
    environment = {e["name"]: e.get("value", f"{owner}-0") for e in container.get("env", [])}
    mounts = [mount for mount in container["volumeMounts"] if mount["mountPath"] != "/tmp"]  # the machine has one
    volumes = [(f"{role}-{mount['name']}", mount["mountPath"], False) for mount in mounts]
    program = [sys.executable, "-m", "stream.cli"]
    return Service(container["name"], "anabranch", container["args"], program, environment, volumes, {})


@pytest.fixture(scope="module")
def objects() -> list[Object]:
    return set_in("minimal", 'config.broker="kafka:9092"', "serve.service.port=8080", 'config.log.format="text"')


@pytest.fixture(scope="module")
def stack(objects, tmp_path_factory):
    if reason := kafka_missing() or may_isolate():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("chart")
    kafka = services()["kafka"]
    test = next(container for _, container in containers(objects) if container["name"] == "test")
    hosts = [re.split("[/:]+", url)[1] for url in test["args"][1:]]
    with network_of_its_own():
        made = Stack(Processes(folder, ["kafka", *hosts]))
        made.services = {"kafka": kafka}
        for owner, container in containers(objects):
            if container["name"] != "test":
                made.services[container["name"]] = started = service(objects, owner, container)
                for source, target, _ in started.volumes:
                    if target == "/etc/anabranch":
                        config = folder / "volumes" / source
                        config.mkdir(parents=True, exist_ok=True)
                        text = of_kind(objects, "ConfigMap")[0]["data"]["anabranch.toml"]
                        (config / "anabranch.toml").write_text(text)
        try:
            made.up("kafka")
            made.wait("kafka", lambda: reaches(9092), still_runs=True)
            made.up("init")
            made.wait("init", lambda: made.running["init"].poll() is not None)
            assert made.running["init"].poll() == 0, made.log("init")
            made.up("worker", "trainer", "serve")
            yield made
        finally:
            made.down()


def reaches(port: int) -> bool:
    """Whether somebody listens."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def status(url: str) -> int:
    """The status of an answer; 0 where there is none."""
    try:
        return int(urllib.request.urlopen(url, timeout=5).status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def test_every_probe_of_every_container_succeeds(objects, stack):
    for _, container in containers(objects):
        role = container["name"]
        for kind in ("startup", "liveness", "readiness"):
            if f"{kind}Probe" in container:
                url = f"http://127.0.0.1:{PORTS[role]}{container[f'{kind}Probe']['httpGet']['path']}"
                stack.wait(role, lambda url=url: status(url) == 200, still_runs=True)


def test_the_charts_test_finds_all_of_them_ready(objects, stack, capsys):
    test = next(container for _, container in containers(objects) if container["name"] == "test")
    program, *urls = test["args"]
    asked = [re.sub(r"//[^:/]+", "//127.0.0.1", url) for url in urls]
    assert asked == ["http://127.0.0.1:8081/readyz", "http://127.0.0.1:8080/readyz"]
    with pytest.raises(SystemExit) as ended:
        exec_program(program, asked)
    assert ended.value.code == 0, capsys.readouterr().out


def exec_program(program: str, urls: list[str]) -> None:
    before, sys.argv = sys.argv, ["test", *urls]
    try:
        exec(compile(program, "the test's program", "exec"), {})
    finally:
        sys.argv = before


def test_a_click_comes_back(stack):
    producer = KafkaProducer(bootstrap_servers="localhost:9094")
    for item in ("milk", "bread"):
        producer.send("clicks", key=b"alice", value=json.dumps({"user": "alice", "item": item}).encode())
    producer.close()
    stack.wait(
        "worker", lambda: {r.key for r in read_all(Config(broker="localhost:9094"), "recommendations")} == {b"alice"}
    )


def test_every_container_ends_in_its_grace_period(objects, stack):
    grace = {
        c["name"]: o["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
        for o in of_kind(objects, "StatefulSet", "Deployment")
        for c in o["spec"]["template"]["spec"]["containers"]
    }
    for role, seconds in grace.items():
        assert stack.running[role].stop(seconds) in (0, -15), stack.log(role)
