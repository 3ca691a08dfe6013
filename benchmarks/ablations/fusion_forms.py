"""Other forms of the live graph's word, and of its weights: `python -m benchmarks.ablations.fusion_forms`.

Of one model, that has not learned the events the weights are chosen on, and one live graph, on validation data (what
is for learning is split once more; the tests of `benchmarks.quality.global_temporal` are not there). Every form is a
conditional logit
over more words than the product's four, the user's own repetitions placed as the product places them:

    the model alone       w = 0
    two-hop               what goes with what goes with the user's newest items, a word of its own
    by length of history  each word's weight is linear in the log of the history's length
    by age of item        ... in the log of the item's age, the time since its first click
    by the model's word   ... in how sure the model is, its largest share in a softmax
    gate                  ... in all three
    everything            the gate, and two-hop with it

The graph knows what came before each test and nothing of it. Prints NDCG@10 in percent of every later event, and each
form's lead over one number a word, with a 95% interval from a bootstrap over users.
"""

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import torch
from torch import Tensor

from benchmarks.quality.global_temporal import SERVED, WORD_BY_WORD, learned, load, settled
from model.encoders.histories import to_histories
from model.evaluation.global_temporal import SEEN, Split, ranked_batch
from model.fusion_weights.conditional_logit import ChoiceSets, fit
from model.fusion_weights.holdout import (
    REPEAT,
    Holdout,
    eligible_items,
    sample_alternatives,
    slice_sequences,
    split_holdout,
)
from model.fusion_weights.ndcg_search import best_weight
from model.fusion_weights.timed_batches import AT_ONCE, batches
from model.learning.trained import Trained
from model.metrics import Ranks, gains, lead
from model.ranking.fusion import INITIAL_FUSION
from model.ranking.graph_evidence import SHARPNESS
from model.ranking.ranker import Ranker
from model.settings import RankingSettings
from state.events import Ids
from state.graph import MemoryGraph
from state.sequences import Sequences
from state.settings import StateSettings

FIRST_HOP = 20
"""Items of the first hop that speak on, those that are spoken for most."""
WORDS = 4
"""Model, repeat, popularity, evidence; the two-hop word comes fifth."""


class Said(NamedTuple):
    """What every word says, and what its weight may depend on, of a batch of users."""

    signals: Tensor
    """[5, B, n + 1]."""
    length: Tensor
    """[B] log of the history's length."""
    age: Tensor
    """[n + 1] log of the item's age in days."""
    sure: Tensor
    """[B] the model's largest share in a softmax."""


Form = Callable[[Said], Tensor]
ALONE = "the model alone"


def times(words: Tensor, *by: Tensor) -> Tensor:
    """The words, and the words times each of these, [F, B, n + 1]."""
    return torch.cat([words, *(words * part for part in by)])


FORMS: dict[str, Form] = {
    "one number a word": lambda said: said.signals[:WORDS],
    ALONE: lambda said: said.signals[:1],
    "two-hop": lambda said: said.signals,
    "by length of history": lambda said: times(said.signals[:WORDS], said.length[:, None]),
    "by age of item": lambda said: times(said.signals[:WORDS], said.age),
    "by the model's word": lambda said: times(said.signals[:WORDS], said.sure[:, None]),
    "gate": lambda said: times(said.signals[:WORDS], said.length[:, None], said.age, said.sure[:, None]),
    "everything": lambda said: times(said.signals, said.length[:, None], said.age, said.sure[:, None]),
}


class Speaker:
    """Asks one model and one graph."""

    def __init__(self, trained: Trained, past: Sequences, ranking: RankingSettings) -> None:
        self._trained = trained
        settings = msgspec.structs.replace(ranking, because=False, fresh_items=0)
        self.ranking = Ranker(trained.model, trained.vocabulary, trained.fusion, settings)
        self._before = trained.fusion.before
        self._first = np.full(len(trained.vocabulary) + 1, np.iinfo(np.int64).max)
        np.minimum.at(self._first, trained.vocabulary.lookup(past.steps["item"]), past.steps["ts"])

    @torch.no_grad()
    def said(self, part: Sequences, graph: MemoryGraph, now: int) -> Said:
        """What is said to these users at this time, ms."""
        words = self.ranking.signals(part, graph)
        days = np.maximum(now - self._first, 0) / 86_400_000
        return Said(
            torch.cat([words, self._two_hop(words[3], graph)[None]]),
            torch.from_numpy(np.log1p(np.diff(part.indptr))).float() - 1.5,
            torch.from_numpy(np.log1p(days)).float() / 3.0 - 2.0,
            torch.softmax(words[0], 1).amax(1).log() / 3.0 + 1.0,
        )

    def _two_hop(self, evidence: Tensor, graph: MemoryGraph) -> Tensor:
        """[B, n + 1] log(1 + 50 Σ_k t_k c(k, j) / √n_j), k the items of the first hop, t_k what is said for them."""
        loud, at = (torch.expm1(evidence) / SHARPNESS).topk(FIRST_HOP, dim=1)
        known, inverse = np.unique(at.numpy(), return_inverse=True)
        hashes = np.concatenate([np.zeros(1, np.uint64), self._trained.vocabulary.hashes])
        rows = graph.rows(hashes[known])
        counts = rows.after + np.float32(self._before) * rows.before
        scaled = counts / np.sqrt(np.maximum(counts.sum(1), 1e-9))[:, None]
        nodes = self._trained.vocabulary.lookup(rows.nodes)
        degree = np.maximum(graph.rows(hashes).degree, 1.0)
        found = torch.zeros(len(evidence), len(hashes))
        inverse = inverse.reshape(at.shape)
        for hop in range(FIRST_HOP):
            said = torch.from_numpy(scaled[inverse[:, hop]]) * loud[:, hop : hop + 1]
            found.scatter_add_(1, torch.from_numpy(nodes[inverse[:, hop]]), said)
        found[:, 0] = 0.0
        return torch.log1p(SHARPNESS * found * torch.from_numpy(degree).rsqrt())


def choice_sets(speaker: Speaker, holdout: Holdout, trained: Trained) -> dict[str, ChoiceSets]:
    """What each form's words say of held-out events' targets and of what could have come instead."""
    draw = torch.Generator().manual_seed(0)
    words: dict[str, list[Tensor]] = {name: [] for name in FORMS}
    corrections = []
    for tests, arrived, graph in holdout.batches(len(trained.vocabulary)):
        speaker.ranking.update(arrived)
        part = slice_sequences(holdout.sequences, tests.start, tests.stop)
        targets = torch.from_numpy(trained.vocabulary.lookup(holdout.targets[tests]))
        said = speaker.said(part, graph, int(holdout.times[tests.start]))
        possible = eligible_items(part, trained.vocabulary, RankingSettings())
        of_forms = {name: form(said) for name, form in FORMS.items()}
        for at in (targets > 0).nonzero()[:, 0].tolist():
            items, correction = sample_alternatives(targets[at], possible[at], list(said.signals[:WORDS, at]), draw)
            corrections.append(correction)
            for name, of_form in of_forms.items():
                words[name].append(of_form[:, at, items].T)
    padded = torch.nn.utils.rnn.pad_sequence(corrections, batch_first=True, padding_value=-torch.inf)
    return {
        name: ChoiceSets(torch.nn.utils.rnn.pad_sequence(parts, batch_first=True), padded)
        for name, parts in words.items()
    }


def chosen(known: dict[str, ChoiceSets]) -> dict[str, Tensor]:
    """Each form's weights; what the product's words weighed before is known of the first four."""
    prior = [INITIAL_FUSION.model, INITIAL_FUSION.repeat, INITIAL_FUSION.popularity, INITIAL_FUSION.evidence]
    found = {}
    for name, of_form in known.items():
        if name == ALONE:
            found[name] = torch.ones(1)
            continue
        features = of_form.signals.shape[2]
        free, before = torch.ones(features, dtype=torch.bool), torch.zeros(features)
        before[:WORDS] = torch.tensor(prior)
        likeliest, reached = fit(of_form, free, before)
        found[name] = best_weight(of_form, likeliest, REPEAT, INITIAL_FUSION.repeat)
        print(f"{name}: loss {reached:.4f}, weights {[round(w, 2) for w in found[name].tolist()]}", flush=True)
    return found


def tested(speaker: Speaker, cut: Split, weights: dict[str, Tensor]) -> dict[str, dict[str, Ranks]]:
    """Ranks of every test by form, with and without seen items."""
    graph = cut.graph.fork()
    found: dict[str, dict[str, list[Ranks]]] = {name: {seen: [] for seen in SEEN} for name in weights}
    for at, arrived in batches(cut.future, cut.ts, AT_ONCE):
        graph.apply(arrived)
        speaker.ranking.update(arrived)
        part, targets = slice_sequences(cut.tests, at.start, at.stop), cut.targets[at]
        said = speaker.said(part, graph, int(cut.ts[at.start]))
        seen = to_histories(part, cut.vocabulary)
        for name, weight in weights.items():
            scores = torch.einsum("f,fbn->bn", weight, FORMS[name](said))
            for where, tests in ranked_batch(scores, targets, seen).items():
                found[name][where].append(tests.ranks)
    return {name: {where: np.concatenate(parts) for where, parts in ranks.items()} for name, ranks in found.items()}


def beside(found: dict[str, Ranks], base: dict[str, Ranks], users: Ids) -> str:
    """NDCG@10 of these ranks in percent, and their lead over others, with and without seen items."""
    said = []
    for where in ("filtered", "unfiltered"):
        middle, low, high = (100 * part for part in lead(found[where], base[where], users))
        said.append(f"{where} {100 * gains(found[where]).mean():.2f} ({middle:+.1f}% [{low:+.1f}, {high:+.1f}])")
    return "   ".join(said)


def main() -> None:
    """Train, choose, test, print."""
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("--data", type=Path, default=Path(os.environ.get("ANABRANCH_DATASETS", "../shared/data")))
    parse.add_argument("--datasets", nargs="+", default=["amazon-beauty", "amazon-sports"])
    parse.add_argument("--seed", type=int, default=0)
    asked = parse.parse_args()
    torch.set_num_threads(1)
    state, ranking, training = StateSettings(), RankingSettings(), settled(SERVED[WORD_BY_WORD])
    for name in asked.datasets:
        split = load(str(asked.data / f"{name}.csv.gz"), validation=True)
        trained = learned(split, {}, training, asked.seed)
        order = trained.vocabulary.lookup(split.vocabulary.hashes)
        assert (order == np.arange(1, len(order) + 1)).all(), "the split's items have the model's indices"
        holdout = Holdout(*split_holdout(split.past, training.holdout_events), state)
        known = choice_sets(Speaker(trained, split.past, ranking), holdout, trained)
        ranks = tested(Speaker(trained, split.past, ranking), split, chosen(known))
        base = ranks["one number a word"]
        print(
            f"\n{name}, seed {asked.seed}: NDCG@10 of {len(split.targets):,} tests, and the lead over one number a word"
        )
        for form, found in ranks.items():
            print(f"{form:22} {beside(found, base, split.tests.users)}", flush=True)


if __name__ == "__main__":
    main()
