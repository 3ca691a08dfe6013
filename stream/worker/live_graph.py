"""The item-item graph and the most popular items over all stores of one worker: what ranking reads of the state."""

import time
from collections.abc import Mapping

import numpy as np

from state.events import Ids
from state.graph import Rows, combine
from state.kinds import Kinds, kinds_of
from state.partition import Partition
from state.settings import StateSettings
from state.view import most_popular

POPULAR_FOR_S = 1.0
"""A list of popular items is read again after this time."""


class StoresGraph:
    """The stores' graphs together: a `model.ranking.stages.LiveGraph`."""

    def __init__(self, stores: Mapping[int, Partition], settings: StateSettings) -> None:
        self._stores, self._settings = stores, settings
        self._popular: Ids = np.empty(0, np.uint64)
        self._popular_until = 0.0

    @property
    def kinds(self) -> Kinds:
        """The kinds of events, and what each counts."""
        return kinds_of(self._settings)

    @property
    def expires(self) -> bool:
        """True: an item without a click in these stores has expired, or its name is not known here."""
        return True

    @property
    def half_lives_s(self) -> tuple[float, ...]:
        """Event time after which a click counts half, for each popularity of a row."""
        return self._settings.half_lives_s

    @property
    def empty(self) -> bool:
        """Whether no store is open."""
        return not self._stores

    def rows(self, items: Ids) -> Rows:
        """The rows of these items, the stores' counts added up."""
        return combine([store.rows(items) for store in list(self._stores.values())], self._settings)

    def popular(self, count: int, withdrawn: Ids) -> Ids:
        """The most popular items but the withdrawn ones, best first."""
        if time.monotonic() > self._popular_until:
            lists = [store.popular() for store in list(self._stores.values())]
            self._popular = most_popular(lists, self._settings.popular_items)
            self._popular_until = time.monotonic() + POPULAR_FOR_S
        shown = self._popular[~np.isin(self._popular, withdrawn)] if len(withdrawn) else self._popular
        return shown[:count]

    def reset_popular(self) -> None:
        """Discard the list of popular items, because some of them are gone."""
        self._popular_until = 0.0
