"""One cycle of learning, top to bottom. The trainer and the prequential evaluation both enter it at step 1.

    1  select_training_users   users with new events, and a sample of others; some others are reserved for the gate
    2  collect_input           the newest events of each, and the ids of items that the champion does not know
    3  run_cycle               hold out the newest events that the champion has not learned
                               start from the champion's weights or from scratch
                               warm up and fit on everything before the held-out events
                               choose the fusion weights on the held-out events, fit the ranker to earlier examples
                               measure on the held-out events
                               fit again with the held-out events
                               gate: promote the candidate or keep the champion
    4  publish                 in production only: the candidate becomes a version (`stream/trainer/trainer.py`)

The global temporal evaluation has no champion and enters at step 3, with all users of its past.

The figures are measured before the model learns the held-out events. The published model has learned them. It is
tested for forgetting, size and speed.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch

from model.encoders.create import Create
from model.encoders.graph_table import graph_table
from model.encoders.histories import to_histories
from model.encoders.vocabulary import Vocabulary
from model.fusion_weights.holdout import Holdout, mask_of, split_holdout
from model.learning.experiment import NO_EXPERIMENT, Experiment
from model.learning.gate import Measured, judge
from model.learning.measure import HoldoutMeasurement, measure_forgetting, measure_holdout
from model.learning.new_items import add_items, init_new_item_rows
from model.learning.ranker_in_cycle import REPLAYED_EVENTS
from model.learning.trained import Trained
from model.learning.training import Schedule, Spent, train
from model.ranker.examples import Example
from model.ranking.catalogue import RowsOf
from model.ranking.fusion import uses_ranker
from model.settings import GateSettings, ModelSettings, RankingSettings, TrainingSettings, without_graph
from state.events import Ids, Records
from state.sequences import STEP, Sequences, newest
from state.settings import StateSettings

ProgressCallback = Callable[[float, str], None]
"""Called with the share of the cycle that is done, and a text for the present step."""
FIRST_FIT, WEIGHTS = "training without the newest events", "choosing the fusion weights"
LAST_FIT, GATE = "training with the newest events", "at the gate"
"""The texts of the steps, in their order."""
NO_SEQUENCES = Sequences(np.empty(0, np.uint64), np.zeros(1, np.int64), np.empty(0, STEP))
NO_IDS: Ids = np.empty(0, np.uint64)


class CycleSettings(NamedTuple):
    """The settings that a cycle reads."""

    model: ModelSettings
    training: TrainingSettings
    ranking: RankingSettings
    state: StateSettings
    gate: GateSettings = GateSettings()
    user_events: int = 100
    """`trainer.user_events`."""
    replay_users: int = 20_000
    """`trainer.replay_users`."""


class Source(Protocol):
    """The source of users and events: the workers' state in production, a recorded stream in the evaluation."""

    def all_users(self) -> Ids:
        """Every user with an event."""

    def some_users(self, count: int, seed: int) -> Ids:
        """Up to `count` users, sampled uniformly, ordered by hash."""

    def positives(self, users: Ids) -> Sequences:
        """The events of these users that may be learned from, in the order of `users`."""

    def item_ids(self, items: Ids) -> list[bytes | None]:
        """The ids of item hashes; None for an unknown hash."""

    @property
    def rows(self) -> RowsOf:
        """Rows of the live item-item graph."""


class TrainingUsers(NamedTuple):
    """The users of a cycle."""

    with_new_events: Ids
    replayed: Ids
    """Users without new events. They are learned again, so that less is forgotten (experience replay)."""
    gate_users: Ids
    """Users without new events. The cycle does not learn from them: the gate measures forgetting on them."""


class CycleInput(NamedTuple):
    """The input of a cycle."""

    sequences: Sequences
    """Newest events of the users that the cycle learns from."""
    names: dict[int, str]
    """Id by hash of the items that the champion does not know."""
    rows_of: RowsOf
    """Reads the live graph. New items get their rows from their neighbours there."""
    seed: int
    new_events: Records | None = None
    """Events that the champion has not learned; None if not known."""
    gate_users: Sequences = NO_SEQUENCES
    gone: Ids = NO_IDS
    """Items that are no longer in any graph. Their indices become free."""
    examples: Sequence[Example] = ()
    """The newest examples, in the order in which the ranker learns them."""


def select_training_users(
    source: Source, new_events: Records, champion: Trained | None, settings: CycleSettings, seed: int
) -> TrainingUsers:
    """Select all users with new events and up to `replay_users` others. Up to `gate.old_users` more are for the gate.

    For a first version all events are new. A model with changed `[model]` settings starts from scratch, so it replays
    all users.
    """
    with_new_events = np.unique(new_events["user"])
    if champion is not None and starts_from_scratch(champion, settings.model):
        others = source.all_users()
    else:
        others = source.some_users(settings.replay_users + settings.gate.old_users, seed)
    others = np.setdiff1d(others, with_new_events)
    # Evenly spaced positions are a uniform sample: the users are ordered by hash.
    count = min(settings.gate.old_users, len(others) // 4)
    gate_users = np.linspace(0, len(others), count, endpoint=False).astype(int)
    return TrainingUsers(with_new_events, np.delete(others, gate_users), others[gate_users])


def collect_input(
    source: Source,
    new_events: Records,
    champion: Trained | None,
    settings: CycleSettings,
    seed: int,
    gone: Ids = NO_IDS,
    examples: Sequence[Example] = (),
) -> CycleInput:
    """Read the events of the selected users, at most `user_events` newest events each."""
    users = select_training_users(source, new_events, champion, settings, seed)
    learned_from = np.concatenate([users.with_new_events, users.replayed])
    sequences = newest(source.positives(learned_from), settings.user_events)
    items = np.unique(sequences.steps["item"])
    unknown = items if champion is None else items[champion.vocabulary.lookup(items) == 0]
    ids = source.item_ids(unknown)
    return CycleInput(
        sequences,
        {item: id_.decode() for item, id_ in zip(unknown.tolist(), ids, strict=True) if id_ is not None},
        source.rows,
        seed % 2**31,
        new_events,
        source.positives(users.gate_users),
        gone,
        examples,
    )


def run_cycle(
    champion: Trained | None,
    cycle_input: CycleInput,
    settings: CycleSettings,
    *,
    parent: str | None = None,
    experiment: Experiment = NO_EXPERIMENT,
    progress: ProgressCallback = lambda _share, _what: None,
) -> Trained:
    """Learn a candidate and judge it. Without a champion it is learned from scratch.

    `parent` is the champion's version. The result is deterministic for a seed and a number of threads, unless
    `max_train_s` ends the training.
    """
    torch.manual_seed(cycle_input.seed)
    training = settings.training
    past, held_out = hold_out(champion, cycle_input, training)
    net, vocabulary, known = start_model(champion, cycle_input, settings, past, held_out)
    without_newest, with_newest = schedules(champion, cycle_input, settings)

    histories = to_histories(past, vocabulary)
    spent = train(
        net, histories, training, without_newest, experiment=experiment,
        progress=lambda share: progress(0.5 * share, FIRST_FIT),
    )  # fmt: skip

    progress(0.5, WEIGHTS)
    measurement = measure_holdout(
        Holdout(past, held_out, settings.state), net, vocabulary, champion, settings.ranking,
        cycle_input.examples, cycle_input.seed,
        lambda: Holdout(*split_holdout(past, REPLAYED_EVENTS, at_most=0.5), settings.state),
    )  # fmt: skip

    # The next hour is most like the newest events, so they are learned too. Only the sequence encoder learns them: the
    # graph would need new user rows.
    only_held_out = np.setdiff1d(new_items(cycle_input), past.steps["item"])
    if len(known) and len(only_held_out):
        init_new_item_rows(net, vocabulary, only_held_out, cycle_input.rows_of(only_held_out), known)
    last = train(
        net, to_histories(cycle_input.sequences, vocabulary), without_graph(training), with_newest,
        experiment=experiment,
        progress=lambda share: progress(0.7 + 0.3 * share, LAST_FIT),
    )  # fmt: skip

    if uses_ranker(settings.ranking):
        net.graph_table = graph_table(vocabulary, cycle_input.rows_of)
    progress(1.0, GATE)
    metrics = metrics_of(measurement, spent, last, len(histories))
    candidate = Trained(
        net, vocabulary, measurement.fusion, metrics, parent, ranker=measurement.ranker, ranker_ts=measurement.ranker_ts
    )
    measured = measure(champion, candidate, measurement, cycle_input)
    return candidate._replace(verdict=judge(measured, settings.gate, first=champion is None))


def hold_out(
    champion: Trained | None, cycle_input: CycleInput, training: TrainingSettings
) -> tuple[Sequences, Sequences]:
    """Past and held-out events of every user. The champion has not learned any held-out event."""
    unlearned = None
    if champion is not None and cycle_input.new_events is not None:
        unlearned = mask_of(cycle_input.sequences, cycle_input.new_events)
    return split_holdout(cycle_input.sequences, training.holdout_events, unlearned)


def start_model(
    champion: Trained | None,
    cycle_input: CycleInput,
    settings: CycleSettings,
    past: Sequences,
    held_out: Sequences,
) -> tuple[Create, Vocabulary, Vocabulary]:
    """The champion's or initial weights with rows for new items, the vocabulary with new items, and the champion's."""
    known = (champion.vocabulary if champion else Vocabulary(NO_IDS, [])).release(cycle_input.gone)
    if champion is None or starts_from_scratch(champion, settings.model):
        net = Create(len(known), settings.model)
    else:
        net = champion.model
    vocabulary, net = add_items(net, known, cycle_input.names)
    items = new_items(cycle_input)
    if len(known) and len(items):
        # Not the live graph: it has the held-out events, so the row of an item would come from its own test. This graph
        # is as large as the item table. It is built again for the tests: kept in training it would double
        # the memory.
        init_new_item_rows(net, vocabulary, items, Holdout(past, held_out, settings.state).rows(items), known)
    return net, vocabulary, known


def schedules(champion: Trained | None, cycle_input: CycleInput, settings: CycleSettings) -> tuple[Schedule, Schedule]:
    """The schedules of the training without the newest events and of the training with them."""
    training, seed = settings.training, cycle_input.seed
    if champion is None or starts_from_scratch(champion, settings.model):
        rate = training.learning_rate
        first = Schedule(training.epochs, rate, seed, training.warm_up_epochs, from_scratch=True)
        return first, Schedule(training.last_epochs, rate, seed + 1)
    rate = training.increment_learning_rate
    first = Schedule(training.increment_epochs, rate, seed, training.increment_warm_up_epochs)
    return first, Schedule(training.increment_last_epochs, rate, seed + 1)


def new_items(cycle_input: CycleInput) -> Ids:
    """Hashes of the items that the champion does not know."""
    return np.fromiter(cycle_input.names, np.uint64, len(cycle_input.names))


def starts_from_scratch(champion: Trained, model: ModelSettings) -> bool:
    """Whether the champion's weights do not fit the model that is configured."""
    return champion.model.settings != model


def metrics_of(measurement: HoldoutMeasurement, spent: Spent, last: Spent, users: int) -> dict[str, float]:
    """The metrics that the manifest stores."""
    return measurement.metrics | {
        "epochs": float(spent.epochs),
        "train_s": spent.seconds,
        "last_s": last.seconds,
        "users": float(users),
    }


def measure(
    champion: Trained | None, candidate: Trained, measurement: HoldoutMeasurement, cycle_input: CycleInput
) -> Measured:
    """Collect the measurements for the gate."""
    net, new_events = candidate.model, cycle_input.new_events
    weights = [*net.parameters(), *(candidate.ranker.parameters() if candidate.ranker is not None else ())]
    return Measured(
        newest=measurement.newest,
        old=measure_forgetting(champion or candidate, net, candidate.vocabulary, cycle_input.gate_users),
        shown=measurement.shown,
        seconds=measurement.seconds,
        size_bytes=sum(p.numel() * p.element_size() for p in weights),
        finite=all(bool(torch.isfinite(p).all()) for p in weights),
        new_events=0 if new_events is None else len(new_events),
        new_items=len(cycle_input.names),
    )
