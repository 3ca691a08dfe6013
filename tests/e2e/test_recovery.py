"""Backup, restore and replay, with a running worker and without one, compared with the oracle."""

import shutil
import signal
from pathlib import Path

import msgspec
import pytest

from state.view import View
from stream.cli import recovery
from stream.config import Config
from stream.errors import AnabranchError, DataDirectoryError
from tests.conftest import with_topics
from tests.crash.clicks import Clicks, with_custom_kinds
from tests.crash.kills import settle, with_short_session, worker_of
from tests.crash.lives import ForkServer, fork_server
from tests.crash.oracle import Truth, differences, fold
from tests.e2e.conftest import flags_of, progress, read_all, until

pytestmark = [pytest.mark.broker, pytest.mark.slow]


@pytest.fixture(scope="module")
def lives(tmp_path_factory: pytest.TempPathFactory):
    with fork_server(tmp_path_factory.mktemp("fork-server") / "fork-server.log") as made:
        yield made


@pytest.fixture
def config(request, broker: str, tmp_path: Path, monkeypatch) -> Config:
    made = with_custom_kinds(with_topics(broker, tmp_path / "data", partitions=2))
    for name, value in flags_of(made).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("ANABRANCH_BROKER", broker)
    return with_short_session(made) if request.config.getoption("--broker") == "embedded" else made


def log_of(config: Config) -> Truth:
    return fold(read_all(config, config.topics.clicks), config)


def read(config: Config) -> int:
    with View(config.data, config.topics.clicks, config.state) as view:
        return progress(view)


def test_a_backup_taken_while_the_worker_runs_goes_on_elsewhere_with_nothing_lost_or_doubled(
    config, lives: ForkServer, producer, tmp_path
):
    clicks = Clicks(config, seed=1)
    clicks.publish(producer, 300)
    worker = lives.start(worker_of(config))
    until(lambda: read(config) == 300)
    recovery.backup(str(tmp_path / "kept"), settings=config, as_json=False)
    clicks.publish(producer, 200)
    until(lambda: read(config) == 500)
    lives.signal(worker, signal.SIGKILL)

    elsewhere = msgspec.structs.replace(config, data=tmp_path / "elsewhere")
    recovery.restore(str(tmp_path / "kept"), settings=elsewhere, as_json=False)
    assert read(elsewhere) == 300
    settle(lives, elsewhere)
    assert differences(elsewhere, log_of(config)) == []


def test_without_a_worker_a_backup_and_a_restore_need_empty_folders(config, lives, producer, tmp_path):
    Clicks(config, seed=2).publish(producer, 100)
    settle(lives, config)
    truth = log_of(config)
    recovery.backup(str(tmp_path / "kept"), settings=config, as_json=False)
    with pytest.raises(AnabranchError, match="is not empty: give each backup a folder of its own"):
        recovery.backup(str(tmp_path / "kept"), settings=config, as_json=False)
    with pytest.raises(DataDirectoryError, match=r"is not empty: a restore replaces nothing\. Move it away \(mv "):
        recovery.restore(str(tmp_path / "kept"), settings=config, as_json=False)
    shutil.rmtree(config.data)
    recovery.restore(str(tmp_path / "kept"), settings=config, as_json=False)
    assert differences(config, truth) == []
    worker = lives.start(worker_of(config))
    until(lambda: (config.data / "worker.lock").exists() and (config.data / "worker.lock").read_text())
    with pytest.raises(DataDirectoryError, match=rf"in use by a worker \(process {worker}\)"):
        recovery.restore(str(tmp_path / "kept"), settings=config, as_json=False)
    lives.signal(worker, signal.SIGTERM)


def test_a_replay_beside_the_serving_state_swaps_under_the_worker(config, lives, producer, capsys):
    clicks = Clicks(config, seed=3)
    clicks.publish(producer, 300)
    worker = lives.start(worker_of(config))
    until(lambda: read(config) == 300)
    with View(config.data, config.topics.clicks, config.state) as view:
        until(
            lambda: (
                all(p.answered() >= p.read_progress().next_offset for p in view.partitions.values()) or view.refresh()
            )
        )
    sent = len(read_all(config, config.topics.recommendations))
    recovery.replay(since="earliest", settings=config, as_json=False)
    assert "swapped in; the state before is kept in" in capsys.readouterr().out
    until(lambda: len(list(config.data.glob("aside-*"))) == 2)
    until(lambda: read(config) == 300)
    assert len(read_all(config, config.topics.recommendations)) == sent, (
        "users who were answered are not answered again"
    )
    clicks.publish(producer, 100)
    until(lambda: read(config) == 400)
    lives.signal(worker, signal.SIGTERM)
    settle(lives, config)
    assert differences(config, log_of(config)) == []


def test_a_replay_from_an_offset_leaves_out_earlier_events(config, lives, producer, capsys):
    Clicks(config, seed=4).publish(producer, 100)
    settle(lives, config)
    recovery.replay(since="20", settings=config, as_json=False)
    assert "events before offset 20 are not in it" in capsys.readouterr().out
    records = [r for r in read_all(config, config.topics.clicks) if r.offset >= 20]
    truth = fold(records, config)
    with View(config.data, config.topics.clicks, config.state) as view:
        assert sum(p.read_progress().applied for p in view.partitions.values()) == truth.events
        assert {p.read_progress().lost for p in view.partitions.values()} == {20}
    with pytest.raises(AnabranchError, match="offset 100000 lies beyond the end of partition 0"):
        recovery.replay(since="100000", settings=config, as_json=False)
