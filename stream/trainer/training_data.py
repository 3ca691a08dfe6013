"""One cycle's reading and learning: what is new since the champion learned, and a candidate that has learned it."""

from typing import NamedTuple

import numpy as np

from model.learning.cycle import Progress, Trained, learn
from model.learning.versions import Version
from state.events import EVENT, Ids, Records
from state.sequences import newest
from state.view import View
from stream.config import Config


class News(NamedTuple):
    """What has been applied since the champion last learned."""

    since: dict[int, int]
    """Offset of each partition that the champion has learned up to."""
    upto: dict[int, int]
    """Next offset of each partition's state."""

    @property
    def events(self) -> int:
        """How many offsets lie between."""
        return sum(self.upto[n] - self.since[n] for n in self.upto)


def news(view: View, champion: Version | None) -> News:
    """From where the champion stands to where the state stands."""
    upto = {number: p.read_progress().next_offset for number, p in view.partitions.items()}
    learned = champion.manifest.offsets if champion else {}
    # A store rebuilt or moved here may be behind what the champion has seen: then nothing is new.
    since = {number: min(learned.get(number, 0), end) for number, end in upto.items()}
    return News(since, {n: e for n, e in upto.items() if e})


def read(view: View, since: dict[int, int], upto: dict[int, int]) -> Records:
    """The events between, of all partitions; nothing older is touched."""
    parts = [view.partitions[n].journal(since.get(n, 0), end) for n, end in upto.items()]
    return np.concatenate([np.empty(0, EVENT), *parts])


def candidate(config: Config, view: View, champion: Version | None, new: News, progress: Progress) -> Trained:
    """Learn what is new, mixed with sequences of other users."""
    arrived = read(view, new.since, new.upto)
    fresh: Ids = np.unique(arrived["user"])
    seed = sum(new.upto.values())
    others = np.setdiff1d(view.some_users(config.trainer.replay_users + config.gate.old_users, seed), fresh)
    # Spread over all: drawn users come in order of their hashes.
    apart = np.linspace(0, len(others), min(config.gate.old_users, len(others) // 4), endpoint=False).astype(int)
    old, replayed = others[apart], np.delete(others, apart)
    sequences = newest(view.positives(np.concatenate([fresh, replayed])), config.trainer.user_events)
    known = champion.trained.vocabulary if champion else None
    items = np.unique(sequences.steps["item"])
    named = items if known is None else items[known.lookup(items) == 0]
    ids = view.item_ids(named)
    names = {h: i.decode() for h, i in zip(named.tolist(), ids, strict=True) if i is not None}
    return learn(
        champion.trained if champion else None,
        champion.manifest.version if champion else None,
        sequences,
        names,
        view.rows,
        model=config.model,
        training=config.training,
        ranking=config.ranking,
        state=config.state,
        gate=config.gate,
        seed=seed % 2**31,
        arrived=arrived,
        old=view.positives(old),
        gone=gone(view, champion, new),
        progress=progress,
    )


def gone(view: View, champion: Version | None, new: News) -> Ids:
    """Items of the champion that no graph has any more; none while the state is behind what the champion saw."""
    if champion is None or any(new.upto.get(n, 0) < seen for n, seen in champion.manifest.offsets.items()):
        return np.empty(0, np.uint64)
    return np.setdiff1d(champion.trained.vocabulary.hashes, view.all_items())
