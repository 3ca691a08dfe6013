"""Fresh items, which no version knows: their rows and their number."""

import numpy as np
import pytest
import torch

from model.encoders.create import Create
from model.encoders.vocabulary import Vocabulary
from model.evaluation.global_temporal import as_events
from model.evaluation.recorded_stream import RecordedStream
from model.ranking.catalogue import Catalogue
from model.ranking.fusion import Fusion
from model.ranking.item_counts import ItemCounts
from model.ranking.stages import Stages
from model.settings import ModelSettings, RankingSettings
from state.events import hash_id
from state.settings import StateSettings

KNOWN = ["a", "b", "c", "d"]
VOCABULARY = Vocabulary(np.array([hash_id(i) for i in KNOWN], np.uint64), KNOWN)
TABLE = torch.cat([torch.zeros(1, 3), torch.arange(12.0).view(4, 3)])


@pytest.fixture
def past() -> RecordedStream:
    return RecordedStream(StateSettings())


def click(past: RecordedStream, *pairs: str) -> None:
    """Events of "user item", a second apart."""
    users, items = zip(*(p.split() for p in pairs), strict=True)
    past.append(as_events(users, items, 1_500_000_000_000 + (past.count + np.arange(len(pairs))) * 1000)[0])


def ids(*items: str) -> np.ndarray:
    return np.array([hash_id(i) for i in items], np.uint64)


def test_a_fresh_item_has_the_mean_row_of_its_known_neighbours(past):
    click(past, "ann a", "ann new", "bob b", "bob new", "cid b", "cid new")
    catalogue = Catalogue(VOCABULARY, TABLE, 10)
    assert catalogue.columns_or_new(ids("a", "new"), past.graph.rows).tolist() == [1, 5]
    assert torch.allclose(catalogue.table[5], (TABLE[1] + 2 * TABLE[2]) / 3)


def test_a_fresh_item_without_known_neighbours_has_the_mean_row_until_it_has_one(past):
    click(past, "ann new")
    catalogue = Catalogue(VOCABULARY, TABLE, 10)
    assert catalogue.update(ids("new"), past.graph.rows).tolist() == [5]
    assert torch.allclose(catalogue.table[5], TABLE[1:].mean(0))
    click(past, "ann c")
    assert catalogue.columns_or_new(ids("new"), past.graph.rows).tolist() == [5]
    assert torch.allclose(catalogue.table[5], TABLE[1:].mean(0)), "it was not clicked"
    assert catalogue.update(ids("new", "c"), past.graph.rows).tolist() == [5, 3]
    assert torch.allclose(catalogue.table[5], TABLE[3])
    assert torch.equal(catalogue.table[:5], TABLE)


def test_the_number_of_fresh_items_with_a_column_is_limited(past):
    click(past, "ann x", "ann y", "ann z")
    catalogue = Catalogue(VOCABULARY, TABLE, 2)
    columns = catalogue.update(ids("x", "y", "z", "a"), past.graph.rows)
    assert sorted(columns.tolist()) == [0, 1, 5, 6]
    assert len(catalogue.table) == len(catalogue.hashes) == 7
    assert Catalogue(VOCABULARY, TABLE, 0).update(ids("x", "a"), past.graph.rows).tolist() == [0, 1]


def test_a_fresh_item_is_recommended_to_the_user_who_clicked_it(past):
    click(past, "ann a", "ann b", "bob c", "bob d", "cid new")
    stages = Stages(Create(4, ModelSettings(dim=8)), VOCABULARY, Fusion(0.0, 0.0, 1.0, 0.0, 0.0), RankingSettings())
    assert stages.rank(past.sequences(ids("cid")), past.graph, 1).items.tolist() == [ids("new").tolist()]


def test_the_row_of_a_fresh_item_has_the_configured_length(past):
    click(past, "ann a", "ann beside", "bob alone")
    model = Create(4, ModelSettings(dim=3, heads=1, row_length=0.7))
    catalogue = Catalogue(VOCABULARY, model.table().detach(), 10, model.as_scored)
    columns = catalogue.update(ids("beside", "alone"), past.graph.rows)
    assert catalogue.table[torch.from_numpy(columns)].norm(dim=1).tolist() == pytest.approx([0.7, 0.7])


def test_in_a_large_catalogue_the_most_popular_items_are_scanned_and_chosen_again_as_popularity_moves(
    past, monkeypatch
):
    monkeypatch.setattr("model.ranking.catalogue.RESCAN_CLICKS", 10)
    click(past, "ann a", "bob a", "ann b", "bob b", "bob c", "bob d")
    catalogue, counts = Catalogue(VOCABULARY, TABLE, 10), ItemCounts(StateSettings().half_lives_s)
    counts.extend(VOCABULARY.hashes, past.graph.rows)
    columns, rows, places = catalogue.scanned(2, counts)
    assert columns.tolist() == [1, 2]
    assert torch.equal(rows, TABLE[1:3])
    assert places.tolist() == [-1, 0, 1, -1, -1]

    def later(column: int, clicks: int) -> list[int]:
        ts = np.full(clicks, 1_500_000_100_000)
        counts.update(np.full(clicks, column), ts, np.ones(clicks))
        return catalogue.scanned(2, counts).columns.tolist()

    assert later(4, 9) == [1, 2], "looking at every item is not worth it yet"
    assert later(4, 1) in ([1, 4], [2, 4])
    catalogue.columns_or_new(ids("new"), past.graph.rows)
    counts.extend(ids("new"), past.graph.rows)
    assert 5 not in later(5, 50), "the row of a fresh item is not learned"
    assert catalogue.scanned(5, counts).columns.tolist() == [1, 2, 3, 4, 5]
    assert torch.equal(catalogue.scanned(5, counts).rows, catalogue.table[1:])
