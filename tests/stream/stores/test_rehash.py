"""Stores under a new id key: built beside the serving ones, and swapped in at the next start of the worker."""

import pytest

from state.id_hash import UNKEYED, IdHash, new_key
from state.identity import Identity
from state.store import Store
from state.view import View, id_keys_in
from stream.config import Config
from stream.errors import AnabranchError
from stream.kafka.topics import Log
from stream.stores.partition_stores import PartitionStores, rebuilt_path
from stream.stores.rehash import rehash_all
from tests.state.oracle import Event, apply

T = 1_600_000_000_000


def test_the_state_is_served_on_under_the_old_key_until_a_worker_with_the_new_one_starts(tmp_path):
    config, ids, its_log = Config(data=tmp_path), IdHash(new_key()), Log("here", "", 2, 0, 100)
    for number in range(2):
        store = Store(tmp_path / f"clicks-{number}", Identity("here", "clicks", number, 2, 100, 32), config.state)
        apply(store, Event("ann", "milk", T), Event("user-1131", "bread", T + 1))
        store.close()
    reported: list[str] = []
    assert [(r.partition, r.end, r.events) for r in rehash_all(config, ids, reported.append)] == [(0, 2, 2), (1, 2, 2)]
    assert reported == ["partition 0: 2 of 2", "partition 1: 2 of 2"]

    running = PartitionStores(config).open(0, its_log)
    assert running.ids == UNKEYED
    running.close()
    assert rebuilt_path(tmp_path / "clicks-0").exists()
    restarted = [PartitionStores(config, ids).open(number, its_log) for number in range(2)]
    for store in restarted:
        assert store.ids == ids
        assert store.progress.log_offset == 2
        assert store.user_ids(ids.of_many([b"ann", b"user-1131", b"%ay{G7VA"])) == [b"ann", b"user-1131", None]
        store.close()
    assert id_keys_in(tmp_path, "clicks", config.state) == {0: ids.key, 1: ids.key}
    assert len(list(tmp_path.glob("aside-clicks-*"))) == 2
    with View(tmp_path, "clicks", config.state) as view:
        assert view.ids == ids

    with pytest.raises(AnabranchError, match="has no store with another id key"):
        rehash_all(config, ids, reported.append)
