"""What the partitions know of an item, and what is popular in each, adds up."""

import msgspec
import pytest

from state.settings import StateSettings
from stream.kafka.documents import ItemPart, PopularItem, TitledFollower, merge_items, merge_popular

T = 1_700_000_000_000
HALF_LIVES = StateSettings(pair_half_life_s=100.0, popularity_half_life_s=50.0)


def part(ts: int, degree: int, popularity: float, **followers: float) -> ItemPart:
    followed = [TitledFollower(name, None, weight) for name, weight in followers.items()]
    return ItemPart("milk", None, degree, popularity, followed, None, ts=ts)


def test_counts_of_an_older_part_have_faded_when_they_are_added():
    merged = merge_items([part(T, 3, 4.0, tea=8.0, rice=1.0), part(T + 100_000, 2, 1.0, tea=1.0)], 1, HALF_LIVES)
    assert (merged.degree, merged.popularity) == (5, 2.0)
    assert [(f.item, f.weight) for f in merged.next] == [("tea", 5.0)]


def test_a_partition_without_the_item_changes_nothing():
    alone = merge_items([part(T, 3, 4.0, tea=8.0)], 10, HALF_LIVES)
    assert merge_items([part(0, 0, 0.0), part(T, 3, 4.0, tea=8.0)], 10, HALF_LIVES) == alone


def test_one_worker_that_knows_the_title_and_the_version_is_enough():
    knows = msgspec.structs.replace(part(T, 1, 1.0), title="Milk", known_to_model=True)
    merged = merge_items([part(T, 1, 1.0), knows, msgspec.structs.replace(knows, known_to_model=False)], 10, HALF_LIVES)
    assert (merged.title, merged.known_to_model) == ("Milk", True)
    assert merge_items([part(T, 1, 1.0)], 10, HALF_LIVES).known_to_model is None


def test_what_is_popular_in_two_partitions_counts_twice():
    found = merge_popular(
        [[PopularItem("a", None, 10.0)], [PopularItem("b", "B", 10.5), PopularItem("a", "A", 10.0)]], 5
    )
    assert [(i.item, i.title) for i in found] == [("a", "A"), ("b", "B")]
    assert found[0].score == 1.0
    assert found[1].score == pytest.approx(2**0.5 / 2, abs=1e-4)
    assert merge_popular([], 5) == merge_popular([[]], 5) == []
