"""A store is opened against its log, another log, a shorter one, and one without its beginning."""

import logging
import shutil

import fsspec
import msgspec
import numpy as np
import pytest

from state.checkpoint import CheckpointStore, take
from state.errors import Repartitioned, StoreBlocked, WrongLayout
from state.events import make_batch
from state.identity import Identity
from state.store import Store
from stream.config import Config
from stream.kafka.topics import Log
from stream.stores.partition_stores import EMBEDDED_CLUSTER, PartitionStores, rebuilt_path
from tests.faulty_store import FAILURES, fault

IDENTITY = Identity("here", "clicks", 0, 2, 100, 32)


@pytest.fixture
def config(tmp_path):
    return Config(data=tmp_path)


def opened(config: Config, *, cluster="here", topic_id="", partitions=2, begin=0, end=10) -> Store:
    return PartitionStores(config).open(0, Log(cluster, topic_id, partitions, begin, end))


def with_ten_events(config: Config, cluster: str = "here", topic_id: str = "") -> None:
    store = opened(config, cluster=cluster, topic_id=topic_id)
    add_events(store, 10)
    store.close()


def test_a_store_goes_on_where_it_stopped(config):
    with_ten_events(config)
    assert opened(config, end=12).progress.next_offset == 10


def test_another_number_of_partitions_is_refused_with_the_remedy(config):
    with_ten_events(config)
    with pytest.raises(Repartitioned, match=r"had 2 partitions .* has 4 now.*topics\.clicks"):
        opened(config, partitions=4)


def test_the_error_for_another_layout_names_the_setting(config):
    with_ten_events(config)
    other = msgspec.structs.replace(config, state=msgspec.structs.replace(config.state, sequence_events=7))
    with pytest.raises(WrongLayout, match=r"state\.sequence_events = 100"):
        opened(other)


@pytest.mark.parametrize(
    ("cluster", "topic_id", "end", "reason"),
    [
        ("elsewhere", "first", 10, "built from cluster 'here'"),
        ("here", "", 3, "lies beyond the end of the log, 3"),
        ("here", "second", 10, "the topic was deleted and created again"),
    ],
)
def test_another_log_begins_a_new_store_and_the_old_one_is_moved_aside(config, caplog, cluster, topic_id, end, reason):
    with_ten_events(config, topic_id=topic_id and "first")
    with caplog.at_level(logging.ERROR):
        store = opened(config, cluster=cluster, topic_id=topic_id, end=end)
    assert store.progress.next_offset == 0
    assert reason in caplog.text
    assert len(list(config.data.glob("aside-clicks-0-*"))) == 1


def test_a_log_that_lost_its_end_keeps_its_store_and_gives_the_lost_offsets_away_again(config, caplog):
    with_ten_events(config, topic_id="first")
    with caplog.at_level(logging.ERROR):
        store = opened(config, topic_id="first", end=7)
    progress = store.progress
    assert (progress.applied, progress.log_offset, progress.next_offset, progress.truncated) == (10, 7, 10, 3)
    assert "the log has lost its newest records, offsets 7 to 9," in caplog.text
    assert progress.logical(7) == 10, "a new event at a lost offset comes after all that was applied"
    assert progress.in_messages(10) == 10, "readers keep the message with the highest offset"
    assert not list(config.data.glob("aside-*"))
    store.close()
    again = opened(config, topic_id="first", end=7)
    assert again.progress.truncated == 3, "counted once"
    again.close()


def test_checkpoints_beyond_the_end_of_the_log_are_used_at_once_or_never(config):
    shared = with_checkpoints(config, [10, 5], topic_id="first")
    store = opened(shared, topic_id="first", end=12)
    assert (store.progress.applied, store.progress.log_offset, store.progress.truncated) == (15, 12, 3)
    left = CheckpointStore(shared.artifacts, store.identity).usable()
    assert [m.progress.log_offset for m in left] == [10], "the log can grow past 15: what came before would be left out"
    store.close()


def test_an_unreadable_store_is_moved_aside(config, caplog):
    with_ten_events(config)
    (config.data / "clicks-0" / "CURRENT").write_text("nonsense\n")
    with caplog.at_level(logging.ERROR):
        assert opened(config).progress.next_offset == 0
    assert "RocksDB cannot open" in caplog.text


def test_events_that_retention_deleted_are_logged_and_the_state_goes_on(config, caplog):
    with_ten_events(config)
    with caplog.at_level(logging.WARNING):
        assert (store := opened(config, begin=15, end=20)).progress.applied == 10
    assert (store.progress.next_offset, store.progress.lost) == (15, 5)
    assert "events 10 to 14 were deleted from the log" in caplog.text


def test_an_embedded_brokers_new_log_goes_on_behind_the_old_one(config):
    with_ten_events(config, EMBEDDED_CLUSTER)
    store = opened(config, cluster=EMBEDDED_CLUSTER, end=0)
    assert (store.progress.next_offset, store.progress.base) == (10, 10)


def add_events(store: Store, count: int) -> None:
    """Clicks of one user in one batch, whatever is there already."""
    n, first = np.arange(count), store.progress.next_offset
    batch = make_batch([b"ann"] * count, [b"milk"] * count, ts=1_600_000_000_000 + n, offset=first + n)
    store.apply(batch, first + count)


def with_checkpoints(config: Config, counts: list[int], topic_id: str = "") -> Config:
    """A configuration without a local store.

    The artifact store holds a checkpoint after each of these counts of events.
    """
    shared = msgspec.structs.replace(config, artifacts=str(config.data / "artifacts"))
    store = opened(config, topic_id=topic_id, end=10**7)
    for number, count in enumerate(counts):
        add_events(store, count)
        take(store, config.data / f"copy-{number}")
        CheckpointStore(shared.artifacts, store.identity).upload(config.data / f"copy-{number}", config.state)
    path = store.path
    store.close()
    shutil.rmtree(path)
    return shared


def test_a_partition_that_moved_here_is_restored_from_the_newest_checkpoint(config, caplog):
    shared = with_checkpoints(config, [10, 5])
    with caplog.at_level(logging.INFO):
        store = opened(shared, end=20)
    assert store.progress.next_offset == 15
    assert "restored from the checkpoint at offset 15" in caplog.text
    assert "5 events follow in the log" in caplog.text


def test_without_a_checkpoint_a_partition_that_moved_here_begins_where_the_log_begins(config):
    shared = msgspec.structs.replace(config, artifacts=str(config.data / "artifacts"))
    assert opened(shared).progress.next_offset == 0


def test_the_checkpoint_before_a_damaged_one_is_restored(config, caplog):
    shared = with_checkpoints(config, [10, 5])
    store = CheckpointStore(shared.artifacts, IDENTITY)
    newest, before = store.usable()
    only_newest = {f.sha256 for f in newest.files} - {f.sha256 for f in before.files}
    for name in only_newest:
        file = next((config.data / "artifacts").rglob(name))
        file.write_bytes(b"x" + file.read_bytes()[1:])
    with caplog.at_level(logging.ERROR):
        assert opened(shared, end=20).progress.next_offset == 10
    assert "trying the one before" in caplog.text


def test_a_store_that_is_further_than_the_checkpoint_stays(config):
    shared = with_checkpoints(config, [10])
    store = opened(config, end=100)
    add_events(store, 20)
    store.close()
    assert opened(shared, end=100).progress.next_offset == 20


def test_a_store_far_behind_is_replaced_by_a_checkpoint(config, monkeypatch):
    monkeypatch.setattr("stream.stores.partition_stores.MIN_EVENTS_TO_RESTORE", 8)
    shared = with_checkpoints(config, [10])
    with_ten_events(config)
    assert opened(shared, end=100).progress.next_offset == 10  # as far as the checkpoint: nothing is downloaded
    shutil.rmtree(config.data / "clicks-0")
    store = opened(config, end=100)
    add_events(store, 1)
    store.close()
    assert opened(shared, end=100).progress.next_offset == 10


def test_a_store_that_retention_overtook_is_restored_rather_than_left_with_a_gap(config):
    shared = with_checkpoints(config, [10])
    store = opened(config, end=100)
    add_events(store, 3)
    store.close()
    store = opened(shared, begin=9, end=100)
    assert (store.progress.next_offset, store.progress.lost) == (10, 0)


def test_a_checkpoint_beyond_the_logs_end_is_not_of_this_log(config):
    shared = with_checkpoints(config, [10, 5])
    assert opened(shared, end=12).progress.next_offset == 10
    left = CheckpointStore(shared.artifacts, IDENTITY).usable()
    assert [manifest.progress.next_offset for manifest in left] == [10], "the other one is removed"


def test_a_damaged_store_is_restored_from_its_checkpoint(config, caplog):
    shared = with_checkpoints(config, [10])
    with_ten_events(config)
    (config.data / "clicks-0" / "CURRENT").write_text("nonsense\n")
    with caplog.at_level(logging.INFO):
        assert opened(shared).progress.next_offset == 10
    assert "RocksDB cannot open" in caplog.text
    assert "restored from the checkpoint" in caplog.text


def test_a_store_that_the_machine_blocks_is_not_moved(config, monkeypatch):
    with_ten_events(config)

    def refuse(*_: object, **__: object) -> None:
        raise Exception("IO error: While open a file for appending: clicks-0/LOCK: Too many open files")

    monkeypatch.setattr("state.rocksdb.Rdict", refuse)
    with pytest.raises(StoreBlocked, match="ulimit -n"):
        opened(config)
    monkeypatch.undo()
    assert opened(config).progress.next_offset == 10


def test_a_rebuild_replaces_the_store_also_after_a_crash_between_the_renames(config):
    with_ten_events(config)
    shutil.copytree(config.data / "clicks-0", rebuilt_path(config.data / "clicks-0"))
    (config.data / "clicks-0").rename(config.data / "aside-clicks-0-1")  # it died between the two renames
    assert opened(config).progress.next_offset == 10
    assert not rebuilt_path(config.data / "clicks-0").exists()


def test_an_artifact_store_that_cannot_be_read_does_not_stop_a_worker_from_starting(config, caplog):
    (config.data / "file").write_text("no directory")
    for url in (str(config.data / "file"), "nosuch://place"):
        with caplog.at_level(logging.WARNING):
            store = opened(msgspec.structs.replace(config, artifacts=url))
        assert store.progress.next_offset == 0
        store.close()
        assert "going on without" in caplog.text
        shutil.rmtree(config.data / "clicks-0")


@pytest.mark.parametrize("failure", FAILURES)
def test_with_an_artifact_store_that_fails_a_partition_is_opened_all_the_same(config, caplog, failure):
    away = msgspec.structs.replace(config, artifacts="faulty://away")
    with fault(fails=FAILURES[failure]):
        assert opened(away).progress.next_offset == 0
    assert "going on without a checkpoint" in caplog.text


def test_a_store_that_needs_no_checkpoint_is_opened_without_the_artifact_store(config, caplog):
    with_ten_events(config)
    away = msgspec.structs.replace(config, artifacts="faulty://away")
    with fault(stalls=True) as faulty:
        before = faulty.stalled
        assert opened(away, end=12).progress.next_offset == 10
        assert faulty.stalled == before, "the artifact store was not asked"
    assert "checkpoint" not in caplog.text


def test_an_artifact_store_that_hangs_delays_a_partition_for_a_bounded_time_and_the_next_one_not_at_all(
    config, caplog, monkeypatch
):
    monkeypatch.setattr("state.artifact_store.CALL_WITHIN_S", 0.2)
    away = msgspec.structs.replace(config, artifacts=f"faulty://{config.data.name}")
    with fault(stalls=True) as faulty:
        before = faulty.stalled
        opened(away).close()
        PartitionStores(away).open(1, Log("here", "", 2, 0, 10)).close()
        assert faulty.stalled == before + 1
    assert "no answer within" in caplog.text
    assert "did not answer, and is asked again" in caplog.text


def test_a_checkpoint_that_cannot_be_read_half_way_leaves_no_store(config, caplog):
    shared = with_checkpoints(config, [10])
    url = f"faulty://{config.data.name}"
    for file in (config.data / "artifacts").rglob("*"):
        if file.is_file():
            fsspec.filesystem("faulty").pipe_file(f"{url}/{file.relative_to(shared.artifacts)}", file.read_bytes())
    away = msgspec.structs.replace(config, artifacts=url)
    with fault(reads=fails_after(3)):
        assert opened(away, end=20).progress.next_offset == 0
    assert "trying the one before" in caplog.text
    assert [path.name for path in config.data.iterdir() if path.name.startswith("rest")] == []


def fails_after(count):
    """Reads fail after this many."""
    reads = []

    def read(content):
        reads.append(content)
        if len(reads) > count:
            raise ConnectionResetError("Connection reset by peer")
        return content

    return read
