"""Seen ids are dropped a generation at a time, by one range for each generation."""

from pathlib import Path

from state.admission import drop_duplicates
from state.identity import Identity
from state.settings import StateSettings
from state.store import Store
from tests.state.oracle import Event, batch

SETTINGS = StateSettings(sequence_events=4, neighbours_per_item=8, dedup_window_events=10)


class Writes:
    """A WriteBatch that counts deleted ranges: every later read goes through each of them."""

    def __init__(self) -> None:
        self.ranges = 0

    def put(self, *arguments: object) -> None:
        pass

    def delete_range(self, *arguments: object) -> None:
        self.ranges += 1


def test_a_range_is_deleted_when_a_generation_ends_and_not_with_every_batch(tmp_path: Path):
    store = Store(tmp_path / "s", Identity("cluster", "clicks", 0, 1, 4, 8), SETTINGS)
    writes = Writes()
    for offset in range(45):
        events = batch([Event("ann", "milk", 1_600_000_000_000, id=f"id-{offset}")], offset)
        drop_duplicates(store, events, offset, offset + 1, writes)
    assert writes.ranges == 3  # at 20, 30 and 40
    store.close()
