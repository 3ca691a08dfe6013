"""An installation's id key: made once, found again in the topic, the stores or the checkpoints, and never guessed."""

import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from state.checkpoint import CheckpointStore, take
from state.errors import StoreBlocked
from state.id_hash import IdHash, new_key
from state.identity import KEYED_LAYOUT, LAYOUT, Identity
from state.store import Store
from state.view import id_keys_in
from stream.config import Config
from stream.errors import AnabranchError
from stream.kafka.id_key_record import FoundKey, IdKey, read_record, standing
from stream.stores import id_key
from stream.stores.id_key import check_same_key, find, prepare, settle_key
from stream.stores.partition_stores import rebuilt_path

CLUSTER = "here"
KEY, OTHER = "1" * 32, "2" * 32


class Topic:
    """The topic `models`, and whether a worker of the group has ever committed."""

    def __init__(self) -> None:
        self.values: list[bytes | None] = []
        self.has_versions = self.has_been_read = False
        self.on_read = lambda: None

    def read(self, config: Config) -> FoundKey:
        found = standing(self.values)._replace(has_versions=self.has_versions)
        self.on_read()
        return found

    async def publish(self, config: Config, record: IdKey) -> FoundKey:
        self.values.append(msgspec.json.encode(record))
        return standing(self.values)

    async def group_has_read(self, config: Config, partitions: list) -> bool:
        return self.has_been_read


@pytest.fixture
def topic(monkeypatch) -> Topic:
    made = Topic()
    monkeypatch.setattr(id_key, "read_record", made.read)
    monkeypatch.setattr(id_key, "publish_record", made.publish)
    monkeypatch.setattr(id_key, "group_has_read", made.group_has_read)
    monkeypatch.setattr(id_key, "log_ends", lambda config, topic: {0: 0, 1: 0})
    return made


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(data=tmp_path / "data", broker="HOST:9092")


def store(config: Config, key: str, number: int = 0) -> Path:
    """A store whose ids are hashed with a key."""
    path = config.data / f"clicks-{number}"
    layout = KEYED_LAYOUT if key else LAYOUT
    Store(path, Identity(CLUSTER, "clicks", number, 2, 100, 32, "", layout, key), config.state).close()
    return path


def keys_of(config: Config) -> dict[int, str]:
    return id_keys_in(config.data, "clicks", config.state)


def test_a_new_installation_gets_a_key_and_keeps_it(topic, config):
    made = settle_key(config, CLUSTER)
    assert made.written
    assert made.record.ids.keyed
    assert settle_key(config, CLUSTER) == (made.record, False)
    assert prepare(config, CLUSTER) == made.record.ids


def test_an_installation_from_before_the_key_stays_without_and_names_the_command(topic, config, caplog):
    store(config, "")
    with caplog.at_level(logging.WARNING):
        assert not prepare(config, CLUSTER).keyed, "an upgraded worker goes on"
    assert "`anabranch init --id-key new` makes a key" in caplog.text
    assert not settle_key(config, CLUSTER).record.ids.keyed
    assert topic.values == [msgspec.json.encode(IdKey(""))]
    assert keys_of(config) == {0: ""}


@pytest.mark.parametrize("sign", ["has_versions", "has_been_read"])
def test_a_key_is_not_guessed_where_the_installation_has_run_and_nothing_here_knows_it(topic, config, sign):
    setattr(topic, sign, True)
    with pytest.raises(AnabranchError, match="has run before, and its id key is neither in the topic 'models' nor"):
        settle_key(config, CLUSTER)
    assert topic.values == []
    assert settle_key(config, CLUSTER, "new").record.ids.keyed


def test_a_worker_makes_no_key(topic, config):
    with pytest.raises(AnabranchError, match=r"has no id key, and there is no state .* run `anabranch init`"):
        prepare(config, CLUSTER)
    assert topic.values == []


def test_a_topic_that_was_created_again_gets_the_key_of_the_state_again(topic, config, caplog):
    store(config, KEY)
    with caplog.at_level(logging.WARNING):
        assert prepare(config, CLUSTER) == IdHash(KEY)
    assert f"`anabranch init --data {config.data}` writes it again" in caplog.text
    assert topic.values == []
    assert settle_key(config, CLUSTER) == (IdKey(KEY), True)


def test_a_new_installation_gets_its_key_while_the_artifact_store_is_away(topic, config, monkeypatch):
    def away(*_):
        raise AnabranchError("the artifact store is away")

    monkeypatch.setattr(CheckpointStore, "newest_identity", away)
    with_artifacts = msgspec.structs.replace(config, artifacts="s3://bucket/prefix")
    assert settle_key(with_artifacts, CLUSTER).record.ids.keyed, "its log is empty: it has no checkpoint"


def test_no_key_is_made_for_a_log_with_events_while_the_artifact_store_is_away(topic, config, monkeypatch):
    def away(*_):
        raise AnabranchError("the artifact store is away")

    monkeypatch.setattr(CheckpointStore, "newest_identity", away)
    monkeypatch.setattr(id_key, "log_ends", lambda config, topic: {0: 0, 1: 7})
    with pytest.raises(AnabranchError, match="is away"):
        settle_key(msgspec.structs.replace(config, artifacts="s3://bucket/prefix"), CLUSTER)
    assert topic.values == []


def test_a_lost_key_is_found_in_the_checkpoints(topic, config, tmp_path, monkeypatch):
    monkeypatch.setattr(id_key, "log_ends", lambda config, topic: {0: 1, 1: 0})
    path = store(config, KEY)
    elsewhere = msgspec.structs.replace(config, data=tmp_path / "empty", artifacts=str(tmp_path / "artifacts"))
    identity = Identity(CLUSTER, "clicks", 0, 2, 100, 32, "", KEYED_LAYOUT, KEY)
    opened = Store(path, identity, config.state)
    opened.skip_to(1)
    take(opened, tmp_path / "copy")
    opened.close()
    CheckpointStore(elsewhere.artifacts, identity).upload(tmp_path / "copy", config.state)
    assert find(elsewhere, CLUSTER).id_key == KEY
    assert settle_key(elsewhere, CLUSTER).record.id_key == KEY


def test_a_store_that_is_blocked_is_not_taken_for_none(topic, config, monkeypatch):
    path = store(config, KEY)

    def blocked(*_):
        raise StoreBlocked("too many open files", path)

    monkeypatch.setattr("state.view.Partition", blocked)
    for decide in (settle_key, find):
        with pytest.raises(StoreBlocked):
            decide(config, CLUSTER)
    assert topic.values == [], "no second key is made"
    topic.values = [msgspec.json.encode(IdKey(KEY))]
    assert prepare(config, CLUSTER) == IdHash(KEY), "the worker starts, and its opener waits for the store"


def test_a_damaged_store_has_no_key_and_stops_nobody(topic, config):
    path = store(config, KEY)
    (path / "CURRENT").write_text("no manifest\n")
    topic.values = [msgspec.json.encode(IdKey(OTHER))]
    assert prepare(config, CLUSTER) == IdHash(OTHER)
    assert path.exists(), "its opener moves it aside"


def test_two_keys_and_none_that_decides_are_refused(topic, config):
    store(config, KEY, 0)
    store(config, OTHER, 1)
    for decide in (settle_key, prepare, find):
        with pytest.raises(AnabranchError, match="has different id keys") as refused:
            decide(config, CLUSTER)
        assert KEY not in str(refused.value)
    assert topic.values == []


def test_of_two_inits_at_once_both_get_the_key_of_the_first(topic, config, tmp_path):
    others = []

    def other_runs_now() -> None:
        topic.on_read = lambda: None
        others.append(settle_key(msgspec.structs.replace(config, data=tmp_path / "other"), CLUSTER))

    topic.on_read = other_runs_now
    settled = settle_key(config, CLUSTER)
    assert others[0].written
    assert settled == (others[0].record, False)
    assert len(topic.values) == 2
    assert settle_key(config, CLUSTER).record == others[0].record
    assert len(topic.values) == 3, "the key that stands was sent again"


def test_a_store_of_a_key_that_was_not_replaced_stops_the_worker_and_stays(topic, config):
    path = store(config, KEY)
    topic.values = [msgspec.json.encode(IdKey(OTHER))]
    with pytest.raises(AnabranchError, match=r"none of its users would be found\. Move it away \(mv ") as refused:
        prepare(config, CLUSTER)
    assert KEY not in str(refused.value)
    assert OTHER not in str(refused.value)
    assert path.exists()


@pytest.mark.parametrize("before", ["", KEY], ids=["from before the key", "keyed"])
def test_a_replaced_keys_stores_are_moved_aside_at_the_next_start_and_not_before(topic, config, before):
    store(config, before)
    topic.values = [msgspec.json.encode(IdKey(before))]
    made = settle_key(config, CLUSTER, "new").record
    assert made.ids.keyed
    assert made.id_key != before
    assert IdHash(before).fingerprint in made.replaces
    assert keys_of(config) == {0: before}
    assert prepare(config, CLUSTER) == made.ids
    assert keys_of(config) == {}
    assert len(list(config.data.glob("aside-clicks-0-*"))) == 1


def test_a_store_that_waits_for_its_rebuild_is_left_to_the_swap(topic, config):
    path = store(config, KEY)
    topic.values = [msgspec.json.encode(IdKey(KEY))]
    settle_key(config, CLUSTER, "new")
    rebuilt_path(path).mkdir()
    prepare(config, CLUSTER)
    assert keys_of(config) == {0: KEY}


def test_the_key_of_the_data_directory_becomes_the_installations_on_command(topic, config):
    store(config, KEY)
    topic.values = [msgspec.json.encode(IdKey(OTHER, replaces=[""]))]
    settled = settle_key(config, CLUSTER, "data")
    assert settled == (IdKey(KEY, sorted(["", IdHash(OTHER).fingerprint])), True)
    assert prepare(config, CLUSTER) == IdHash(KEY)
    assert keys_of(config) == {0: KEY}


def test_a_key_of_the_data_directory_needs_a_state(topic, config):
    with pytest.raises(AnabranchError, match="has no store"):
        settle_key(config, CLUSTER, "data")


@pytest.mark.parametrize(("of_backup", "fits"), [(KEY, True), (OTHER, False), ("", False)])
def test_a_backup_of_another_key_is_refused(topic, config, of_backup, fits):
    topic.values = [msgspec.json.encode(IdKey(KEY))]
    identity = Identity(CLUSTER, "clicks", 0, 2, 100, 32, "", LAYOUT, of_backup)
    if fits:
        return check_same_key(config, [identity])
    with pytest.raises(AnabranchError, match="the backup hashes its ids with") as refused:
        check_same_key(config, [identity])
    assert KEY not in str(refused.value)
    topic.values.clear()
    check_same_key(config, [identity])


@pytest.mark.broker
def test_inits_at_once_on_a_broker_agree_on_one_key(broker, tmp_path):
    from stream.kafka.topics import ensure

    tag = new_key()[:8]
    topics = {name: f"{name}-{tag}" for name in ("clicks", "models", "requests")}
    base = Config(broker=broker, group=f"group-{tag}")
    base = msgspec.structs.replace(base, topics=msgspec.structs.replace(base.topics, partitions=1, **topics))
    ensure(base)
    configs = [msgspec.structs.replace(base, data=tmp_path / str(n)) for n in range(4)]
    with ThreadPoolExecutor(4) as threads:
        settled = list(threads.map(lambda config: settle_key(config, CLUSTER), configs))
    assert len({each.record.id_key for each in settled}) == 1
    assert sum(each.written for each in settled) == 1
    assert read_record(base).record == settled[0].record
