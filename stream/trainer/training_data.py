"""The workers' state as the input of a cycle: the events since the champion learned, and those of users.

Which users are learned from is decided in `model.learning.cycle.select_training_users`.
"""

from typing import NamedTuple

import numpy as np

from model.learning.cycle import CycleInput, CycleSettings, collect_input
from model.learning.versions import Version
from model.ranking.catalogue import RowsOf
from state.events import EVENT, Ids, Records
from state.sequences import Sequences
from state.view import View
from stream.config import Config


class News(NamedTuple):
    """Log offsets between the champion's and the state's, by partition."""

    since: dict[int, int]
    """Next offset that the champion has not learned."""
    upto: dict[int, int]
    """Next offset of the state."""

    @property
    def events(self) -> int:
        """Number of offsets between."""
        return sum(self.upto[n] - self.since[n] for n in self.upto)


def news(view: View, champion: Version | None) -> News:
    """Compare the champion's manifest with the state."""
    upto = {number: p.read_progress().next_offset for number, p in view.partitions.items()}
    learned = champion.manifest.offsets if champion else {}
    # A store that was rebuilt or moved may be behind what the champion has learned: then nothing is new.
    since = {number: min(learned.get(number, 0), end) for number, end in upto.items()}
    return News(since, {n: e for n, e in upto.items() if e})


def read(view: View, since: dict[int, int], upto: dict[int, int]) -> Records:
    """The events of all partitions between these offsets; older ones are not touched."""
    parts = [view.partitions[n].journal(since.get(n, 0), end) for n, end in upto.items()]
    return np.concatenate([np.empty(0, EVENT), *parts])


class LiveSource:
    """The `Source` of a cycle in production: a view of the workers' stores."""

    def __init__(self, view: View, new: News) -> None:
        self._view, self._new = view, new

    def all_users(self) -> Ids:
        """Every user with an event in the journals, as a first version learns from."""
        return np.unique(read(self._view, {}, self._new.upto)["user"])

    def some_users(self, count: int, seed: int) -> Ids:
        """Up to `count` users, drawn evenly, in the order of their hashes."""
        return self._view.some_users(count, seed)

    def positives(self, users: Ids) -> Sequences:
        """Events of a positive kind that were not undone."""
        return self._view.positives(users)

    def item_ids(self, items: Ids) -> list[bytes | None]:
        """The ids behind item hashes."""
        return self._view.item_ids(items)

    @property
    def rows(self) -> RowsOf:
        """Rows of the live item-item graph."""
        return self._view.rows


def collect_news(view: View, champion: Version | None, new: News, settings: CycleSettings) -> CycleInput:
    """What the next cycle learns from. The seed is the number of events of the state."""
    trained = champion.trained if champion else None
    new_events = read(view, new.since, new.upto)
    seed = sum(new.upto.values())
    return collect_input(LiveSource(view, new), new_events, trained, settings, seed, gone(view, champion, new))


def gone(view: View, champion: Version | None, new: News) -> Ids:
    """Items of the champion that are no longer in any graph; none while the state is behind the champion."""
    if champion is None or any(new.upto.get(n, 0) < seen for n, seen in champion.manifest.offsets.items()):
        return np.empty(0, np.uint64)
    return np.setdiff1d(champion.trained.vocabulary.hashes, view.all_items())


def cycle_settings(config: Config) -> CycleSettings:
    """The settings of a cycle in this configuration."""
    return CycleSettings(
        config.model,
        config.training,
        config.ranking,
        config.state,
        config.gate,
        config.trainer.user_events,
        config.trainer.replay_users,
    )
