"""Other forms of fusion: `python -m benchmarks.ablations.fusion_forms`.

All forms have the same model and live graph, on validation data (`benchmarks.quality.global_temporal --validation`).
The model has not learned the events on which weights are chosen. Each form is a conditional logit over more signals
than the product's four. The weight of the user's own items is searched as in the product.

    the model alone       w = 0
    two-hop               a fifth signal: neighbours of the neighbours of the user's newest items
    by length of history  each weight is linear in the log of the history's length
    by age of item        each weight is linear in the log of the time since the item's first click
    by confidence         each weight is linear in the model's largest softmax share
    gate                  linear in all three
    everything            the gate, with two-hop

The graph has the events before each test. Prints NDCG@10 in percent over all tests, and the lead of each form over one
number a signal, with a 95% interval from a bootstrap over users.
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

from benchmarks.quality.global_temporal import SERVED, SIGNAL_BY_SIGNAL, load, train_before_split, without_time_limit
from model.encoders.histories import to_histories
from model.evaluation.global_temporal import SEEN_ITEMS, Split, ranked_batch
from model.fusion_weights.choice_sets import eligible_items, sample_alternatives
from model.fusion_weights.conditional_logit import ChoiceSets, fit
from model.fusion_weights.holdout import Holdout, slice_sequences, split_holdout
from model.fusion_weights.ndcg_search import best_weight
from model.fusion_weights.timed_batches import TESTS_PER_BATCH, batches
from model.learning.trained import Trained
from model.metrics import Ranks, gains, lead
from model.ranking.fusion import INITIAL_FUSION, Signal
from model.ranking.graph_evidence import EVIDENCE_SHARPNESS
from model.ranking.stages import Stages
from model.settings import RankingSettings
from state.events import Ids
from state.graph import MemoryGraph
from state.sequences import Sequences
from state.settings import StateSettings

FIRST_HOP_ITEMS = 20
"""The second hop starts at this many items, the items with the most evidence."""
PRODUCT_SIGNALS = 4
"""Number of signals: model, repeat, popularity, evidence. Two-hop evidence is the fifth."""


class FormInputs(NamedTuple):
    """The signals for a batch of users, and the factors of their weights."""

    signals: Tensor
    """[5, B, n + 1] signals."""
    length: Tensor
    """[B] log of the history's length."""
    age: Tensor
    """[n + 1] log of the item's age in days."""
    confidence: Tensor
    """[B] log of the model's largest softmax share, scaled."""


Form = Callable[[FormInputs], Tensor]
ALONE = "the model alone"


def interactions(signals: Tensor, *factors: Tensor) -> Tensor:
    """The signals, and the signals times each factor, [F, B, n + 1]."""
    return torch.cat([signals, *(signals * factor for factor in factors)])


FORMS: dict[str, Form] = {
    "one number a signal": lambda s: s.signals[:PRODUCT_SIGNALS],
    ALONE: lambda s: s.signals[:1],
    "two-hop": lambda s: s.signals,
    "by length of history": lambda s: interactions(s.signals[:PRODUCT_SIGNALS], s.length[:, None]),
    "by age of item": lambda s: interactions(s.signals[:PRODUCT_SIGNALS], s.age),
    "by confidence": lambda s: interactions(s.signals[:PRODUCT_SIGNALS], s.confidence[:, None]),
    "gate": lambda s: interactions(s.signals[:PRODUCT_SIGNALS], s.length[:, None], s.age, s.confidence[:, None]),
    "everything": lambda s: interactions(s.signals, s.length[:, None], s.age, s.confidence[:, None]),
}


class SignalSource:
    """Computes the signals of one model and one graph."""

    def __init__(self, trained: Trained, past: Sequences, ranking: RankingSettings) -> None:
        self._trained = trained
        settings = msgspec.structs.replace(ranking, because=False, fresh_items=0)
        self.ranking = Stages(trained.model, trained.vocabulary, trained.fusion, settings)
        self._before = trained.fusion.before
        self._first = np.full(len(trained.vocabulary) + 1, np.iinfo(np.int64).max)
        np.minimum.at(self._first, trained.vocabulary.lookup(past.steps["item"]), past.steps["ts"])

    @torch.no_grad()
    def signals(self, part: Sequences, graph: MemoryGraph, now: int) -> FormInputs:
        """The signals for these users at this time, ms."""
        signals = self.ranking.signals(part, graph)
        days = np.maximum(now - self._first, 0) / 86_400_000
        return FormInputs(
            torch.cat([signals, self._two_hop(signals[Signal.EVIDENCE], graph)[None]]),
            torch.from_numpy(np.log1p(np.diff(part.indptr))).float() - 1.5,
            torch.from_numpy(np.log1p(days)).float() / 3.0 - 2.0,
            torch.softmax(signals[Signal.MODEL], 1).amax(1).log() / 3.0 + 1.0,
        )

    def _two_hop(self, evidence: Tensor, graph: MemoryGraph) -> Tensor:
        """[B, n + 1] log(1 + 50 Σ_k t_k c(k, j) / √n_j), k the items of the first hop, t_k their evidence."""
        first_hop_evidence, at = (torch.expm1(evidence) / EVIDENCE_SHARPNESS).topk(FIRST_HOP_ITEMS, dim=1)
        known, inverse = np.unique(at.numpy(), return_inverse=True)
        hashes = np.concatenate([np.zeros(1, np.uint64), self._trained.vocabulary.hashes])
        rows = graph.rows(hashes[known])
        counts = rows.after + np.float32(self._before) * rows.before
        scaled = counts / np.sqrt(np.maximum(counts.sum(1), 1e-9))[:, None]
        nodes = self._trained.vocabulary.lookup(rows.nodes)
        degree = np.maximum(graph.rows(hashes).degree, 1.0)
        found = torch.zeros(len(evidence), len(hashes))
        inverse = inverse.reshape(at.shape)
        for hop in range(FIRST_HOP_ITEMS):
            evidence_here = torch.from_numpy(scaled[inverse[:, hop]]) * first_hop_evidence[:, hop : hop + 1]
            found.scatter_add_(1, torch.from_numpy(nodes[inverse[:, hop]]), evidence_here)
        found[:, 0] = 0.0
        return torch.log1p(EVIDENCE_SHARPNESS * found * torch.from_numpy(degree).rsqrt())


def choice_sets(source: SignalSource, holdout: Holdout, trained: Trained) -> dict[str, ChoiceSets]:
    """The signals of each form for the targets of held-out events and their alternatives."""
    draw = torch.Generator().manual_seed(0)
    by_form: dict[str, list[Tensor]] = {name: [] for name in FORMS}
    corrections = []
    for tests, applied, graph in holdout.batches(len(trained.vocabulary)):
        source.ranking.update(applied)
        part = slice_sequences(holdout.sequences, tests.start, tests.stop)
        targets = torch.from_numpy(trained.vocabulary.lookup(holdout.targets[tests]))
        inputs = source.signals(part, graph, int(holdout.times[tests.start]))
        possible = eligible_items(part, trained.vocabulary, RankingSettings())
        of_forms = {name: form(inputs) for name, form in FORMS.items()}
        for at in (targets > 0).nonzero()[:, 0].tolist():
            items, correction = sample_alternatives(
                targets[at], possible[at], list(inputs.signals[:PRODUCT_SIGNALS, at]), draw
            )
            corrections.append(correction)
            for name, of_form in of_forms.items():
                by_form[name].append(of_form[:, at, items].T)
    padded = torch.nn.utils.rnn.pad_sequence(corrections, batch_first=True, padding_value=-torch.inf)
    return {
        name: ChoiceSets(torch.nn.utils.rnn.pad_sequence(parts, batch_first=True), padded)
        for name, parts in by_form.items()
    }


def fit_forms(known: dict[str, ChoiceSets]) -> dict[str, Tensor]:
    """The weights of each form. The first four stay near the product's initial weights."""
    found = {}
    for name, of_form in known.items():
        if name == ALONE:
            found[name] = torch.ones(1)
            continue
        features = of_form.signals.shape[2]
        free, before = torch.ones(features, dtype=torch.bool), torch.zeros(features)
        before[:PRODUCT_SIGNALS] = INITIAL_FUSION.as_tensor()
        likeliest, final_loss = fit(of_form, free, before)
        found[name] = best_weight(of_form, likeliest, Signal.REPEAT, INITIAL_FUSION.repeat)
        print(f"{name}: loss {final_loss:.4f}, weights {[round(w, 2) for w in found[name].tolist()]}", flush=True)
    return found


def rank_tests(source: SignalSource, split: Split, weights: dict[str, Tensor]) -> dict[str, dict[str, Ranks]]:
    """Ranks of every test by form, filtered and unfiltered."""
    graph = split.graph.fork()
    found: dict[str, dict[str, list[Ranks]]] = {name: {seen: [] for seen in SEEN_ITEMS} for name in weights}
    for at, applied in batches(split.future, split.ts, TESTS_PER_BATCH):
        source.ranking.update(graph.apply(applied))
        part, targets = slice_sequences(split.tests, at.start, at.stop), split.targets[at]
        inputs = source.signals(part, graph, int(split.ts[at.start]))
        seen = to_histories(part, split.vocabulary)
        for name, weight in weights.items():
            scores = torch.einsum("f,fbn->bn", weight, FORMS[name](inputs))
            for where, tests in ranked_batch(scores, targets, seen).items():
                found[name][where].append(tests.ranks)
    return {name: {where: np.concatenate(parts) for where, parts in ranks.items()} for name, ranks in found.items()}


def with_lead(found: dict[str, Ranks], base: dict[str, Ranks], users: Ids) -> str:
    """NDCG@10 of these ranks in percent and their lead over `base`, filtered and unfiltered."""
    texts = []
    for where in ("filtered", "unfiltered"):
        middle, low, high = (100 * part for part in lead(found[where], base[where], users))
        texts.append(f"{where} {100 * gains(found[where]).mean():.2f} ({middle:+.1f}% [{low:+.1f}, {high:+.1f}])")
    return "   ".join(texts)


def parse_arguments(description: str | None) -> argparse.Namespace:
    """The arguments of a benchmark of forms; torch computes on one thread from now on."""
    parse = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("--data", type=Path, default=Path(os.environ.get("ANABRANCH_DATASETS", "../shared/data")))
    parse.add_argument("--datasets", nargs="+", default=["amazon-beauty", "amazon-sports"])
    parse.add_argument("--seed", type=int, default=0)
    torch.set_num_threads(1)
    return parse.parse_args()


def main() -> None:
    """Train once, then choose weights, test and print for each form."""
    arguments = parse_arguments(__doc__)
    state, ranking, training = StateSettings(), RankingSettings(), without_time_limit(SERVED[SIGNAL_BY_SIGNAL])
    for name in arguments.datasets:
        split = load(str(arguments.data / f"{name}.csv.gz"), validation=True)
        trained = train_before_split(split, {}, training, arguments.seed)
        order = trained.vocabulary.lookup(split.vocabulary.hashes)
        assert (order == np.arange(1, len(order) + 1)).all(), "the split and the model number the items differently"
        holdout = Holdout(*split_holdout(split.past, training.holdout_events), state)
        known = choice_sets(SignalSource(trained, split.past, ranking), holdout, trained)
        ranks = rank_tests(SignalSource(trained, split.past, ranking), split, fit_forms(known))
        base = ranks["one number a signal"]
        print(
            f"\n{name}, seed {arguments.seed}: NDCG@10 of {len(split.targets):,} tests, lead over one number a signal"
        )
        for form, found in ranks.items():
            print(f"{form:22} {with_lead(found, base, split.tests.users)}", flush=True)


if __name__ == "__main__":
    main()
