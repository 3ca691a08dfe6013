"""The search that proves a user forgotten finds one who is not."""

from pathlib import Path

import pytest

from state import search as search_module
from state.events import hash_id
from state.identity import Identity
from state.search import search
from state.settings import StateSettings
from state.store import Store
from tests.state.oracle import Event, apply

SETTINGS = StateSettings(sequence_events=4, neighbours_per_item=8)
WHO = "ann-who-is-there"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    store = Store(tmp_path / "clicks-0", Identity("cluster", "clicks", 0, 1, 4, 8), SETTINGS)
    apply(store, Event(WHO, "milk", 1_600_000_000_000), Event("al", "milk", 1_600_000_001_000))
    store.close()
    return tmp_path


def test_a_user_is_found_in_every_column_that_knows_them(data):
    found = search(data, WHO)
    columns = {place.rpartition(" ")[2] for place in found.places if "column family" in place}
    assert {"ids", "sequences", "edges", "journal"} <= columns
    assert found.records > 5
    assert found.files > 3
    assert found.bytes > 100
    assert search(data, "bob-who-never-was").places == []


def test_a_short_id_is_found_though_chance_would_find_it_everywhere(data):
    assert any("column family ids" in place for place in search(data, "al").places)
    assert search(data, "a").places == []


@pytest.mark.parametrize(
    "left", [WHO.encode(), hash_id(WHO).to_bytes(8, "little"), hash_id(WHO).to_bytes(8, "big")], ids=["id", "le", "be"]
)
@pytest.mark.parametrize("before", [0, 60, 100])
def test_what_is_left_is_found_in_any_file_across_what_is_read_at_once(tmp_path, monkeypatch, left, before):
    monkeypatch.setattr(search_module, "READ_BYTES", 64)
    aside = tmp_path / "aside-clicks-0-1"
    aside.mkdir()
    (aside / "000009.log").write_bytes(bytes(before) + left + bytes(300))
    assert search(tmp_path, WHO).places == ["aside-clicks-0-1/000009.log"]
