"""Training in two phases: the graph alone initializes the item table, then both encoders learn together.

warm_up   L = L_graph                                                  `warm_up_epochs`
fit       L = L_items + w_global · L_graph + w_transfer · L_transfer   `epochs`
"""

import math
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.encoders.create import Create
from model.encoders.graph_encoder import GraphEncoder, graph_encoder, touches_every_row
from model.encoders.histories import Histories, pack
from model.encoders.vocabulary import Indices
from model.learning.experiment import NO_EXPERIMENT, Experiment, TransferInput
from model.losses.barlow_twins import barlow_twins
from model.losses.infonce import infonce
from model.losses.item_loss import item_loss, name_of_loss
from model.settings import TrainingSettings

GRAPH_STD = 1e-4
"""Standard deviation of item and user rows before a warm-up from scratch. UltraGCN grows them from the edges."""


class Schedule(NamedTuple):
    """Length, learning rate and start of one training."""

    epochs: int
    """Joint epochs."""
    learning_rate: float
    """Learning rate of the first joint epoch. It falls along half a cosine."""
    seed: int
    warm_up_epochs: int = 0
    from_scratch: bool = False
    """Discard the item table and learn it from the graph alone in the warm-up."""


class Spent(NamedTuple):
    """Epochs, seconds and loss of a training."""

    epochs: int
    """Completed joint epochs."""
    seconds: float
    loss: float
    """Mean loss of the last epoch."""


class Run:
    """One training: the model, the histories, and the random generators that all steps share."""

    def __init__(
        self,
        model: Create,
        histories: Histories,
        settings: TrainingSettings,
        schedule: Schedule,
        experiment: Experiment,
        progress: Callable[[float], None],
    ) -> None:
        torch.set_num_threads(settings.threads)
        torch.manual_seed(schedule.seed)
        self.generator = torch.Generator().manual_seed(schedule.seed)
        self.shuffle = np.random.default_rng(schedule.seed)
        self.model, self.histories, self.settings = model, histories, settings
        self.schedule, self.experiment, self._progress = schedule, experiment, progress
        self.users = np.flatnonzero(histories.lengths > 0)
        self.trainable_users = np.flatnonzero(histories.lengths > 1)
        self.lazy = trains_lazily(settings, model.item_count)
        self.joint_graph = settings.w_global > 0 or settings.w_transfer > 0
        self.uses_graph = schedule.warm_up_epochs > 0 or self.joint_graph
        self._started = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds since the training began."""
        return time.monotonic() - self._started

    def begin_epoch(self, number: int) -> bool:
        """Report progress. Returns False after `max_train_s`: no further epoch may begin."""
        if self.seconds >= self.settings.max_train_s:
            return False
        self._progress(number / max(self.schedule.warm_up_epochs + self.schedule.epochs, 1))
        return True

    def draw_negatives(self) -> Tensor:
        """Draw [K] different items."""
        items = self.model.item_count
        return torch.randperm(items, generator=self.generator)[: min(self.settings.negatives, items)] + 1


def train(
    model: Create,
    histories: Histories,
    settings: TrainingSettings,
    schedule: Schedule,
    *,
    experiment: Experiment = NO_EXPERIMENT,
    progress: Callable[[float], None] = lambda _share: None,
) -> Spent:
    """Train the model in place on users' histories.

    Deterministic for a seed and a number of threads, unless `max_train_s` ends the training. Raises FloatingPointError
    if the loss is not a finite number.
    """
    run = Run(model, histories, settings, schedule, experiment, progress)
    if not len(run.users) or model.item_count < 2:
        return Spent(0, 0.0, math.nan)
    model.items.sparse = run.lazy
    graph = warm_up(run)
    epochs, loss = fit(run, graph if run.joint_graph else None)
    with torch.no_grad():
        if model.settings.row_length:
            model.items.weight.copy_(model.table())
        model.items.weight[0] = 0.0
    model.items.sparse = False
    model.eval()
    return Spent(epochs, run.seconds, loss)


def warm_up(run: Run) -> GraphEncoder | None:
    """Train the item table on the graph loss alone. Returns the graph encoder, or None if the run uses none."""
    model, settings, schedule = run.model, run.settings, run.schedule
    table = model.items
    if schedule.from_scratch:
        with torch.no_grad():
            table.weight.normal_(std=GRAPH_STD, generator=run.generator)
        user_rows = torch.randn(len(run.histories), table.embedding_dim, generator=run.generator) * GRAPH_STD
    elif run.uses_graph:
        user_rows = mean_rows(model, run.histories)
    graph = None
    if run.uses_graph:
        graph = (run.experiment.graph_encoder or graph_encoder)(run.histories, table, user_rows, settings)
        optimizers = make_optimizers(table, [], settings.graph_learning_rate, lazy=run.lazy)
        for epoch in range(schedule.warm_up_epochs):
            if not run.begin_epoch(epoch):
                break
            for users in batches(run.users, settings.batch_users, run.shuffle):
                edges, negatives = graph.draw(users, run.generator), run.draw_negatives()
                rows, negative_rows = gather_rows(table, edges.wanted, negatives)
                step(graph.loss(edges, rows, negatives, negative_rows)[0], model, optimizers, graph)
    if schedule.from_scratch:
        warmed = graph if schedule.warm_up_epochs else None
        init_item_table(model, warmed, run.experiment.table_std, run.generator)
    return graph


def fit(run: Run, graph: GraphEncoder | None) -> tuple[int, float]:
    """Train both encoders on the joint loss. Returns the number of completed epochs and the loss of the last one."""
    model, settings, schedule = run.model, run.settings, run.schedule
    if graph is not None:
        graph.users.begin(run.experiment.user_learning_rate)
    once = run.shuffle.permutation(np.intersect1d(run.trainable_users, run.experiment.once))
    every_epoch = np.setdiff1d(run.trainable_users, run.experiment.once)
    compute_item_loss = run.experiment.item_loss or item_loss(settings, model.item_count)
    optimizers = make_optimizers(model.items, list(model.sequence.parameters()), schedule.learning_rate, lazy=run.lazy)
    done, loss = 0, math.nan
    for epoch in range(schedule.epochs if len(run.trainable_users) else 0):
        if not run.begin_epoch(schedule.warm_up_epochs + epoch):
            break
        model.train()
        set_learning_rate(
            optimizers, schedule.learning_rate * 0.5 * (1 + math.cos(math.pi * epoch / (schedule.epochs * 1.1)))
        )
        users_of_epoch = np.concatenate([every_epoch, once[epoch :: schedule.epochs]])
        done += 1
        if not len(users_of_epoch):
            continue
        total, steps = torch.zeros(()), batches(users_of_epoch, settings.batch_users, run.shuffle)
        for users in steps:
            batch_loss = joint_loss(run, graph, users, compute_item_loss)
            step(batch_loss, model, optimizers, graph)
            total += batch_loss.detach()  # a list of small tensors between the large ones would fragment the heap
        loss = total.item() / len(steps)
        if not math.isfinite(loss):
            raise FloatingPointError(f"the training loss is {loss} after {done} epochs")
    return done, loss


def joint_loss(
    run: Run, graph: GraphEncoder | None, users: Indices, compute_item_loss: Callable[..., Tensor]
) -> Tensor:
    """L_items + w_global · L_graph + w_transfer · L_transfer of a batch of users."""
    model, settings, encoder = run.model, run.settings, run.model.sequence
    examples = encoder.examples(run.histories.take(users), model.settings.sequence_events, run.shuffle)
    packed, targets, negatives = pack(examples.inputs), torch.from_numpy(examples.targets), run.draw_negatives()
    edges = graph.draw(users, run.generator) if graph is not None and settings.w_global else None
    wanted = [packed.items, targets, *(edges.wanted if edges else [])]
    (tokens, target_rows, *graph_rows), negative_rows = gather_rows(model.rows, wanted, negatives)
    encoded = encoder(tokens, packed)
    predicting = encoded[packed.tokens[torch.from_numpy(examples.predicted)]]

    loss = compute_item_loss(predicting, targets, target_rows, negatives, negative_rows, model)
    if graph is not None and edges:
        graph_loss, graph_view = graph.loss(edges, graph_rows, negatives, negative_rows)
        loss = loss + settings.w_global * graph_loss
    if graph is not None and settings.w_transfer:
        graph_view = graph_view if edges else graph.view(users)
        views = encoded[packed.last], graph_view
        if run.experiment.transfer_views is not None:
            views = run.experiment.transfer_views(
                TransferInput(
                    encoded, packed, examples.inputs, predicting, targets, graph, graph_view, run.shuffle, run.generator
                )
            )
        loss = loss + settings.w_transfer * transfer_loss(*views, settings)
    if run.experiment.extra_loss is not None:
        loss = loss + run.experiment.extra_loss(model, len(users), negatives, run.shuffle)
    return loss


def transfer_loss(local_view: Tensor, global_view: Tensor, settings: TrainingSettings) -> Tensor:
    """Loss between the two views [B, d] of the same users."""
    if settings.transfer == "infonce":
        return infonce(local_view, global_view, settings.temperature)
    return barlow_twins(local_view, global_view, settings.off_diagonal)


@torch.no_grad()
def init_item_table(model: Create, warmed: GraphEncoder | None, std: float, generator: torch.Generator) -> None:
    """Set the rows that the joint epochs start from: the warm-up's, scaled to `std`, or random rows without one."""
    rows = model.items.weight
    scale = std / warmed.item_rows()[1:].std() if warmed is not None else torch.tensor(math.inf)
    if warmed is not None and torch.isfinite(scale):
        rows.copy_(warmed.item_rows() * scale)
        warmed.users.scale(scale)
    else:
        rows.normal_(std=model.settings.init_std, generator=generator)
    rows[0] = 0.0


def step(loss: Tensor, model: Create, optimizers: list[torch.optim.Optimizer], graph: GraphEncoder | None) -> None:
    """Take one optimization step."""
    model.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    for optimizer in optimizers:
        optimizer.step()
    if graph is not None:
        graph.step()


def trains_lazily(settings: TrainingSettings, items: int) -> bool:
    """Whether a step updates only the item rows that its batch touches, instead of the whole table."""
    return items > settings.lazy_items and name_of_loss(settings, items) != "full" and not touches_every_row(settings)


def make_optimizers(
    table: nn.Embedding, others: list[nn.Parameter], learning_rate: float, *, lazy: bool
) -> list[torch.optim.Optimizer]:
    """Adam for the item table and the other weights. The lazy form does not update untouched rows.

    The lazy form has no momentum. Momentum spreads an update over ten later steps, and a row that is rarely touched
    would not get them.
    """
    if not lazy:
        return [torch.optim.AdamW([table.weight, *others], learning_rate, weight_decay=0.0, fused=True)]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.SparseAdam([table.weight], learning_rate, betas=(0.0, 0.999))
    ]
    if others:
        optimizers.append(torch.optim.AdamW(others, learning_rate, weight_decay=0.0, fused=True))
    return optimizers


def set_learning_rate(optimizers: list[torch.optim.Optimizer], learning_rate: float) -> None:
    """Set the learning rate of all parameters."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate


def batches(users: np.ndarray, size: int, shuffle: np.random.Generator) -> list[np.ndarray]:
    """Batches of `size` users, in random order."""
    mixed = shuffle.permutation(users)
    return [mixed[start : start + size] for start in range(0, len(mixed), size)]


def gather_rows(
    table: Callable[[Tensor], Tensor], wanted: list[Tensor], negatives: Tensor
) -> tuple[list[Tensor], Tensor]:
    """Gather all rows that a batch needs at once, for one dense gradient of the table instead of five."""
    every = [*wanted, negatives]
    *rows, negative_rows = torch.split(table(torch.cat(every)), [len(w) for w in every])
    return rows, negative_rows


@torch.no_grad()
def mean_rows(model: Create, histories: Histories) -> torch.Tensor:
    """Initial user rows of an increment, [U, d]: the mean of each user's item rows; 0 for a user without items."""
    items, starts = torch.from_numpy(histories.items), torch.from_numpy(histories.indptr[:-1])
    return F.embedding_bag(items, model.items.weight, starts, mode="mean")
