"""The k best items for a batch of users, with one version's model and the live graph.

    with a ranker       context → sources → candidate items → features → ranker → filters → list → reasons
    without one         history → signals → fusion → filters → list → reasons

`Stages.rank` calls the stages in this order; each stage is a file of this package. The worker, the holdout and the
evaluations all rank with it.
"""

from collections.abc import Sequence
from functools import partial
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
from model.ranking.candidates import Candidates, candidate_items
from model.ranking.catalogue import Catalogue
from model.ranking.context import Context, read_context
from model.ranking.features import compute
from model.ranking.filters import Rules, drop_candidates, drop_scores
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
from model.ranking.lists import best_candidates, best_of_all, fill
from model.ranking.reason_kinds import KindsOfReasons
from model.ranking.reasons import evidence_strengths, link_strengths, no_reasons, reasons
from model.ranking.shown import shown_of
from model.ranking.signals import NO_CELLS, CellSums, Signals
from model.ranking.why import why_of_fusion, why_of_ranker
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
    why: KindsOfReasons
    """[B, k] the kinds of the reasons (`Why`)."""
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
        self._catalogue = Catalogue(vocabulary, table, fresh_items, model.as_scored, model.graph_table)
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
        ranker, catalogue, settings, fusion = self.ranker, self._catalogue, self._settings, self.fusion
        if ranker is None:
            ranked = self._rank_by_fusion(sequences, graph, k, hidden, withdrawn)
            if not shown:
                return ranked
            return ranked._replace(shown=self.shown(sequences, graph, k, hidden, withdrawn, moments))
        context, items, features = self._candidates(sequences, graph, k, moments)
        scores = scores_of(ranker, features)
        rules = self._rules(graph, hidden, withdrawn, context.steps_user, context.steps_column)
        drop_candidates(scores, items, rules)
        examples = shown_of(context, items, features, np.isfinite(scores)) if shown else ()
        best, columns, at = best_candidates(scores, items, context.users, k)
        fill(best, columns, context, items, rules)
        because, why = no_reasons(columns)
        if settings.because:
            strengths = link_strengths(context, items, at, fusion.before)
            because = reasons(context.history, strengths, columns, catalogue.table, self.vocabulary, withdrawn)
            why = why_of_ranker(ranker, features, items, at, columns, fusion)
        return Ranked(catalogue.hashes[columns], best, because, why, examples)

    @torch.no_grad()
    def shown(
        self,
        sequences: Sequences,
        graph: LiveGraph,
        k: int,
        hidden: Sequence[Ids] = (),
        withdrawn: Ids = NO_ITEMS,
        moments: Ints | None = None,
    ) -> Sequence[Shown | None]:
        """The candidate items of each user with their features, as of `rank`, without a ranking of them."""
        context, items, features = self._candidates(sequences, graph, k, moments)
        scores = np.zeros(len(items.keys), np.float32)
        drop_candidates(scores, items, self._rules(graph, hidden, withdrawn, context.steps_user, context.steps_column))
        return shown_of(context, items, features, np.isfinite(scores))

    def _candidates(
        self, sequences: Sequences, graph: LiveGraph, k: int, moments: Ints | None
    ) -> tuple[Context, Candidates, Floats]:
        """What a ranking reads, the candidate items, and their features [M, F]."""
        catalogue, fusion = self._catalogue, self.fusion
        encode, counted = self._model.encode if fusion.model else None, partial(self._counted, graph, catalogue)
        context = read_context(sequences, moments, graph.rows, catalogue, self._settings, counted, encode)
        items = candidate_items(context, k)
        return context, items, compute(context, items, fusion)

    def _rank_by_fusion(
        self, sequences: Sequences, graph: LiveGraph, k: int, hidden: Sequence[Ids], withdrawn: Ids
    ) -> Ranked:
        """The k best items by the fused score of every item."""
        fusion, catalogue = self.fusion, self._catalogue
        history = newest_items(sequences, self._settings.history_items)
        signals = self._signals(sequences, history, graph, fusion, catalogue, self._sums)
        scores = signals.fuse(fusion)
        drop_scores(scores, self._rules(graph, hidden, withdrawn, signals.own.user, signals.own.column))
        best, columns = best_of_all(scores, k, history[:, 0] != 0)
        because, why = no_reasons(columns)
        if self._settings.because:
            strengths = evidence_strengths(history, signals.entries, columns, len(signals.table))
            why = why_of_fusion(signals, fusion, catalogue.mean_row, strengths, columns)
            because = reasons(history, strengths, columns, signals.table, self.vocabulary, withdrawn)
        return Ranked(catalogue.hashes[columns], best, because, why)

    def _rules(
        self, graph: LiveGraph, hidden: Sequence[Ids], withdrawn: Ids, users: Indices, columns: Indices
    ) -> Rules:
        """`users` and `columns` are those of the users' steps."""
        catalogue, seen = self._catalogue, slice(None if self._settings.filter_seen else 0)
        return Rules(
            hashes=catalogue.hashes,
            columns_of=catalogue.vocabulary.lookup,
            counts=self._counted(graph, catalogue) if graph.expires else None,
            withdrawn=withdrawn,
            hidden=hidden,
            seen_user=users[seen],
            seen_column=columns[seen],
        )

    @torch.no_grad()
    def scores(self, sequences: Sequences, graph: LiveGraph) -> Tensor:
        """Scores of every item of the version, [B, n + 1], without filters; -inf for padding and free indices."""
        fusion, catalogue = self.fusion, self._catalogue
        history = newest_items(sequences, self._settings.history_items)
        scores = self._signals(sequences, history, graph, fusion, catalogue, self._sums).fuse(fusion)
        scores.index_fill_(1, catalogue.empty, -torch.inf)
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
