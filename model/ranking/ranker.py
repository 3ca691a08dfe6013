"""The top k for a batch of users: s = w_m · E h_u + w_t · t + w_r · r + w_p · p.

The model's word, and the live graph's: item-item evidence t and the user's own repeats r
(`model.ranking.graph_evidence`), and what
is clicked now, p (`model.ranking.popularity`).

`because`: for each recommended item the one or two of the user's newest items that speak most for it in the graph's
evidence; where the graph is silent, those whose embeddings point most in the item's direction.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch

from model.encoders.create import Create
from model.encoders.histories import Histories, to_histories
from model.encoders.vocabulary import Vocabulary
from model.ranking.catalogue import Catalogue, RowsOf
from model.ranking.fusion import Fusion, is_model_only
from model.ranking.graph_evidence import SHARPNESS, Spoken, newest_items, repeats, speak
from model.ranking.popularity import Popularity
from model.settings import RankingSettings
from state.events import Floats, Ids, Records
from state.graph import Rows
from state.kinds import Kinds
from state.sequences import Sequences


class LiveGraph(Protocol):
    """What the ranking asks of the state, online and offline."""

    def rows(self, items: Ids) -> Rows:
        """Rows of the item-item graph."""

    @property
    def popularity_half_life_s(self) -> float:
        """Event time after which a click counts half in the rows' popularity."""

    @property
    def kinds(self) -> Kinds:
        """What each event counts for."""

    @property
    def forgets(self) -> bool:
        """Whether an item without a click has expired, and is not to be recommended."""


class Ranked(NamedTuple):
    """The answer for B users."""

    items: Ids
    """[B, k] best first, 0 = none."""
    scores: Floats
    """[B, k]."""
    because: Ids
    """[B, k, 2] items of the user's own, 0 = none."""


class Scored(NamedTuple):
    """Scores of a batch, and what went into them."""

    scores: torch.Tensor
    """[B, columns of the catalogue]."""
    history: Ids
    """[B, H] newest items, newest first."""
    spoken: Spoken | None
    columns: np.ndarray
    """Columns of what was spoken for."""
    user: np.ndarray
    own: np.ndarray
    """Rows and columns of the users' own items."""


class Ranker:
    """Ranks with one version's model and the live graph."""

    def __init__(self, model: Create, vocabulary: Vocabulary, fusion: Fusion, settings: RankingSettings) -> None:
        self._model = model.eval()
        self._settings = settings
        self.fusion = fusion
        """The weights now; they may be replaced between two rankings."""
        self.vocabulary = vocabulary
        # An item the version does not know has its row from the graph: none where the graph is to say nothing.
        fresh_items = 0 if is_model_only(settings) else settings.fresh_items
        self._catalogue = Catalogue(vocabulary, model.items.weight.detach(), fresh_items, model.as_scored)
        self._popularity: Popularity | None = None
        self._kinds: Kinds | None = None
        self._scratch = torch.zeros(0)

    def update(self, events: Records) -> None:
        """Take in events that the graph has just taken in."""
        if self._popularity is not None and self._kinds is not None:  # else counted with the rest, at first ranking
            events = events[self._kinds.counts[events["kind"]]]
            columns = self._catalogue.vocabulary.lookup(events["item"])
            self._popularity.add(columns, events["ts"], self._kinds.weight[events["kind"]])

    def remove(self, steps: Records) -> None:
        """Count no longer what the graph has lost: steps that counted before."""
        if self._popularity is not None and self._kinds is not None and len(steps):
            columns = self._catalogue.vocabulary.lookup(steps["item"])
            self._popularity.remove(columns, steps["ts"], self._kinds.weight[steps["kind"]])

    def count_clicks(self, graph: LiveGraph) -> None:
        """Read from the graph how often each item was clicked; the first ranking would."""
        self._counted(graph)

    @property
    def clicks_counted(self) -> bool:
        """Whether clicks have been counted, so that `words` need not."""
        return self._popularity is not None and len(self._popularity) > len(self.vocabulary)

    def reset_clicks(self) -> None:
        """Count clicks anew at the next ranking: the graph is another, or speaks for other partitions."""
        self._popularity = None

    @torch.no_grad()
    def rank(self, sequences: Sequences, graph: LiveGraph, k: int, hidden: Sequence[Ids] = ()) -> Ranked:
        """The k best items for each user; a user nothing speaks for gets none (all 0).

        `sequences` hold what counts for the user, `hidden` what each does not want to see.
        """
        scored = self._scored(sequences, graph)
        for row, items in enumerate(hidden):
            if len(items):
                columns = self._catalogue.columns(items, graph.rows)
                scored.scores[row, torch.from_numpy(columns[columns < scored.scores.shape[1]])] = -torch.inf
        if graph.forgets:
            unclicked = self._counted(graph).unclicked()
            scored.scores[:, unclicked[unclicked < scored.scores.shape[1]]] = -torch.inf
        if self._settings.filter_seen:
            scored.scores[torch.from_numpy(scored.user), torch.from_numpy(scored.own)] = -torch.inf
        best, found = torch.topk(scored.scores, min(k, scored.scores.shape[1]), dim=1)
        return self._ranked(scored.history, scored.spoken, scored.columns, best, found, k)

    @torch.no_grad()
    def scores(self, sequences: Sequences, graph: LiveGraph) -> torch.Tensor:
        """Scores of every item, [B, n + 1], by index of the vocabulary; -inf for padding. Seen items are scored too."""
        return self._scored(sequences, graph).scores[:, : len(self.vocabulary) + 1]

    @torch.no_grad()
    def signals(self, sequences: Sequences, graph: LiveGraph) -> torch.Tensor:
        """What each word says of every item of the vocabulary, unweighted: model, repeat, popularity, evidence.

        [4, B, n + 1]. May be called while another thread ranks: no fresh item gets a column, nothing is kept.
        """
        columns = len(self.vocabulary) + 1
        popularity = self._popularity
        if popularity is None or not self.clicks_counted:
            popularity = self._counted(graph)
        said = torch.zeros(4, len(sequences.users), columns)
        said[0] = self._model.encode(to_histories(sequences, self.vocabulary)) @ self._catalogue.table[:columns].T
        said[2] = popularity.word[:columns]
        users, own, weights = repeats(sequences, self._settings.repeat_decay)
        _hear(said[1], users, self.vocabulary.lookup(own), weights, 1.0)
        history = newest_items(sequences, self._settings.history_items)
        known = np.unique(history)
        known = known[known != 0]
        if len(known):
            spoken = speak(history, known, graph.rows(known), self._settings.age_decay, self.fusion.before)
            at = self.vocabulary.lookup(spoken.item)
            _hear(said[3], spoken.user, at, spoken.weight * popularity.damping[at], SHARPNESS)
        said[:, :, 0] = 0.0
        return said

    def _scored(self, sequences: Sequences, graph: LiveGraph) -> Scored:
        fusion, catalogue, rows_of = self.fusion, self._catalogue, graph.rows
        histories = to_histories(sequences, self.vocabulary)
        history = newest_items(sequences, self._settings.history_items)
        spoken, columns = self._spoken(history, rows_of)
        users, own, weights = repeats(sequences, self._settings.repeat_decay)
        own_columns = catalogue.touched(own, rows_of) if len(own) else np.zeros(0, np.int64)
        popularity = self._counted(graph) if spoken is not None or fusion.popularity else None
        scores = self._begun(histories, popularity)
        if spoken is not None and popularity is not None:
            spoken = spoken._replace(weight=spoken.weight * popularity.damping[columns])
            self._add(scores, spoken.user, columns, spoken.weight, SHARPNESS, fusion.evidence)
        if fusion.repeat:
            self._add(scores, users, own_columns, weights, 1.0, fusion.repeat)
        scores.index_fill_(1, catalogue.empty, -torch.inf)
        return Scored(scores, history, spoken, columns, users, own_columns)

    def _begun(self, histories: Histories, popularity: Popularity | None) -> torch.Tensor:
        """What the model and popularity say of every column: one matrix product."""
        fusion, table = self.fusion, self._catalogue.table
        said = fusion.popularity * popularity.word if popularity is not None and fusion.popularity else None
        if not fusion.model:
            said = torch.zeros(len(table)) if said is None else said
            return said.repeat(len(histories), 1)
        h = self._model.encode(histories) * fusion.model
        return h @ table.T if said is None else torch.addmm(said, h, table.T)

    def _counted(self, graph: LiveGraph) -> Popularity:
        """Clicks of every column; those met since the last ranking are read from the graph."""
        if self._popularity is None:
            self._popularity, self._kinds = Popularity(graph.popularity_half_life_s), graph.kinds
        popularity, hashes = self._popularity, self._catalogue.hashes
        if len(popularity) < len(hashes):
            popularity.extend(hashes[len(popularity) :], graph.rows)
        return popularity

    def _spoken(self, history: Ids, rows_of: RowsOf) -> tuple[Spoken | None, np.ndarray]:
        nothing = np.zeros(0, np.int64)
        if not self.fusion.evidence and not self._settings.because:
            return None, nothing
        known = np.unique(history)
        known = known[known != 0]
        if not len(known):
            return None, nothing
        rows = rows_of(known)
        spoken = speak(history, known, rows, self._settings.age_decay, self.fusion.before)
        columns = (
            self._catalogue.columns(spoken.item, rows_of)
            if self.fusion.evidence
            else (self.vocabulary.lookup(spoken.item))
        )
        return spoken, columns

    def _add(
        self,
        scores: torch.Tensor,
        users: np.ndarray,
        columns: np.ndarray,
        weights: Floats,
        sharp: float,
        weight: float,
    ) -> None:
        """scores += weight · log(1 + sharp · Σ weights), touching only the cells that have any."""
        if not weight or not len(columns):
            return
        if self._scratch.numel() < scores.numel():
            self._scratch = torch.zeros(scores.numel())
        cells = torch.from_numpy(users * scores.shape[1] + columns)
        self._scratch.index_add_(0, cells, torch.from_numpy(weights))
        heard = self._scratch[cells]
        # A cell met twice is set twice to the same value.
        flat = scores.view(-1)
        flat[cells] = flat[cells] + weight * torch.log1p(sharp * heard)
        self._scratch[cells] = 0.0

    def _ranked(
        self,
        history: Ids,
        spoken: Spoken | None,
        columns: np.ndarray,
        best: torch.Tensor,
        found: torch.Tensor,
        k: int,
    ) -> Ranked:
        items = np.zeros((len(history), k), np.uint64)
        scores = np.zeros((len(history), k), np.float32)
        width = found.shape[1]
        real = torch.isfinite(best).numpy() & (history[:, :1] != 0)
        items[:, :width] = np.where(real, self._catalogue.hashes[found.numpy()], 0)
        scores[:, :width] = np.where(real, best.numpy(), 0.0)
        because = np.zeros((len(history), k, 2), np.uint64)
        if self._settings.because:
            because[:, :width] = self._because(history, spoken, columns, found.numpy())
            because[items == 0] = 0
        return Ranked(items, scores, because)

    def _because(self, history: Ids, spoken: Spoken | None, columns: np.ndarray, found: np.ndarray) -> np.ndarray:
        users, width = found.shape
        steps = history.shape[1]
        voice = np.zeros((users, width, steps), np.float32)
        if spoken is not None and len(columns):
            # Only slots that speak for a recommended item matter: find them by (user, column).
            stride = len(self._catalogue.hashes)
            keys = (np.arange(users)[:, None] * stride + found).ravel()
            order = np.argsort(keys)
            wanted = spoken.user * stride + columns
            place = order[np.minimum(np.searchsorted(keys[order], wanted), len(keys) - 1)]
            hit = np.flatnonzero((keys[place] == wanted) & (columns > 0))
            user, slot = place[hit] // width, place[hit] % width
            step = (history[user] == spoken.source[hit][:, None]).argmax(1)
            np.add.at(voice, (user, slot, step), spoken.weight[hit])
        silent = np.flatnonzero(~np.all(np.any(voice, 2), 1))
        if len(silent):
            # Where the graph says nothing, embeddings speak, quietly (below 1e-3).
            own, table = self.vocabulary.lookup(history[silent]), self._catalogue.table
            rows = _unit(table[torch.from_numpy(found[silent])]), _unit(table[torch.from_numpy(own)])
            voice[silent] += 1e-3 * torch.einsum("bkd,bhd->bkh", *rows).numpy()
        voice[np.broadcast_to(history[:, None, :] == 0, voice.shape)] = -1.0
        # An item that stands twice in the history speaks once.
        for later in range(1, steps):
            repeated = (history[:, :later] == history[:, later : later + 1]).any(1)
            voice[repeated, :, later] = -1.0
        order = np.argsort(-voice, axis=2)[:, :, :2]
        if steps < 2:
            order = np.concatenate([order, order], 2)[:, :, :2]
        said = np.take_along_axis(voice, order, 2)
        chosen = np.take_along_axis(np.broadcast_to(history[:, None, :], voice.shape), order, 2).copy()
        chosen[:, :, 0][said[:, :, 0] < 0] = 0
        # A second reason is given only where it is worth half the first.
        chosen[:, :, 1][(said[:, :, 1] < 0.5 * said[:, :, 0]) | (said[:, :, 1] <= 0) | (steps < 2)] = 0
        return chosen


def _hear(word: torch.Tensor, users: np.ndarray, columns: np.ndarray, weights: Floats, sharp: float) -> None:
    """word [B, columns] = log(1 + sharp · Σ weights)."""
    word.view(-1).index_add_(0, torch.from_numpy(users * word.shape[1] + columns), torch.from_numpy(weights))
    word.mul_(sharp).log1p_()


def _unit(x: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.normalize(x, dim=-1)
