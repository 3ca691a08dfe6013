"""The faults of docs/faults.md, done to a running worker: `make test-faults`."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest
from kafka import KafkaAdminClient, KafkaProducer, TopicPartition

from model.learning.versions import list_versions
from state.progress import Progress
from state.view import View
from stream.config import Config
from stream.kafka.id_key_record import RECORD_KEY
from stream.kafka.pointers import MODEL_NAME
from stream.kafka.topics import ensure
from stream.local.embedded_broker import EmbeddedBroker
from tests.conftest import with_topics
from tests.crash.clicks import Clicks, with_custom_kinds
from tests.crash.kills import settle, with_short_session, worker_of
from tests.crash.lives import ForkServer, Life, fork_server, is_running
from tests.crash.oracle import differences, fold
from tests.e2e.conftest import progress, read_all, until
from tests.e2e.wire import Wire
from tests.kafka import missing, restartable_broker

pytestmark = [pytest.mark.broker, pytest.mark.faults]

AWAY_S = float(os.environ.get("AWAY_S", "20"))


@pytest.fixture(scope="module")
def lives(tmp_path_factory: pytest.TempPathFactory):
    with fork_server(tmp_path_factory.mktemp("fork-server") / "fork-server.log") as made:
        yield made


@pytest.fixture
def wire(tmp_path: Path):
    broker = EmbeddedBroker(tmp_path / "broker")
    made = Wire(broker.port)
    broker.advertised = f"127.0.0.1:{made.port}"
    with broker, made.running():
        yield made


def config_on(address: str, data: Path) -> Config:
    return with_custom_kinds(with_short_session(with_topics(address, data, partitions=2)))


def publish_clicks(config: Config, first: int, count: int) -> None:
    with contextlib.closing(KafkaProducer(bootstrap_servers=config.broker)) as producer:
        clicks = Clicks(config, seed=3)
        clicks.published = first
        clicks.publish(producer, count)


def records_read(config: Config) -> int:
    with View(config.data, config.topics.clicks, config.state) as view:
        return progress(view)


def log_of(config: Config) -> str:
    log = config.data / "worker.log"
    return log.read_text() if log.exists() else ""


def differences_when_settled(lives: ForkServer, config: Config, **env: str) -> list[str]:
    """Let a last worker catch up; the differences between its state and the log."""
    settle(lives, config, **env)
    return differences(config, fold(read_all(config, config.topics.clicks), config))


def test_a_worker_waits_for_a_broker_that_is_away_for_long(wire, lives, tmp_path):
    config = config_on(f"127.0.0.1:{wire.port}", tmp_path / "data")
    publish_clicks(config, 0, 300)
    worker = lives.start(worker_of(config))
    until(lambda: records_read(config) == 300)
    wire.cut()
    until(lambda: "the group has not confirmed this worker" in log_of(config))
    time.sleep(AWAY_S)
    assert is_running(worker)
    wire.reconnect()
    publish_clicks(config, 300, 200)
    until(lambda: records_read(config) == 500)
    assert "it goes on" in log_of(config) or "opened" in log_of(config)
    assert "Traceback" not in log_of(config)
    assert "never retrieved" not in log_of(config)
    lives.signal(worker, signal.SIGTERM)
    assert differences_when_settled(lives, config) == []


def test_a_slow_broker_only_slows_the_worker_down(wire, lives, tmp_path):
    config = config_on(f"127.0.0.1:{wire.port}", tmp_path / "data")
    publish_clicks(config, 0, 200)
    wire.delay_s = 0.2
    worker = lives.start(worker_of(config))
    until(lambda: records_read(config) == 200, 120)
    wire.delay_s = 0.0
    lives.signal(worker, signal.SIGTERM)
    assert differences_when_settled(lives, config) == []


def test_a_worker_goes_on_after_a_broker_was_killed_or_hung(lives, tmp_path):
    if reason := missing():
        pytest.skip(reason)
    with restartable_broker(**{"group.min.session.timeout.ms": "1000"}) as broker:
        config = config_on(broker.address, tmp_path / "data")
        publish_clicks(config, 0, 300)
        worker = lives.start(worker_of(config))
        until(lambda: records_read(config) == 300)
        broker.kill()
        time.sleep(3)
        broker.start()
        publish_clicks(config, 300, 200)
        until(lambda: records_read(config) == 500)
        broker.signal(signal.SIGSTOP)
        time.sleep(8)
        broker.signal(signal.SIGCONT)
        publish_clicks(config, 500, 200)
        until(lambda: records_read(config) == 700)
        assert is_running(worker)
        broker.signal(signal.SIGSTOP)
        lives.signal(worker, signal.SIGTERM)  # waits for its end, longer than worker.end_within_s
        broker.signal(signal.SIGCONT)
        assert "no broker answers; ending without it" in log_of(config)
        assert differences_when_settled(lives, config) == []
        assert "Traceback" not in log_of(config)
        assert "never retrieved" not in log_of(config)


@pytest.mark.parametrize("damage", ["truncated", "flipped"])
def test_a_damaged_store_is_moved_aside_and_read_again(broker, lives, tmp_path, damage):
    config = config_on(broker, tmp_path / "data")
    env = {"ANABRANCH_ARTIFACTS": str(tmp_path / "artifacts"), "ANABRANCH_CHECKPOINTS__EVERY_S": "1"}
    publish_clicks(config, 0, 400)
    worker = lives.start(worker_of(config, **env))
    until(lambda: log_of(config).count("checkpoint at offset") >= 2)
    lives.signal(worker, signal.SIGTERM)
    tables = [f for p in (0, 1) for f in (config.data / f"{config.topics.clicks}-{p}").glob("*.sst")]
    assert tables
    for table in tables:
        content = bytearray(table.read_bytes())
        table.write_bytes(content[:-20] if damage == "truncated" else bytes(60) + content[60:])
    publish_clicks(config, 400, 200)
    assert differences_when_settled(lives, config, **env) == []
    assert "Corruption" in log_of(config)
    assert "restored from the checkpoint" in log_of(config)
    assert len(list(config.data.glob(f"aside-{config.topics.clicks}-*"))) == 2
    assert "Traceback" not in log_of(config)


@pytest.fixture
def small_disk(tmp_path: Path):
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", place], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def fill(disk: Path) -> Path:
    balloon = disk / "balloon"
    with balloon.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    return balloon


def test_a_full_disk_pauses_reading_until_there_is_room(broker, lives, small_disk):
    config = config_on(broker, small_disk / "data")
    publish_clicks(config, 0, 200)
    # Its log is elsewhere: on a full disk nothing could be logged.
    life = msgspec.structs.replace(worker_of(config), log=str(small_disk.parent / "worker.log"))
    worker = lives.start(life)
    until(lambda: records_read(config) == 200)
    balloon = fill(small_disk)
    publish_clicks(config, 200, 3000)
    until(lambda: "is not read for now" in Path(life.log).read_text())
    assert "the disk is full: make room on it" in Path(life.log).read_text()
    assert is_running(worker)
    balloon.unlink()
    until(lambda: records_read(config) == 3200)
    assert "Traceback" not in Path(life.log).read_text()
    lives.signal(worker, signal.SIGTERM)
    assert differences_when_settled(lives, config) == []


def test_a_worker_waits_while_a_file_system_is_read_only(broker, lives, small_disk):
    config = config_on(broker, small_disk / "data")
    publish_clicks(config, 0, 200)
    life = msgspec.structs.replace(worker_of(config), log=str(small_disk.parent / "worker.log"))
    worker = lives.start(life)
    until(lambda: records_read(config) == 200)
    lives.signal(worker, signal.SIGTERM)
    command = [sys.executable, "-m", "stream.cli", "worker", "--data", str(config.data), "--broker", broker]
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    refused = subprocess.run(command, capture_output=True, text=True, timeout=60, env={**os.environ, **life.env})
    subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
    assert refused.returncode == 1
    assert "cannot be written (Read-only file system)" in refused.stderr
    assert differences_when_settled(lives, config) == []


def test_the_error_names_the_limit_on_open_files(broker, lives, tmp_path):
    config = config_on(broker, tmp_path / "data")
    publish_clicks(config, 0, 300)
    life = worker_of(config)
    worker = lives.start(msgspec.structs.replace(life, limits={"RLIMIT_NOFILE": 45}))
    until(lambda: "Too many open files" in log_of(config) or not is_running(worker))
    assert "ulimit -n" in log_of(config)
    with contextlib.suppress(ProcessLookupError):
        lives.signal(worker, signal.SIGKILL)
    assert differences_when_settled(lives, config) == []


@pytest.mark.parametrize("jumps", [[0, 0, 86_400, 0, -200_000, 0, 50_000], [-10_000_000]], ids=["both ways", "back"])
def test_a_clock_that_jumps_changes_nothing(broker, lives, tmp_path, jumps):
    config = config_on(broker, tmp_path / "data")
    worker = lives.start(msgspec.structs.replace(worker_of(config), clock_jumps_s=jumps))
    for burst in range(8):
        publish_clicks(config, burst * 100, 100)
        time.sleep(1)
    until(lambda: records_read(config) == 800)
    lives.signal(worker, signal.SIGTERM)
    assert differences_when_settled(lives, config) == []
    assert "Traceback" not in log_of(config)


def test_a_trainer_whose_clock_jumps_goes_on_learning(broker, lives, tmp_path):
    config = config_on(broker, tmp_path / "data")
    worker = worker_of(config)
    often = {"ANABRANCH_TRAINER__EVERY_EVENTS": "150", "ANABRANCH_TRAINER__MIN_EVENTS": "100"}
    arguments = ["trainer", "--data", str(config.data), "--broker", broker]
    jumps = [0, 0, 86_400, 0, 0, -200_000, 0, 0, 10_000_000, 0, 0, -20_000_000]
    working = lives.start(worker)
    learning = lives.start(Life(arguments, worker.env | often, str(config.data / "trainer.log"), clock_jumps_s=jumps))
    for version in range(1, 4):
        publish_clicks(config, version * 300, 300)
        until(lambda version=version: len(list_versions(config.artifacts_url, MODEL_NAME)) >= version, 240)
    versions = list_versions(config.artifacts_url, MODEL_NAME)
    assert [v.offsets for v in versions] == sorted((v.offsets for v in versions), key=lambda o: sum(o.values()))
    assert "Traceback" not in (config.data / "trainer.log").read_text()
    moved = [json.loads(r.value)["moved_ts"] for r in read_all(config, config.topics.models) if r.key != RECORD_KEY]
    assert moved == sorted(set(moved)), "the pointers are in order, whatever the clock shows"
    for process in (working, learning):
        lives.signal(process, signal.SIGTERM)


def test_up_starts_a_killed_trainer_and_a_killed_worker_again(tmp_path):
    data, output = tmp_path / "data", tmp_path / "output"
    with output.open("w") as to:
        up = subprocess.Popen([sys.executable, "-m", "stream.cli", "up", "--data", data], stdout=to, stderr=to)

    def owner(role: str) -> int:
        lock = data / f"{role}.lock"
        process = int((lock.read_text() if lock.exists() else "") or 0)
        return process if process and is_running(process) else 0

    def clicks_read() -> int:
        with View(data, "clicks", Config().state) as view:
            return progress(view)

    def click(producer: KafkaProducer) -> None:
        producer.send("clicks", key=b"ann", value=b'{"user": "ann", "item": "milk"}')
        producer.flush()

    try:
        until(lambda: owner("trainer") and owner("worker"), 180)
        address = output.read_text().split("broker ")[1].split(",")[0]
        with contextlib.closing(KafkaProducer(bootstrap_servers=address)) as producer:
            click(producer)
            until(lambda: clicks_read() == 1, 180)
            before = {role: owner(role) for role in ("trainer", "worker")}
            for process in before.values():
                os.kill(process, signal.SIGKILL)
            click(producer)
            for role, process in before.items():
                until(lambda role=role, process=process: owner(role) not in (0, process), 180)
                assert f"the {role} ended and is started again in 5 s" in output.read_text()
            until(lambda: clicks_read() == 2, 180)
        assert up.poll() is None
    finally:
        up.terminate()
        up.wait(60)
    assert "Traceback" not in output.read_text()


@pytest.fixture
def kafka_alone():
    """A Kafka: the embedded broker deletes no records."""
    if reason := missing():
        pytest.skip(reason)
    with restartable_broker(**{"group.min.session.timeout.ms": "1000"}) as started:
        yield started.address


def delete_up_to(config: Config, offsets: dict[int, int]) -> None:
    """Delete records, as retention does."""
    with contextlib.closing(KafkaAdminClient(bootstrap_servers=config.broker)) as admin:
        admin.delete_records({TopicPartition(config.topics.clicks, p): o for p, o in offsets.items()})


def marks_of(config: Config) -> dict[int, Progress]:
    with View(config.data, config.topics.clicks, config.state) as view:
        return {number: p.read_progress() for number, p in view.partitions.items()}


@pytest.mark.parametrize("worker_is", ["stopped", "running"])
def test_retention_that_overtakes_a_worker_is_logged_before_anything_is_written(
    kafka_alone, lives, tmp_path, worker_is
):
    config = config_on(kafka_alone, tmp_path / "data")
    publish_clicks(config, 0, 300)
    worker = lives.start(worker_of(config))
    until(lambda: records_read(config) == 300)
    lives.signal(worker, signal.SIGTERM if worker_is == "stopped" else signal.SIGSTOP)
    before = marks_of(config)
    publish_clicks(config, 300, 200)
    log = read_all(config, config.topics.clicks)
    begins = {r.partition: r.offset + 1 for r in log}
    delete_up_to(config, begins)
    publish_clicks(config, 500, 100)
    log += read_all(config, config.topics.clicks)

    if worker_is == "running":
        lives.signal(worker, signal.SIGCONT)
    else:
        # It dies before its first write of an event: by then it has recorded only what was lost.
        assert lives.run_to_crash(msgspec.structs.replace(worker_of(config), crash_point=1, count=1), 60)
        for number, now in marks_of(config).items():
            lost = begins[number] - before[number].next_offset
            if now.lost:  # not each was opened yet
                assert (now.lost, now.next_offset, now.applied) == (lost, begins[number], before[number].applied)
        assert any(now.lost for now in marks_of(config).values())
        worker = lives.start(worker_of(config))
    until(lambda: records_read(config) == 600)
    logged = re.findall(
        r"partition (\d): events (\d+) to (\d+) were deleted from the log before they were read", log_of(config)
    )
    gaps = {int(number): range(int(first), int(last) + 1) for number, first, last in logged}
    assert gaps.keys() == begins.keys()
    assert f"--entity-name {config.topics.clicks} --add-config retention.ms=" in log_of(config)
    for number, now in marks_of(config).items():
        assert now.lost == len(gaps[number])
        assert gaps[number].stop == begins[number]
        if worker_is == "stopped":  # else the first of them lay in its socket
            assert gaps[number].start == before[number].next_offset
    with View(config.data, config.topics.clicks, config.state) as view:
        until(
            lambda: (
                view.refresh() or all(p.answered() >= p.read_progress().next_offset for p in view.partitions.values())
            )
        )
    lives.signal(worker, signal.SIGTERM)
    found = differences(config, fold([r for r in log if r.offset not in gaps[r.partition]], config))
    assert sorted(found) == [f"partition {n}: lost to retention: {len(gaps[n])}, not 0" for n in sorted(gaps)]
    assert "Traceback" not in log_of(config)


def test_a_zombie_joins_again_and_works_on(broker, lives, tmp_path):
    config = config_on(broker, tmp_path / "data")
    one, two = (msgspec.structs.replace(config, data=tmp_path / name) for name in ("one", "two"))
    publish_clicks(config, 0, 200)
    first = lives.start(worker_of(one, "one"))
    until(lambda: records_read(one) == 200)
    lives.signal(first, signal.SIGSTOP)
    second = lives.start(worker_of(two, "two"))
    until(lambda: records_read(two) == 200)
    publish_clicks(config, 200, 200)
    until(lambda: records_read(two) == 400)
    lives.signal(first, signal.SIGCONT)
    publish_clicks(config, 400, 200)
    until(lambda: records_read(one) > 250)  # it has a partition again, and reads on
    lives.signal(second, signal.SIGTERM)
    until(lambda: records_read(one) == 600)
    lives.signal(first, signal.SIGTERM)
    assert differences_when_settled(lives, one) == []


def test_a_topic_that_was_created_again_is_another_log(broker, lives, tmp_path):
    config = config_on(broker, tmp_path / "data")
    publish_clicks(config, 0, 300)
    worker = lives.start(worker_of(config))
    until(lambda: records_read(config) == 300)
    lives.signal(worker, signal.SIGTERM)
    with contextlib.closing(KafkaAdminClient(bootstrap_servers=broker)) as admin:
        admin.delete_topics([config.topics.clicks, config.topics.dead_letters, config.topics.recommendations])
        until(lambda: config.topics.clicks not in admin.list_topics())
    ensure(config)
    publish_clicks(config, 0, 400)  # as many offsets as before and more: only the topic's id tells them apart
    assert differences_when_settled(lives, config) == []
    assert "the topic was deleted and made again" in log_of(config)
