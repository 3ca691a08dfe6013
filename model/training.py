"""Training, top to bottom: warm the item table up on the graph, then learn sequence, graph and transfer together."""

import math
import time
from typing import NamedTuple

import numpy as np
import torch

from model.barlow_twins import barlow_twins
from model.create import Create
from model.histories import Histories, pack
from model.sampled_softmax import sampled_softmax
from model.settings import TrainingSettings
from model.ultragcn import LazyRows, UltraGCN

GRAPH_STD = 1e-4
"""Both tables begin this small before a first warm-up: UltraGCN grows them from the edges alone."""


class Spent(NamedTuple):
    """What training came to."""

    epochs: int
    seconds: float
    loss: float


def train(
    model: Create,
    histories: Histories,
    settings: TrainingSettings,
    *,
    warm_up_epochs: int,
    epochs: int,
    seed: int,
    fresh: bool,
) -> Spent:
    """Train in place on users' histories; `fresh` begins the item table from the graph alone.

    Deterministic for a seed and a number of threads. Raises FloatingPointError when the loss is no number.
    """
    torch.set_num_threads(settings.threads)
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    shuffle = np.random.default_rng(seed)
    started = time.monotonic()
    table, items = model.items, model.item_count
    users = np.flatnonzero(histories.lengths > 0)
    if not len(users) or items < 2:
        return Spent(0, 0.0, math.nan)
    negatives = min(settings.negatives, items)

    def draw_negatives() -> torch.Tensor:
        return torch.randperm(items, generator=generator)[:negatives] + 1

    def in_time() -> bool:
        return time.monotonic() - started < settings.max_train_s

    # Warm-up: the graph loss alone shapes the item table.
    graph = UltraGCN(histories, items, settings)
    if fresh:
        with torch.no_grad():
            table.weight.normal_(std=GRAPH_STD, generator=generator)
        own_rows = torch.randn(len(histories), table.embedding_dim, generator=generator) * GRAPH_STD
    else:
        own_rows = mean_rows(model, histories)
    user_rows = LazyRows(own_rows, settings.graph_learning_rate)
    optimiser = torch.optim.Adam([table.weight], settings.graph_learning_rate, fused=True)
    for _ in range(warm_up_epochs):
        if not in_time():
            break
        for at in batches(users, settings.batch_users, shuffle):
            edges, drawn = graph.edges(at, generator), draw_negatives()
            leaf = user_rows.rows[at].requires_grad_()
            rows = table(torch.cat([edges.item, edges.neighbour, drawn]))
            item_rows, beside, negative_rows = rows.split([len(edges.item), len(edges.neighbour), negatives])
            optimiser.zero_grad()
            graph.loss(edges, at, leaf, item_rows, beside, negative_rows).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            user_rows.step(torch.from_numpy(at), leaf)
    if fresh:
        with torch.no_grad():
            scale = settings.table_std / table.weight[1:].std()
            if warm_up_epochs and torch.isfinite(scale):
                table.weight *= scale
                user_rows.rows *= scale
            else:
                table.weight.normal_(std=model.settings.init_std, generator=generator)
            table.weight[0] = 0.0

    # Joint steps. Each history predicts its next item at every position.
    user_rows.learning_rate = settings.user_learning_rate
    user_rows.forget()
    newest = histories.newest(model.settings.sequence_events + 1)
    learners = np.flatnonzero(newest.lengths > 1)
    optimiser = torch.optim.AdamW(model.parameters(), settings.learning_rate, weight_decay=0.0, fused=True)
    loss_value, epoch = math.nan, 0
    for epoch in range(epochs if len(learners) else 0):
        if not in_time():
            break
        model.train()
        for group in optimiser.param_groups:
            group["lr"] = settings.learning_rate * 0.5 * (1 + math.cos(math.pi * epoch / (epochs * 1.1)))
        losses = []
        for at in batches(learners, settings.batch_users, shuffle):
            inputs, targets = split_last(newest.take(at))
            packed, positive, drawn = pack(inputs), torch.from_numpy(targets), draw_negatives()
            edges = graph.edges(at, generator)
            leaf = user_rows.rows[at].requires_grad_()
            # One gather of every row the batch needs: one dense gradient of the table instead of five.
            wanted = [packed.items, positive, drawn, edges.item, edges.neighbour]
            tokens, positive_rows, negative_rows, item_rows, beside = table(torch.cat(wanted)).split(
                [len(w) for w in wanted]
            )
            encoded = model.sequence(tokens, packed)
            loss = sampled_softmax(encoded[packed.tokens], positive_rows, positive, negative_rows, drawn, items)
            if settings.w_global:
                loss = loss + settings.w_global * graph.loss(edges, at, leaf, item_rows, beside, negative_rows)
            if settings.w_transfer:
                transfer = barlow_twins(encoded[packed.last], leaf, settings.off_diagonal)
                loss = loss + settings.w_transfer * transfer
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            user_rows.step(torch.from_numpy(at), leaf)
            losses.append(loss.detach())
        loss_value = torch.stack(losses).mean().item()
        if not math.isfinite(loss_value):
            raise FloatingPointError(f"the training loss is {loss_value} after {epoch + 1} epochs")
    with torch.no_grad():
        table.weight[0] = 0.0
    model.eval()
    return Spent(epoch + 1, time.monotonic() - started, loss_value)


def batches(users: np.ndarray, size: int, shuffle: np.random.Generator) -> list[np.ndarray]:
    """The users in a new order, `size` at a time."""
    mixed = shuffle.permutation(users)
    return [mixed[start : start + size] for start in range(0, len(mixed), size)]


def split_last(histories: Histories) -> tuple[Histories, np.ndarray]:
    """Inputs (all but each last item) and, aligned with their tokens, targets (all but each first)."""
    lengths = histories.lengths - 1
    indptr = np.concatenate([[0], np.cumsum(lengths)])
    at = np.arange(indptr[-1]) + np.repeat(histories.indptr[:-1] - indptr[:-1], lengths)
    return Histories(indptr, histories.items[at]), histories.items[at + 1]


@torch.no_grad()
def mean_rows(model: Create, histories: Histories) -> torch.Tensor:
    """A user row to begin an increment from: the mean of the user's item rows, [U, d]."""
    rows = torch.zeros(len(histories), model.settings.dim)
    user = torch.from_numpy(np.repeat(np.arange(len(histories)), histories.lengths))
    rows.index_add_(0, user, model.items(torch.from_numpy(histories.items)))
    return rows / torch.from_numpy(histories.lengths).clamp(min=1)[:, None]
