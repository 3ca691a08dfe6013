"""Training, top to bottom: warm the item table up on the graph, then learn sequence, graph and transfer together."""

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
from model.encoders.histories import Histories, Packed, pack
from model.encoders.vocabulary import Indices
from model.losses.barlow_twins import barlow_twins
from model.losses.distillation import Distillation
from model.losses.infonce import infonce
from model.losses.item_loss import item_loss, name_of_loss
from model.settings import TrainingSettings

NOBODY: Indices = np.empty(0, np.int64)
GRAPH_STD = 1e-4
"""Both tables begin this small before a first warm-up: UltraGCN grows them from the edges alone."""


class Spent(NamedTuple):
    """What training came to."""

    epochs: int
    """Joint ones."""
    seconds: float
    loss: float


def train(
    model: Create,
    histories: Histories,
    settings: TrainingSettings,
    *,
    warm_up_epochs: int,
    epochs: int,
    learning_rate: float,
    seed: int,
    fresh: bool,
    distillation: Distillation | None = None,
    replayed: Indices = NOBODY,
    progress: Callable[[float], None] = lambda _share: None,
) -> Spent:
    """Train in place on users' histories; `fresh` begins the item table from the graph alone.

    `distillation` holds the joint epochs to what a champion said. Of the users in `replayed` each joint epoch learns
    another share, so that each is learned once; all others are learned in every epoch.

    `learning_rate` is the first of the joint epochs'; it falls as half a cosine.

    Deterministic for a seed and a number of threads, unless `max_train_s` ends it. Raises FloatingPointError when the
    loss is no number.
    """
    torch.set_num_threads(settings.threads)
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    shuffle = np.random.default_rng(seed)
    started = time.monotonic()
    table, items, encoder = model.items, model.item_count, model.sequence
    users = np.flatnonzero(histories.lengths > 0)
    if not len(users) or items < 2:
        return Spent(0, 0.0, math.nan)
    negatives = min(settings.negatives, items)
    lazy = moves_lazily(settings, items)
    table.sparse = lazy

    def draw_negatives() -> torch.Tensor:
        return torch.randperm(items, generator=generator)[:negatives] + 1

    def in_time() -> bool:
        return time.monotonic() - started < settings.max_train_s

    ties = settings.w_global > 0 or settings.w_transfer > 0
    speaks = warm_up_epochs > 0 or ties
    # Warm-up: the graph loss alone shapes the item table.
    if fresh:
        with torch.no_grad():
            table.weight.normal_(std=GRAPH_STD, generator=generator)
        user_rows = torch.randn(len(histories), table.embedding_dim, generator=generator) * GRAPH_STD
    elif speaks:
        user_rows = mean_rows(model, histories)
    graph = graph_encoder(histories, table, user_rows, settings) if speaks else None
    all_epochs = max(warm_up_epochs + epochs, 1)
    if graph is not None:
        movers = optimisers(table, [], settings.graph_learning_rate, lazy=lazy)
        for epoch in range(warm_up_epochs):
            if not in_time():
                break
            progress(epoch / all_epochs)
            for at in batches(users, settings.batch_users, shuffle):
                edges, drawn = graph.draw(at, generator), draw_negatives()
                rows, negative_rows = gathered(table, edges.wanted, drawn)
                step(graph.loss(edges, rows, drawn, negative_rows)[0], model, movers, graph)
    if fresh:
        begin_table(model, graph if warm_up_epochs else None, settings.table_std, generator)

    # Joint steps: what comes next, the graph, and that both views of a user agree.
    tied = graph if ties else None
    if tied is not None:
        tied.users.begin(settings.user_learning_rate)
    limit = model.settings.sequence_events
    learners = np.flatnonzero(histories.lengths > 1)
    every_epoch, once = np.setdiff1d(learners, replayed), shuffle.permutation(np.intersect1d(learners, replayed))
    loss_of_items = item_loss(settings, items)
    movers = optimisers(table, list(encoder.parameters()), learning_rate, lazy=lazy)
    loss_value, done = math.nan, 0
    for epoch in range(epochs if len(learners) else 0):
        if not in_time():
            break
        progress((warm_up_epochs + epoch) / all_epochs)
        model.train()
        for group in [group for mover in movers for group in mover.param_groups]:
            group["lr"] = learning_rate * 0.5 * (1 + math.cos(math.pi * epoch / (epochs * 1.1)))
        taken = np.concatenate([every_epoch, once[epoch::epochs]])
        done += 1
        if not len(taken):
            continue
        total, steps = torch.zeros(()), batches(taken, settings.batch_users, shuffle)
        for at in steps:
            examples = encoder.examples(histories.take(at), limit, shuffle)
            packed, targets, drawn = pack(examples.inputs), torch.from_numpy(examples.targets), draw_negatives()
            edges = tied.draw(at, generator) if tied is not None and settings.w_global else None
            wanted = [packed.items, targets, *(edges.wanted if edges else [])]
            (tokens, target_rows, *graph_rows), negative_rows = gathered(model.rows, wanted, drawn)
            encoded = encoder(tokens, packed)
            predicting = encoded[packed.tokens[torch.from_numpy(examples.predicted)]]
            loss = loss_of_items(predicting, targets, target_rows, drawn, negative_rows, model)
            if tied is not None and edges:
                graph_loss, users_view = tied.loss(edges, graph_rows, drawn, negative_rows)
                loss = loss + settings.w_global * graph_loss
            if tied is not None and settings.w_transfer:
                if settings.transfer_view == "item":
                    views = predicting, tied.item_view(targets, generator)
                else:
                    local_view = encoded[viewed(packed, examples.inputs, settings, shuffle)]
                    views = local_view, users_view if edges else tied.view(at)
                loss = loss + settings.w_transfer * transfer(*views, settings)
            if distillation is not None:
                loss = loss + distillation.loss(model, len(at), drawn, shuffle)
            step(loss, model, movers, tied)
            total += loss.detach()  # kept one by one, small ones between large ones would leave the heap in pieces
        loss_value = total.item() / len(steps)
        if not math.isfinite(loss_value):
            raise FloatingPointError(f"the training loss is {loss_value} after {done} epochs")
    with torch.no_grad():
        if model.settings.row_length:
            table.weight.copy_(model.table())
        table.weight[0] = 0.0
    table.sparse = False
    model.eval()
    return Spent(done, time.monotonic() - started, loss_value)


@torch.no_grad()
def begin_table(model: Create, warmed: GraphEncoder | None, std: float, generator: torch.Generator) -> None:
    """Set what the joint steps begin from: the rows the warm-up made, scaled to `std`; without one, rows at random."""
    rows = model.items.weight
    scale = std / warmed.item_rows()[1:].std() if warmed is not None else torch.tensor(math.inf)
    if warmed is not None and torch.isfinite(scale):
        rows.copy_(warmed.item_rows() * scale)
        warmed.users.scale(scale)
    else:
        rows.normal_(std=model.settings.init_std, generator=generator)
    rows[0] = 0.0


def step(loss: Tensor, model: Create, movers: list[torch.optim.Optimizer], graph: GraphEncoder | None) -> None:
    """One step down the gradient of the loss."""
    model.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    for mover in movers:
        mover.step()
    if graph is not None:
        graph.step()


def moves_lazily(settings: TrainingSettings, items: int) -> bool:
    """Whether a step moves only the item rows that its batch touches, and not the whole table."""
    return items > settings.lazy_items and name_of_loss(settings, items) != "full" and not touches_every_row(settings)


def optimisers(
    table: nn.Embedding, others: list[nn.Parameter], learning_rate: float, *, lazy: bool
) -> list[torch.optim.Optimizer]:
    """What moves the item table and the other weights: Adam, of which the lazy form leaves untouched rows alone.

    Lazily without momentum: it would go on carrying a row for ten steps after a touch, and is cut off where the row
    is seldom touched.
    """
    if not lazy:
        return [torch.optim.AdamW([table.weight, *others], learning_rate, weight_decay=0.0, fused=True)]
    found: list[torch.optim.Optimizer] = [torch.optim.SparseAdam([table.weight], learning_rate, betas=(0.0, 0.999))]
    if others:
        found.append(torch.optim.AdamW(others, learning_rate, weight_decay=0.0, fused=True))
    return found


def batches(users: np.ndarray, size: int, shuffle: np.random.Generator) -> list[np.ndarray]:
    """The users in a new order, `size` at a time."""
    mixed = shuffle.permutation(users)
    return [mixed[start : start + size] for start in range(0, len(mixed), size)]


def gathered(table: Callable[[Tensor], Tensor], wanted: list[Tensor], negatives: Tensor) -> tuple[list[Tensor], Tensor]:
    """Rows of all that a batch needs in one gather: one dense gradient of the table instead of five."""
    every = [*wanted, negatives]
    *rows, negative_rows = torch.split(table(torch.cat(every)), [len(w) for w in every])
    return rows, negative_rows


def viewed(packed: Packed, inputs: Histories, settings: TrainingSettings, draw: np.random.Generator) -> Tensor:
    """Where each user's local view lies on the token axis: at the newest item, or at one drawn."""
    if settings.transfer_view == "last":
        return packed.last
    drawn = inputs.indptr[:-1] + draw.integers(0, inputs.lengths)
    return packed.tokens[torch.from_numpy(drawn)]


def transfer(local_view: Tensor, global_view: Tensor, settings: TrainingSettings) -> Tensor:
    """The transfer loss between the two views [B, d] of the same users (or items)."""
    if settings.transfer_stops_at == "graph":
        global_view = global_view.detach()
    elif settings.transfer_stops_at == "sequence":
        local_view = local_view.detach()
    if settings.transfer == "infonce":
        return infonce(local_view, global_view, settings.temperature)
    return barlow_twins(local_view, global_view, settings.off_diagonal)


@torch.no_grad()
def mean_rows(model: Create, histories: Histories) -> torch.Tensor:
    """A user row to begin an increment from: the mean of the user's item rows, [U, d]; 0 without items."""
    items, starts = torch.from_numpy(histories.items), torch.from_numpy(histories.indptr[:-1])
    return F.embedding_bag(items, model.items.weight, starts, mode="mean")
