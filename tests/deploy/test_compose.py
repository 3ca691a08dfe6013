"""deploy/compose.yaml agrees with the settings, with the files beside it and with itself."""

import re
import subprocess

import pytest
from typer.main import get_command

from stream.cli.app import app
from stream.config import setting_names
from tests.deploy.compose import COMPOSE, DEPLOY, document, services
from tests.deploy.programs import program

pytestmark = pytest.mark.ops

COMMANDS = get_command(app).commands  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def every():
    return services()


@pytest.fixture(scope="module")
def ours(every):
    return [service for service in every.values() if service.image == "anabranch"]


def test_it_is_a_valid_compose_file():
    command = [program("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", str(COMPOSE)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_setting_exists(every):
    known = set(setting_names())
    named = {name for service in every.values() for name in service.environment if name.startswith("ANABRANCH_")}
    named |= set(re.findall(r"^#?(ANABRANCH_\w+)=", (DEPLOY / "compose.env.example").read_text(), re.M))
    assert len(named) > 5
    assert [n for n in named if n.removeprefix("ANABRANCH_").lower().replace("__", ".") not in known] == []


def test_every_command_exists(ours):
    for service in ours:
        first = [part for line in service.command for part in re.findall(r"anabranch (\w+)", line) or [line]]
        assert set(first) <= COMMANDS.keys(), service.name


def test_every_mounted_file_exists_and_every_volume_is_declared(every):
    declared = document()["volumes"].keys()
    used = set()
    for service in every.values():
        for source, _, read_only in service.volumes:
            if source.startswith("."):
                assert (DEPLOY / source).exists(), f"{service.name} mounts {source}"
                assert read_only, f"{service.name} may write to {source}"
            else:
                used.add(source)
    assert used == declared


def test_the_trainer_learns_from_the_worker_s_stores(every):
    assert every["trainer"].volumes == every["worker"].volumes == [("data", "/data", False)]


def test_every_port_is_open_on_this_machine_only(every):
    published = [port for service in every.values() for port in service.raw.get("ports", [])]
    assert published
    assert [port for port in published if not port.startswith("127.0.0.1:")] == []


def test_ports_are_those_of_the_settings(every):
    assert every["worker"].raw["expose"] == [every["worker"].environment["ANABRANCH_WORKER__HTTP"].lstrip(":")]
    assert every["trainer"].raw["expose"] == [every["trainer"].environment["ANABRANCH_TRAINER__HTTP"].lstrip(":")]
    port = every["serve"].environment["ANABRANCH_SERVE__HTTP"].lstrip(":")
    assert every["serve"].raw["ports"] == [f"127.0.0.1:{port}:{port}"]


def test_prometheus_asks_every_process_where_it_answers(every):
    scraped = re.findall(r"\b((?:worker|trainer|serve):\d+)\b", (DEPLOY / "prometheus/prometheus.yaml").read_text())
    ports = {
        name: every[name].environment[f"ANABRANCH_{name.upper()}__HTTP"] for name in ("worker", "trainer", "serve")
    }
    assert set(scraped) == {f"{name}{port}" for name, port in ports.items()}


def test_every_service_has_no_more_rights_than_it_needs(every):
    for service in every.values():
        raw = service.raw
        assert raw["cap_drop"] == ["ALL"], service.name
        assert raw["security_opt"] == ["no-new-privileges:true"], service.name
        assert raw.get("read_only", False) is (service.name != "kafka"), service.name
        assert "privileged" not in raw, service.name
        assert "mem_limit" in raw, service.name
        assert raw.get("user", "1000").partition(":")[0] != "0", service.name
        assert raw["restart"] in ("unless-stopped", "on-failure"), service.name


def test_what_runs_for_long_has_a_health_check(every):
    assert [s.name for s in every.values() if "healthcheck" not in s.raw] == []


def test_foreign_images_have_a_version(every):
    foreign = [service.image for service in every.values() if service.image != "anabranch"]
    assert [image for image in foreign if not re.fullmatch(r"[\w/.-]+:v?\d+\.\d+\.\d+", image)] == []


def test_no_secret_stands_in_the_file(every):
    names = {name for service in every.values() for name in service.environment}
    assert [name for name in names if re.search("PASSWORD|TOKEN|SECRET|SIGNING_KEY", name)] == []
    ignored = (DEPLOY.parent / ".gitignore").read_text().splitlines()
    assert "deploy/compose.env" in ignored
