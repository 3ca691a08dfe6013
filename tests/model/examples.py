"""Examples for the tests of the model: a stream whose next item is certain, a version that learned it, a holdout."""

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from model.fusion_weights.holdout import Holdout, split_holdout
from model.learning.cycle import CycleInput, CycleSettings, run_cycle
from model.learning.trained import Trained
from model.ranker.examples import Example
from model.settings import ModelSettings, RankingSettings, TrainingSettings
from state.events import make_events
from state.graph import MemoryGraph
from state.sequences import from_events
from state.settings import StateSettings

SMALL = ModelSettings(dim=16, dropout=0.0)
STATE = StateSettings(neighbours_per_item=8, user_item_cap=0)
QUICK = TrainingSettings(warm_up_epochs=2, epochs=3)


def cycling(users: int = 10, items: int = 7, steps: int = 12) -> np.ndarray:
    """Every user clicks the items in a circle, so the next item is certain."""
    n = np.arange(users * steps)
    item = (n // users + n % users) % items + 100
    return make_events(n % users + 1, item, ts=1_000_000_000_000 + n * 1000, offset=n)


def learned(
    events: np.ndarray,
    champion: Trained | None = None,
    seed: int = 0,
    model: ModelSettings = SMALL,
    *,
    ranker: bool = True,
    examples: Sequence[Example] = (),
    **training: Any,
) -> Trained:
    graph = MemoryGraph(STATE)
    graph.apply(events)
    known = np.unique(events["item"])
    new = known if champion is None else known[champion.vocabulary.lookup(known) == 0]
    settings = msgspec.structs.replace(QUICK, **training)
    names = {i: f"item-{i}" for i in new.tolist()}
    parent = "000001" if champion else None
    cycle_input = CycleInput(from_events(events), names, graph.rows, seed, examples=examples)
    ranking = RankingSettings(ranker=ranker)
    return run_cycle(champion, cycle_input, CycleSettings(model, settings, ranking, STATE), parent=parent)


def holdout_of(events: np.ndarray, count: int) -> Holdout:
    """The newest `count` events as tests."""
    return Holdout(*split_holdout(from_events(events), count), STATE)
