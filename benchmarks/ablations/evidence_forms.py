"""Forms of the live graph's evidence, on validation data: `python -m benchmarks.ablations.evidence_forms`.

One CREATE model is tested with live graphs that count and score in different ways. It has not learned the events on
which the fusion weights are chosen. The weights are chosen for each form. Prints NDCG@10 in percent over the events of
the validation data (`benchmarks.quality.global_temporal --validation`), and the lead of each form over the served form,
with a 95% interval from a bootstrap over users.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import NamedTuple
from unittest import mock

import torch

from benchmarks.ablations.fusion_forms import parse_arguments, with_lead
from benchmarks.quality.global_temporal import (
    DAY_S,
    SERVED,
    SIGNAL_BY_SIGNAL,
    load,
    train_before_split,
    without_time_limit,
)
from model.evaluation.global_temporal import ModelScorer, ranked_tests
from model.fusion_weights.choice_sets import BEFORE_SHARES, build_choice_sets
from model.fusion_weights.fit_weights import fit_fusion
from model.fusion_weights.holdout import Holdout, split_holdout
from model.metrics import Ranks, gains
from model.ranking.fusion import INITIAL_FUSION, MODEL_ONLY
from model.ranking.graph_evidence import EVIDENCE_SHARPNESS
from model.ranking.item_counts import ItemCounts
from model.settings import RankingSettings
from state.events import Floats, Ints
from state.settings import StateSettings

SEEN_ITEMS = ("filtered", "unfiltered")


class Form(NamedTuple):
    """Differences from the served form."""

    state: StateSettings = StateSettings()
    ranking: RankingSettings = RankingSettings()
    before: tuple[float, ...] = BEFORE_SHARES
    sharpness: float = EVIDENCE_SHARPNESS
    damped: bool = True


FORMS = {
    "as served": Form(),
    "directed only: what came after": Form(before=(0.0,)),
    "half of what came before": Form(before=(0.5,)),
    "both directions alike": Form(before=(1.0,)),
    "pairs within 1 step": Form(state=StateSettings(pair_window_events=1)),
    "pairs within 3 steps": Form(state=StateSettings(pair_window_events=3)),
    "pairs within 10 steps": Form(state=StateSettings(pair_window_events=10)),
    "pairs within 10, 64 neighbours": Form(state=StateSettings(pair_window_events=10, neighbours_per_item=64)),
    "pairs half in 30 days": Form(state=StateSettings(pair_half_life_s=30 * DAY_S)),
    "pairs half in 90 days": Form(state=StateSettings(pair_half_life_s=90 * DAY_S)),
    "pairs never less": Form(state=StateSettings(pair_half_life_s=100 * 365 * DAY_S)),
    "popularity half in a day": Form(state=StateSettings(popularity_half_life_s=DAY_S)),
    "popularity half in 30 days": Form(state=StateSettings(popularity_half_life_s=30 * DAY_S)),
    "newest 3 items count": Form(ranking=RankingSettings(history_items=3)),
    "newest 30 items count": Form(ranking=RankingSettings(history_items=30)),
    "an older item counts 0.6 a step": Form(ranking=RankingSettings(age_decay=0.6)),
    "an older item counts 0.9 a step": Form(ranking=RankingSettings(age_decay=0.9)),
    "no correction for popularity": Form(damped=False),
    "log(1 + 5 x)": Form(sharpness=5.0),
    "log(1 + 500 x)": Form(sharpness=500.0),
}


@contextmanager
def evidence_of(form: Form) -> Iterator[None]:
    """Context in which evidence is computed in this form."""
    refresh = ItemCounts._refresh

    def undamped(self: ItemCounts, columns: Ints, signal: torch.Tensor, damping: Floats) -> None:
        refresh(self, columns, signal, damping)
        damping[columns] = columns > 0

    damping = nullcontext() if form.damped else mock.patch.object(ItemCounts, "_refresh", undamped)
    with mock.patch("model.ranking.stages.EVIDENCE_SHARPNESS", form.sharpness), damping:
        yield


def main() -> None:
    """Train once, then count, choose weights, test and print for each form."""
    arguments = parse_arguments(__doc__)
    training = without_time_limit(SERVED[SIGNAL_BY_SIGNAL])
    for name in arguments.datasets:
        path = str(arguments.data / f"{name}.csv.gz")
        split = load(path, validation=True)
        trained = train_before_split(split, {}, training, arguments.seed)
        alone = ranked_tests(split, ModelScorer(split, trained, MODEL_ONLY, RankingSettings(), live=False))
        print(f"\n{name}, seed {arguments.seed}: {len(split.targets):,} tests")
        print(f"{'no evidence: w = 0':34}", *(f"{w} {100 * gains(alone[w].ranks).mean():.2f}" for w in SEEN_ITEMS))
        served: dict[str, Ranks] = {}
        for form_name, form in FORMS.items():
            with evidence_of(form):
                split = load(path, form.state, validation=True)
                tests = Holdout(*split_holdout(split.past, training.holdout_events), form.state)
                known = build_choice_sets(tests, trained.model, trained.vocabulary, form.ranking)
                fusion = fit_fusion(known, form.before, form.ranking, INITIAL_FUSION)
                found = ranked_tests(split, ModelScorer(split, trained, fusion, form.ranking))
            ranks = {where: of_tests.ranks for where, of_tests in found.items()}
            served = served or ranks
            print(f"{form_name:34} {with_lead(ranks, served, split.tests.users)}   before {fusion.before}", flush=True)


if __name__ == "__main__":
    main()
