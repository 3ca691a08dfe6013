"""The search for remains of a forgotten user finds one who was not forgotten."""

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
PRESENT_USER = "ann-who-is-there"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    store = Store(tmp_path / "clicks-0", Identity("cluster", "clicks", 0, 1, 4, 8), SETTINGS)
    apply(store, Event(PRESENT_USER, "milk", 1_600_000_000_000), Event("al", "milk", 1_600_000_001_000))
    store.close()
    return tmp_path


def test_a_user_is_found_in_every_column_that_knows_them(data):
    found = search(data, PRESENT_USER)
    columns = {place.rpartition(" ")[2] for place in found.places if "column family" in place}
    assert {"ids", "sequences", "edges", "journal"} <= columns
    assert found.records > 5
    assert found.files > 3
    assert found.bytes > 100
    assert search(data, "bob-who-never-clicked").places == []


def test_a_short_id_is_not_found_by_chance(data):
    assert any("column family ids" in place for place in search(data, "al").places)
    assert search(data, "a").places == []


@pytest.mark.parametrize(
    "remains",
    [PRESENT_USER.encode(), hash_id(PRESENT_USER).to_bytes(8, "little"), hash_id(PRESENT_USER).to_bytes(8, "big")],
    ids=["id", "le", "be"],
)
@pytest.mark.parametrize("before", [0, 60, 100])
def test_remains_are_found_in_any_file_also_across_two_reads(tmp_path, monkeypatch, remains, before):
    monkeypatch.setattr(search_module, "READ_BYTES", 64)
    aside = tmp_path / "aside-clicks-0-1"
    aside.mkdir()
    (aside / "000009.log").write_bytes(bytes(before) + remains + bytes(300))
    assert search(tmp_path, PRESENT_USER).places == ["aside-clicks-0-1/000009.log"]
