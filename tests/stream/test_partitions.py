"""A store meets the log: its own, another one, a shorter one, one cut at its beginning."""

import logging

import msgspec
import numpy as np
import pytest

from state.errors import Repartitioned, WrongLayout
from state.events import EVENT, EventBatch, hash_id
from stream.config import Config
from stream.partitions import EMBEDDED, Partitions


@pytest.fixture
def config(tmp_path):
    return Config(data=tmp_path)


def with_ten_events(config: Config, cluster: str = "here") -> None:
    partitions = Partitions(config, cluster)
    store = partitions.open(0, 2, 0, 10)
    events = np.zeros(10, EVENT)
    events["user"], events["item"] = hash_id("ann"), hash_id("milk")
    events["ts"], events["offset"] = 1_600_000_000_000 + np.arange(10), np.arange(10)
    store.apply(EventBatch(events, [b"ann"] * 10, [b"milk"] * 10, {}), 10)
    partitions.close_all()


def test_a_store_goes_on_where_it_stopped(config):
    with_ten_events(config)
    assert Partitions(config, "here").open(0, 2, 0, 12).state.next_offset == 10


def test_other_numbers_of_partitions_are_refused_with_what_mends_it(config):
    with_ten_events(config)
    with pytest.raises(Repartitioned, match=r"had 2 partitions .* has 4 now.*topics\.clicks"):
        Partitions(config, "here").open(0, 4, 0, 10)


def test_another_layout_is_refused_by_the_settings_name(config):
    with_ten_events(config)
    other = msgspec.structs.replace(config, state=msgspec.structs.replace(config.state, sequence_events=7))
    with pytest.raises(WrongLayout, match=r"state\.sequence_events = 100"):
        Partitions(other, "here").open(0, 2, 0, 10)


@pytest.mark.parametrize(
    ("cluster", "end", "said"),
    [("elsewhere", 10, "built from cluster 'here'"), ("here", 3, "lies beyond the end of the log, 3")],
)
def test_another_log_begins_a_new_store_and_the_old_one_is_kept_aside(config, caplog, cluster, end, said):
    with_ten_events(config)
    with caplog.at_level(logging.ERROR):
        store = Partitions(config, cluster).open(0, 2, 0, end)
    assert store.state.next_offset == 0
    assert said in caplog.text
    assert len(list(config.data.glob("aside-clicks-0-*"))) == 1


def test_an_unreadable_store_is_moved_aside(config, caplog):
    with_ten_events(config)
    (config.data / "clicks-0" / "CURRENT").write_text("nonsense\n")
    with caplog.at_level(logging.ERROR):
        assert Partitions(config, "here").open(0, 2, 0, 10).state.next_offset == 0
    assert "RocksDB cannot open" in caplog.text


def test_what_retention_deleted_is_told_and_the_state_kept(config, caplog):
    with_ten_events(config)
    with caplog.at_level(logging.WARNING):
        assert Partitions(config, "here").open(0, 2, 15, 20).state.applied == 10
    assert "events 10 to 14 were deleted from the log" in caplog.text


def test_an_embedded_brokers_new_log_goes_on_behind_the_old_one(config):
    with_ten_events(config, EMBEDDED)
    store = Partitions(config, EMBEDDED).open(0, 2, 0, 0)
    assert (store.state.next_offset, store.state.base) == (10, 10)
