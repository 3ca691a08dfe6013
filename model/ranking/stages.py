"""The k best items for a batch of users, with one version's model and the live graph.

    with a ranker       history → candidate items → features → ranker → filters → top k → reasons
    without one         history → signals → fuse → filters → top k → reasons

`Stages.rank` calls the stages in this order; each stage is a file of this package. The worker, the holdout and the
evaluations all rank with it.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import msgspec
import numpy as np
import torch
from torch import Tensor

from model.encoders.create import Create
from model.encoders.histories import to_histories
from model.encoders.vocabulary import Indices, Vocabulary
from model.ranker.examples import Shown
from model.ranker.network import Ranker, scores_of
from model.ranking import filters
from model.ranking.candidates import Candidates, candidate_items
from model.ranking.catalogue import Catalogue
from model.ranking.context import Context, in_session, neighbours_of
from model.ranking.features import compute
from model.ranking.fusion import Fusion, Signal, is_model_only, uses_ranker
from model.ranking.graph_evidence import (
    EVIDENCE_SHARPNESS,
    NO_ENTRIES,
    REPEAT_SHARPNESS,
    evidence_of,
    newest_items,
    repeats_of,
)
from model.ranking.item_counts import ItemCounts
from model.ranking.reasons import reasons
from model.ranking.signals import NO_CELLS, CellSums, Signals
from model.settings import RankingSettings
from state.events import Floats, Ids, Ints, Records
from state.graph import Rows
from state.kinds import Kinds
from state.sequences import Sequences

NO_ITEMS: Ids = np.empty(0, np.uint64)


class LiveGraph(Protocol):
    """The part of the state that ranking reads, online and offline."""

    def rows(self, items: Ids) -> Rows:
        """Rows of the item-item graph."""

    @property
    def half_lives_s(self) -> tuple[float, ...]:
        """Half-life of a click in each popularity of a row, in seconds of event time."""

    @property
    def kinds(self) -> Kinds:
        """The kinds of events, and what each counts for."""

    @property
    def expires(self) -> bool:
        """Whether events expire. If they do, an item without a click left is not recommended."""


class Ranked(NamedTuple):
    """Recommendations for B users."""

    items: Ids
    """[B, k] best first; 0 = none."""
    scores: Floats
    """[B, k]."""
    because: Ids
    """[B, k, 2] own items of the user that are the reasons; 0 = none."""
    shown: Sequence[Shown | None] = ()
    """[B] the candidate items with their features, if they were asked for; None for a user without a history."""


class Stages:
    """Ranks with one version's model and the live graph."""

    def __init__(
        self,
        model: Create,
        vocabulary: Vocabulary,
        fusion: Fusion,
        settings: RankingSettings,
        ranker: Ranker | None = None,
    ) -> None:
        """Without a `ranker` the fusion ranks, and where settings switch it off."""
        self._model = model.eval()
        self.ranker = ranker if uses_ranker(settings) else None
        """The present ranker. It may be replaced between two rankings."""
        self._settings = settings
        self.fusion = fusion
        """The present weights. They may be replaced between two rankings."""
        self.vocabulary = vocabulary
        table = model.items.weight.detach()
        # Fresh items get their rows from the graph, so there are none where the graph has no weight.
        fresh_items = 0 if is_model_only(settings) else settings.fresh_items
        self._catalogue = Catalogue(vocabulary, table, fresh_items, model.as_scored)
        self._version_items = Catalogue(vocabulary, table, 0)
        self._counts: ItemCounts | None = None
        self._kinds: Kinds | None = None
        self._sums = CellSums()

    @torch.no_grad()
    def rank(
        self,
        sequences: Sequences,
        graph: LiveGraph,
        k: int,
        hidden: Sequence[Ids] = (),
        withdrawn: Ids = NO_ITEMS,
        moments: Ints | None = None,
        *,
        shown: bool = False,
    ) -> Ranked:
        """The k best items for each user. A user without a history gets none (all 0).

        `sequences` hold the steps that count for each user, `hidden` the items that each user has hidden. `withdrawn`
        items are recommended to nobody. `moments` [B] are the event times, ms, of the rankings: those of the users'
        newest steps where they are not given. With `shown` the result has the candidate items and their features.
        """
        if self.ranker is None:
            ranked = self._rank_by_fusion(sequences, graph, k, hidden, withdrawn)
            return ranked._replace(shown=self._candidates(sequences, graph, k, moments)[2].shown()) if shown else ranked
        context, items, scored = self._candidates(sequences, graph, k, moments)
        scores = scores_of(self.ranker, scored.features) if len(items.user) else np.zeros(0, np.float32)
        self._filter(scores, context, items, graph, hidden, withdrawn)
        best, columns = top_k_of(scores, items, context.users, k)
        because = np.zeros((*columns.shape, 2), np.uint64)
        return Ranked(self._catalogue.hashes[columns], best, because, scored.shown() if shown else ())

    def _candidates(
        self, sequences: Sequences, graph: LiveGraph, k: int, moments: Ints | None
    ) -> "tuple[Context, Candidates, ScoredItems]":
        context = self._context(sequences, graph, moments)
        items = candidate_items(context, k)
        features = compute(context, items, self.fusion)
        return context, items, ScoredItems(context, items, features, self._catalogue.hashes)

    def _filter(
        self,
        scores: Floats,
        context: Context,
        items: Candidates,
        graph: LiveGraph,
        hidden: Sequence[Ids],
        withdrawn: Ids,
    ) -> None:
        """Set the scores [M] of items that must not be recommended to -inf."""
        catalogue = self._catalogue
        dropped = np.isin(items.column, catalogue.empty.numpy())
        if len(withdrawn):
            dropped |= np.isin(items.column, catalogue.vocabulary.lookup(withdrawn))
        if graph.expires:
            dropped |= ~context.counts.has_clicks(items.column)
        for row, hidden_items in enumerate(hidden):
            if len(hidden_items):
                dropped |= (items.user == row) & np.isin(items.column, catalogue.vocabulary.lookup(hidden_items))
        if self._settings.filter_seen:
            at, known = items.places(context.steps_user, context.steps_column)
            dropped[at[known]] = True
        scores[dropped] = -np.inf

    def _context(self, sequences: Sequences, graph: LiveGraph, moments: Ints | None) -> Context:
        """Everything that a ranking reads. Fresh items get a column here."""
        catalogue, rows_of = self._catalogue, graph.rows
        history = newest_items(sequences, self._settings.history_items)
        sources = np.unique(history)
        sources = sources[sources != 0]
        rows = rows_of(sources)
        neighbours = neighbours_of(rows, catalogue.columns_or_new(rows.nodes, rows_of))
        history_row = np.where(history != 0, np.searchsorted(sources, history), -1)
        steps_column = catalogue.update(sequences.steps["item"], rows_of)
        lengths = np.diff(sequences.indptr)
        user = np.repeat(np.arange(len(lengths)), lengths)
        age = np.repeat(sequences.indptr[1:], lengths) - 1 - np.arange(len(sequences.steps))
        if moments is None:
            last = np.maximum(sequences.indptr[1:] - 1, 0)
            moments = sequences.steps["ts"][last] if len(sequences.steps) else np.zeros(len(lengths), np.int64)
        encoded = self._model.encode(to_histories(sequences, self.vocabulary)) if self.fusion.model else None
        counts = self._counted(graph, catalogue)
        session = in_session(sequences, user, moments)
        return Context(
            sequences, moments, history, history_row, neighbours, user, steps_column, age, session, self._settings,
            catalogue, counts, encoded,
        )  # fmt: skip

    def _rank_by_fusion(
        self, sequences: Sequences, graph: LiveGraph, k: int, hidden: Sequence[Ids], withdrawn: Ids
    ) -> Ranked:
        """The k best items by the fused score of every item."""
        fusion, catalogue, settings = self.fusion, self._catalogue, self._settings
        history = newest_items(sequences, settings.history_items)
        signals = self._signals(sequences, history, graph, fusion, catalogue, self._sums)
        scores = signals.fuse(fusion)
        filters.drop_columns(scores, catalogue.empty)
        if len(withdrawn):
            filters.drop_columns(scores, torch.from_numpy(catalogue.vocabulary.lookup(withdrawn)))
        filters.drop_hidden(scores, hidden, lambda items: catalogue.columns_or_new(items, graph.rows))
        if graph.expires:
            filters.drop_columns(scores, self._counted(graph, catalogue).unclicked())
        if settings.filter_seen:
            filters.drop_seen(scores, signals.own.user, signals.own.column)
        best, columns = top_k(scores, k, history[:, 0] != 0)
        because = np.zeros((*columns.shape, 2), np.uint64)
        if settings.because:
            because = reasons(history, signals.entries, columns, signals.table, self.vocabulary)
            if len(withdrawn):  # a reason names an item too
                because[np.isin(because, withdrawn)] = 0
        return Ranked(catalogue.hashes[columns], best, because)

    @torch.no_grad()
    def scores(self, sequences: Sequences, graph: LiveGraph) -> Tensor:
        """Scores of every item of the version, [B, n + 1], without filters; -inf for padding and free indices."""
        fusion, catalogue = self.fusion, self._catalogue
        history = newest_items(sequences, self._settings.history_items)
        scores = self._signals(sequences, history, graph, fusion, catalogue, self._sums).fuse(fusion)
        filters.drop_columns(scores, catalogue.empty)
        return scores[:, : len(self.vocabulary) + 1]

    @torch.no_grad()
    def signals(self, sequences: Sequences, graph: LiveGraph, before_shares: Sequence[float] = ()) -> Tensor:
        """The signals of every item of the version, unweighted, [4, B, n + 1] in the order of `Signal`.

        With `before_shares` there is one evidence for each share in place of that of `fusion`: the result is
        [3 + len(before_shares), B, n + 1]. May be called while another thread ranks: no fresh item gets a column.
        """
        history = newest_items(sequences, self._settings.history_items)
        first, *others = before_shares or (self.fusion.before,)
        found = torch.zeros(len(Signal) + len(others), len(history), len(self.vocabulary) + 1)
        every, evidence_alone, sums = Fusion(1.0, 1.0, 1.0, 1.0, first), Fusion(0.0, 1.0, 0.0, 0.0), CellSums()
        self._signals(sequences, history, graph, every, self._version_items, sums).write(found[: len(Signal)])
        for before, dense in zip(others, found[len(Signal) :], strict=True):
            form = msgspec.structs.replace(evidence_alone, before=before)
            self._signals(sequences, history, graph, form, self._version_items, sums).evidence.write(dense)
        return found

    def _signals(
        self, sequences: Sequences, history: Ids, graph: LiveGraph, fusion: Fusion, catalogue: Catalogue, sums: CellSums
    ) -> Signals:
        """The signals that have a weight in `fusion`, for every column of the catalogue. Fresh items get a column here.

        The entries of the evidence are included if only the reasons need them.
        """
        settings, rows_of = self._settings, graph.rows
        entries = NO_ENTRIES
        if fusion.evidence or settings.because:
            # A fresh neighbour gets a column if evidence has a weight: only then can it be recommended.
            items = catalogue if fusion.evidence else self._version_items
            entries = evidence_of(
                history, rows_of, lambda found: items.columns_or_new(found, rows_of), settings.age_decay, fusion.before
            )
        own = repeats_of(sequences, lambda found: catalogue.update(found, rows_of), settings.repeat_decay)
        popularity = self._counted(graph, catalogue) if fusion.popularity or len(entries.user) else None
        shape = torch.Size((len(history), len(catalogue.table)))
        evidence = repeat = NO_CELLS
        if popularity is not None and len(entries.user):
            entries = entries._replace(weight=entries.weight * popularity.damping[entries.column])
            if fusion.evidence:
                evidence = sums.add_log1p(entries.user, entries.column, entries.weight, EVIDENCE_SHARPNESS, shape)
        if fusion.repeat and len(own.user):
            repeat = sums.add_log1p(own.user, own.column, own.weight, REPEAT_SHARPNESS, shape)
        return Signals(
            shape=shape,
            encoded=self._model.encode(to_histories(sequences, self.vocabulary)) if fusion.model else None,
            table=catalogue.table,
            popularity=popularity.signal[: shape[1]] if popularity is not None and fusion.popularity else None,
            repeat=repeat,
            evidence=evidence,
            own=own,
            entries=entries,
        )

    def update(self, events: Records) -> None:
        """Count events that the graph has just applied."""
        if self._counts is not None and self._kinds is not None:  # otherwise the first ranking counts them
            events = events[self._kinds.counts[events["kind"]]]
            columns = self._catalogue.vocabulary.lookup(events["item"])
            self._counts.update(columns, events["ts"], self._kinds.weight[events["kind"]])

    def remove(self, steps: Records) -> None:
        """Subtract steps that were counted before and that the graph has removed."""
        if self._counts is not None and self._kinds is not None and len(steps):
            columns = self._catalogue.vocabulary.lookup(steps["item"])
            self._counts.remove(columns, steps["ts"], self._kinds.weight[steps["kind"]])

    def count_clicks(self, graph: LiveGraph) -> None:
        """Read the clicks of each item from the graph, so that the first ranking does not have to."""
        self._counted(graph, self._catalogue)

    @property
    def clicks_counted(self) -> bool:
        """Whether the clicks of every item of the version are counted."""
        return self._counts is not None and len(self._counts) > len(self.vocabulary)

    def reset_clicks(self) -> None:
        """Count clicks from scratch at the next ranking: the graph or its partitions have changed."""
        self._counts = None

    def _counted(self, graph: LiveGraph, catalogue: Catalogue) -> ItemCounts:
        """Clicks of every column of the catalogue. Clicks of new columns are read from the graph."""
        popularity = self._counts
        if popularity is None:
            popularity, self._kinds = ItemCounts(graph.half_lives_s), graph.kinds
            self._counts = popularity
        if len(popularity) < len(catalogue.hashes):
            popularity.extend(catalogue.hashes[len(popularity) :], graph.rows)
        return popularity


class ScoredItems(NamedTuple):
    """Candidate items with their features."""

    context: Context
    items: Candidates
    features: Floats
    """[M, F]."""
    hashes: Ids
    """[columns] item of each column."""

    def shown(self) -> list[Shown | None]:
        """Per user, for examples."""
        found: list[Shown | None] = [None] * self.context.users
        packed = self.features.astype(np.float16)
        ends = np.append(self.items.starts[1:], len(self.items.user))
        for start, end in zip(self.items.starts.tolist(), ends.tolist(), strict=True):
            row = int(self.items.user[start])
            part = slice(start, end)
            found[row] = Shown(self.hashes[self.items.column[part]], packed[part], int(self.context.moments[row]))
        return found


def top_k_of(scores: Floats, items: Candidates, users: int, k: int) -> tuple[Floats, Indices]:
    """As `top_k`, of the scores [M] of candidate items."""
    best, columns = np.zeros((users, k), np.float32), np.zeros((users, k), np.int64)
    order = np.lexsort((-scores, items.user))
    owner = items.user[order]
    first = np.searchsorted(owner, np.arange(users))
    rank = np.arange(len(order)) - first[owner]
    kept = (rank < k) & np.isfinite(scores[order])
    at = owner[kept], rank[kept]
    best[at], columns[at] = scores[order][kept], items.column[order][kept]
    return best, columns


def top_k(scores: Tensor, k: int, answerable: np.ndarray) -> tuple[Floats, Indices]:
    """Scores and columns of the k best, both [B, k], best first. Column 0 fills a row that has fewer.

    A user who is not `answerable` [B] (bool) gets none.
    """
    best, columns = np.zeros((len(scores), k), np.float32), np.zeros((len(scores), k), np.int64)
    width = min(k, scores.shape[1])
    values, found = torch.topk(scores, width, dim=1)
    real = torch.isfinite(values).numpy() & answerable[:, None]
    best[:, :width] = np.where(real, values.numpy(), 0.0)
    columns[:, :width] = np.where(real, found.numpy(), 0)
    return best, columns
