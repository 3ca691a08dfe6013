"""Ranks from lists of other implementations equal ranks from scores."""

import numpy as np

from benchmarks.rivals.outside import ranks_of_lists
from model.encoders.histories import Histories


def test_filtered_ranks_skip_seen_items_and_a_target_outside_the_list_is_a_miss():
    lists = np.array([[5, 3, 7, 2], [5, 3, 7, 2], [4, 1, 0, 0]])
    histories = Histories(np.array([0, 2, 3, 4]), np.array([5, 9, 1, 4]))
    found = ranks_of_lists(lists, histories, np.array([7, 7, 8]))
    assert found["unfiltered"][:2].tolist() == [2, 2]
    assert found["filtered"][:2].tolist() == [1, 2]
    assert min(found["unfiltered"][2], found["filtered"][2]) > 1000


def test_a_seen_target_keeps_its_rank_among_other_seen_items():
    found = ranks_of_lists(np.array([[5, 3, 7]]), Histories(np.array([0, 2]), np.array([5, 7])), np.array([7]))
    assert (found["unfiltered"].tolist(), found["filtered"].tolist()) == ([2], [1])
