"""CREATE and its rivals on recorded interactions: `python -m benchmarks.quality.global_temporal --help`.

The protocol is that of `anabranch evaluate --protocol global-temporal`. Events up to the 0.9 quantile of time
are for learning. The whole catalogue is ranked. Fusion weights are chosen on the newest events, which the model has not
learned then (model/fusion_weights/fit_weights.py). All trained variants have the settings chosen on validation data,
except the settings in their names.

Each (data set, variant, seed) is a job on one thread. Its figures and ranks are written to --out. `python -m
benchmarks.quality.pack` merges them into `benchmarks/results/quality`.
"""

import argparse
import json
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import msgspec
import numpy as np
import torch

from benchmarks.ablations import transfer_views
from benchmarks.ablations.graph_forms import PAPER_WEIGHTS, degree_weights, half_life
from benchmarks.ablations.likeliest_weights import likeliest
from benchmarks.ablations.scalable_cross_entropy import scalable
from benchmarks.quality.rank_archive import write_loose
from model.encoders.create import Create
from model.encoders.histories import to_histories
from model.evaluation.global_temporal import (
    SPLIT_QUANTILE,
    CountScorer,
    ModelScorer,
    RankedTests,
    Split,
    SplitScorer,
    breadth,
    ranked_tests,
    rivals,
    split_stream,
)
from model.evaluation.recorded_stream import as_events
from model.fusion_weights import conditional_logit
from model.fusion_weights.conditional_logit import PROBABILITY_FLOOR, RIDGE
from model.fusion_weights.fit_weights import choose_fusion
from model.fusion_weights.holdout import Holdout, split_holdout
from model.learning.cycle import CycleInput, CycleSettings, run_cycle
from model.learning.experiment import NO_EXPERIMENT, Experiment
from model.learning.trained import Trained
from model.learning.training import Schedule, mean_rows, train
from model.metrics import Ranks, summary
from model.ranking.fusion import MODEL_ONLY, Fusion, Signal
from model.settings import ModelSettings, RankingSettings, TrainingSettings
from state.settings import StateSettings
from stream.operate.event_files import read_interactions

Settings = dict[str, Any]
DATASETS = ("amazon-beauty", "amazon-sports")
SEEDS = 3
DAY_S = 86_400.0
MODEL_SETTINGS: Settings = {"dropout": 0.6}
SASREC_TRAINING: Settings = {"holdout_events": 0, "last_epochs": 0, "epochs": 60}
SASREC_TRAINING |= {"warm_up_epochs": 0, "w_global": 0.0, "w_transfer": 0.0}
CREATE_TRAINING: Settings = {"holdout_events": 0, "last_epochs": 0, "epochs": 33}
CREATE_TRAINING |= {"warm_up_epochs": 20, "w_global": 0.0, "w_transfer": 0.1}
FOR_SECONDS = {10: (5, (6, 3)), 20: (10, (12, 6)), 40: (20, (20, 14)), 80: (40, (20, 33)), 160: (80, (20, 72))}
"""By seconds on Beauty: about as many epochs of SASRec, and of CREATE's warm-up and joint training."""

RETUNED = "dropout 0.5, rate 0.003"
"""The best settings of CREATE on three seeds of validation data (`benchmarks/results/quality/tuning.txt`)."""
VARIANTS: dict[str, tuple[Settings, Settings]] = {
    "SASRec": ({}, SASREC_TRAINING),
    "BERT4Rec": (
        {"sequence_encoder": "bert4rec", "mask_share": 0.5, "dropout": 0.4},
        SASREC_TRAINING | {"epochs": 400, "learning_rate": 2e-3},
    ),
    "BERT4Rec, 60 epochs": ({"sequence_encoder": "bert4rec"}, SASREC_TRAINING),
    "CREATE": ({}, CREATE_TRAINING),
    f"CREATE, {RETUNED}": ({"dropout": 0.5}, CREATE_TRAINING | {"learning_rate": 3e-3}),
    f"SASRec, {RETUNED}": ({"dropout": 0.5}, SASREC_TRAINING | {"learning_rate": 3e-3}),
    "CREATE, no transfer": ({}, CREATE_TRAINING | {"w_transfer": 0.0}),
    "CREATE, joint graph loss": ({}, CREATE_TRAINING | {"w_global": 0.3}),
    "CREATE, joint graph loss, no transfer": ({}, CREATE_TRAINING | {"w_global": 0.3, "w_transfer": 0.0}),
    "CREATE, joint graph loss, InfoNCE": ({}, CREATE_TRAINING | {"w_global": 0.3, "transfer": "infonce"}),
    "CREATE, 512 users a batch": ({}, CREATE_TRAINING | {"batch_users": 512}),
    "CREATE, InfoNCE": ({}, CREATE_TRAINING | {"transfer": "infonce"}),
    "CREATE, LightGCN": ({}, CREATE_TRAINING | {"graph_encoder": "lightgcn"}),
    "CREATE, LightGCN, InfoNCE": ({}, CREATE_TRAINING | {"graph_encoder": "lightgcn", "transfer": "infonce"}),
    "CREATE, LightGCN, no transfer": ({}, CREATE_TRAINING | {"graph_encoder": "lightgcn", "w_transfer": 0.0}),
    "CREATE, random position": ({}, CREATE_TRAINING),
    "CREATE, item rows": ({}, CREATE_TRAINING),
    "CREATE, item rows x3": ({}, CREATE_TRAINING | {"w_transfer": 0.3}),
    "CREATE, item rows, InfoNCE": ({}, CREATE_TRAINING | {"transfer": "infonce"}),
    "CREATE, degree weights": ({}, CREATE_TRAINING),
    "CREATE, graph not moved": ({}, CREATE_TRAINING),
    "CREATE, sequence not moved": ({}, CREATE_TRAINING),
    "CREATE, off-diagonal x10": ({}, CREATE_TRAINING | {"off_diagonal": 0.05}),
    "CREATE, off-diagonal x0.1": ({}, CREATE_TRAINING | {"off_diagonal": 0.0005}),
    "CREATE, transfer x10": ({}, CREATE_TRAINING | {"w_transfer": 1.0}),
    "CREATE, graph half-life 180 days": ({}, CREATE_TRAINING),
    "CREATE, table 0.05": ({}, CREATE_TRAINING),
    "CREATE, table 0.5": ({}, CREATE_TRAINING),
    "CREATE, users' rows as fast as items'": ({}, CREATE_TRAINING),
    "CREATE, 12 + 15 epochs": ({}, CREATE_TRAINING | {"warm_up_epochs": 12, "epochs": 15}),
    "CREATE, 12 + 15 epochs, dropout 0.4": ({"dropout": 0.4}, CREATE_TRAINING | {"warm_up_epochs": 12, "epochs": 15}),
    "CREATE, warm-up 0": ({}, CREATE_TRAINING | {"warm_up_epochs": 0}),
    "CREATE, warm-up 10": ({}, CREATE_TRAINING | {"warm_up_epochs": 10}),
    "CREATE, warm-up 50": ({}, CREATE_TRAINING | {"warm_up_epochs": 50}),
    "CREATE, d=128": ({"dim": 128}, CREATE_TRAINING),
    "SASRec, d=128": ({"dim": 128}, SASREC_TRAINING),
    "SASRec, common defaults": (
        {"init_std": 0.02, "layers": 2, "dropout": 0.2},
        SASREC_TRAINING | {"learning_rate": 1e-3},
    ),
    "SASRec, init 0.02": ({"init_std": 0.02}, SASREC_TRAINING),
    "SASRec, init 0.3": ({"init_std": 0.3}, SASREC_TRAINING),
    "SASRec, full softmax": ({}, SASREC_TRAINING | {"loss": "full", "epochs": 30}),
    "SASRec, scalable": ({}, SASREC_TRAINING),
    **{f"SASRec, {t} s": ({}, SASREC_TRAINING | {"epochs": n}) for t, (n, _) in FOR_SECONDS.items()},
    "SASRec, 40 s, lazily": ({}, SASREC_TRAINING | {"epochs": FOR_SECONDS[40][0], "lazy_items": 0}),
    "CREATE, 40 s, lazily": ({}, CREATE_TRAINING | {"warm_up_epochs": 20, "epochs": 14, "lazy_items": 0}),
    **{
        f"CREATE, {t} s": ({}, CREATE_TRAINING | {"warm_up_epochs": w, "epochs": n})
        for t, (_, (w, n)) in FOR_SECONDS.items()
        if (w, n) != (CREATE_TRAINING["warm_up_epochs"], CREATE_TRAINING["epochs"])
    },
}
"""Variants trained on all events before the split. No fusion weights are chosen: the model ranks alone."""
EXPERIMENTS = {
    "CREATE, random position": Experiment(transfer_views=transfer_views.random_position),
    "CREATE, item rows": Experiment(transfer_views=transfer_views.next_item),
    "CREATE, item rows x3": Experiment(transfer_views=transfer_views.next_item),
    "CREATE, item rows, InfoNCE": Experiment(transfer_views=transfer_views.next_item),
    "CREATE, degree weights": Experiment(graph_encoder=degree_weights(PAPER_WEIGHTS)),
    "CREATE, graph not moved": Experiment(transfer_views=transfer_views.graph_not_moved),
    "CREATE, sequence not moved": Experiment(transfer_views=transfer_views.sequence_not_moved),
    "CREATE, graph half-life 180 days": Experiment(graph_encoder=half_life(180 * DAY_S)),
    "CREATE, table 0.05": Experiment(table_std=0.05),
    "CREATE, table 0.5": Experiment(table_std=0.5),
    "CREATE, users' rows as fast as items'": Experiment(user_learning_rate=0.005),
    "SASRec, scalable": Experiment(item_loss=scalable()),
    "UltraGCN": Experiment(graph_encoder=half_life(180 * DAY_S)),
}
"""Parts of training that these variants replace. They are no better, so the product has no settings for them."""

SERVED: dict[str, Settings] = {
    "SASRec + live graph": SASREC_TRAINING | {"holdout_events": 2000, "epochs": 20, "last_epochs": 40},
    "CREATE + live graph": CREATE_TRAINING | {"holdout_events": 2000, "epochs": 10, "last_epochs": 23},
}
"""Variants trained like a served version: the newest events are held out until the fusion weights are chosen."""
SIGNAL_BY_SIGNAL = "CREATE + live graph, signal by signal"
SERVED[SIGNAL_BY_SIGNAL] = SERVED["CREATE + live graph"] | {"epochs": 33, "last_epochs": 0}
"""Rows that never learn the held-out events. A model that has learned them would get too much weight on them."""
SHORT_EVENTS = 5
"""Maximum number of events in a short history."""

GRAPH_ALONE: dict[str, Settings] = {
    "UltraGCN": CREATE_TRAINING | {"warm_up_epochs": 50},
    "LightGCN": CREATE_TRAINING | {"warm_up_epochs": 100, "graph_encoder": "lightgcn"},
}
"""The graph encoders alone. A user's row is the mean of the user's item rows, so new users can be ranked for."""

UNTRAINED_SETTINGS: dict[str, dict[str, float]] = {
    "amazon-sports": {"recent_s": 30 * DAY_S, "transitions_age_decay": 0.7, "knn_age_decay": 0.9},
}
"""Settings of untrained rivals that differ from the product's, chosen on validation data of the data set."""


class Job(NamedTuple):
    """One training, or all untrained rivals together (variant None)."""

    path: str
    variant: str | None
    seed: int
    validation: bool


class Outcome(NamedTuple):
    """The result of a job: ranked tests by row and by `filtered` or `unfiltered`, and facts about the training."""

    job: Job
    tested: dict[str, dict[str, RankedTests]]
    facts: dict[str, Any]


def report_bad_line(line: int, reason: str) -> None:
    """Print the number of a line that is left out, and the reason."""
    print(f"line {line} {reason}", file=sys.stderr)


def dataset_of(path: str) -> str:
    """The name of a data set: that of its file."""
    return Path(path).name.removesuffix(".csv.gz")


def load(path: str, state: StateSettings | None = None, *, validation: bool = False) -> Split:
    """The split of one data set. For validation the learning part is split again and the rest is dropped."""
    users, items, ts = read_interactions(path, report_bad_line)
    events, names = as_events(users, items, ts)
    if validation:
        events = events[events["ts"] <= np.quantile(events["ts"], SPLIT_QUANTILE)]
    return split_stream(events, names, SPLIT_QUANTILE, state or StateSettings())


def run(job: Job) -> Outcome:
    """Run one job, on one thread."""
    torch.set_num_threads(1)
    split = load(job.path, validation=job.validation)
    if job.variant is None:
        settings = UNTRAINED_SETTINGS.get(dataset_of(job.path), {})
        found = {
            name: ranked_tests(split, CountScorer(split, scorer)) for name, scorer in rivals(split, **settings).items()
        }
        return Outcome(job, found, {"tests": len(split.targets), "last": int(split.last.sum()), "cold": split.cold})
    if job.variant in GRAPH_ALONE:
        experiment = EXPERIMENTS.get(job.variant, NO_EXPERIMENT)
        tested, facts = graph_alone(split, GRAPH_ALONE[job.variant], job.seed, experiment)
        return Outcome(job, {job.variant: tested}, facts)
    of_model, of_training = VARIANTS[job.variant] if job.variant in VARIANTS else ({}, SERVED[job.variant])
    training, ranking, state = without_time_limit(of_training), RankingSettings(), StateSettings()
    started = time.monotonic()
    trained = train_before_split(split, of_model, training, job.seed, EXPERIMENTS.get(job.variant, NO_EXPERIMENT))
    seconds = time.monotonic() - started
    rows = {job.variant: (MODEL_ONLY, False)}
    if job.variant in SERVED:
        rows = served_rows(
            job.variant, trained, Holdout(*split_holdout(split.past, training.holdout_events), state), ranking
        )
    scorers: dict[str, SplitScorer] = {
        name: ModelScorer(split, trained, fusion, ranking, live=live) for name, (fusion, live) in rows.items()
    }
    found = {name: ranked_tests(split, scorer) for name, scorer in scorers.items()}
    facts = {
        "train_s": round(trained.metrics["train_s"] + trained.metrics["last_s"], 1),
        "learn_s": round(seconds, 1),
        "parameters": sum(p.numel() for p in trained.model.parameters()),
        "fusion": msgspec.to_builtins(trained.fusion),
    }
    return Outcome(job, found, facts)


def without_time_limit(of_training: Settings) -> TrainingSettings:
    """Training settings with a time limit that no training reaches, so that epochs end it."""
    return msgspec.convert(of_training | {"max_train_s": 10_000.0}, TrainingSettings)


def train_before_split(
    split: Split, of_model: Settings, training: TrainingSettings, seed: int, experiment: Experiment = NO_EXPERIMENT
) -> Trained:
    """A model trained on the events before the split."""
    model = msgspec.convert(MODEL_SETTINGS | of_model, ModelSettings)
    settings = CycleSettings(model, training, RankingSettings(), StateSettings())
    return run_cycle(None, CycleInput(split.past, split.names, split.graph.rows, seed), settings, experiment=experiment)


def served_rows(
    variant: str, trained: Trained, holdout: Holdout, ranking: RankingSettings
) -> dict[str, tuple[Fusion, bool]]:
    """The rows of a served version: fusion weights, and whether the graph is live."""

    def chosen(
        *without: Signal, floor: float = PROBABILITY_FLOOR, ridge: float = RIDGE, search: bool = True
    ) -> tuple[Fusion, bool]:
        likeliest_or_searched = nullcontext() if search else likeliest()
        with mock.patch.multiple(conditional_logit, PROBABILITY_FLOOR=floor, RIDGE=ridge), likeliest_or_searched:
            return choose_fusion(holdout, trained.model, trained.vocabulary, ranking, without=without), True

    if variant == SIGNAL_BY_SIGNAL:
        without = (Signal.EVIDENCE, Signal.POPULARITY, Signal.REPEAT)
        rows = {f"CREATE + live graph, no {signal.name.lower()}": chosen(signal) for signal in without}
        rows["CREATE + live graph, newest events not learned"] = (trained.fusion, True)
        rows["CREATE + live graph, weights not placed"] = chosen(search=False)
        rows["CREATE + live graph, likeliest weights"] = chosen(floor=0.0, search=False)
        rows["CREATE + live graph, nothing known before"] = chosen(ridge=0.2)
        return rows
    name = variant.removesuffix(" + live graph")
    rows = {
        f"{name} as served": (MODEL_ONLY, False),
        variant: (trained.fusion, True),
        f"{name} + graph as at the split": (trained.fusion, False),
    }
    if name == "SASRec":
        rows["live graph alone"] = chosen(Signal.MODEL)
    return rows


def graph_alone(
    split: Split, of_training: Settings, seed: int, experiment: Experiment
) -> tuple[dict[str, RankedTests], dict[str, Any]]:
    """Tests and facts of a graph encoder alone."""
    training = without_time_limit(of_training)
    torch.manual_seed(seed)
    net = Create(len(split.vocabulary), msgspec.convert(MODEL_SETTINGS, ModelSettings))
    spent = train(
        net, to_histories(split.past, split.vocabulary), training,
        Schedule(
            epochs=0, learning_rate=1e-3, seed=seed, warm_up_epochs=training.warm_up_epochs, from_scratch=True
        ),
        experiment=experiment,
    )  # fmt: skip
    table = net.items.weight.detach()
    tested = ranked_tests(split, CountScorer(split, lambda histories: mean_rows(net, histories) @ table.T))
    return tested, {"train_s": round(spent.seconds, 1), "parameters": table.numel()}


def scores(ranks: dict[str, Ranks], last: np.ndarray) -> dict[str, dict[str, float]]:
    """Metrics for last and successive targets, with seen items filtered and unfiltered."""
    return {
        f"{target}, {seen}": summary(found[last] if target == "last" else found)
        for target in ("last", "successive")
        for seen, found in ranks.items()
    }


def main() -> None:
    """Run the jobs and write each result when it is ready."""
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("--data", type=Path, default=Path(os.environ.get("ANABRANCH_DATASETS", "../shared/data")))
    parse.add_argument("--datasets", nargs="+", default=list(DATASETS))
    parse.add_argument("--variants", nargs="+", default=[*VARIANTS, *SERVED, *GRAPH_ALONE])
    parse.add_argument("--seeds", type=int, default=SEEDS)
    parse.add_argument("--first-seed", type=int, default=0)
    parse.add_argument("--validation", action="store_true", help="test on the last tenth of the learning part")
    parse.add_argument("--out", type=Path, default=Path("build/quality"))
    parse.add_argument("--processes", type=int, default=os.cpu_count())
    arguments = parse.parse_args()
    if unknown := set(arguments.variants) - VARIANTS.keys() - SERVED.keys() - GRAPH_ALONE.keys():
        sys.exit(f"unknown variant {sorted(unknown)}; known are {', '.join([*VARIANTS, *SERVED, *GRAPH_ALONE])}")
    arguments.out.mkdir(parents=True, exist_ok=True)
    paths = {name: str(arguments.data / f"{name}.csv.gz") for name in arguments.datasets}
    missing = [path for path in paths.values() if not Path(path).exists()]
    if missing:
        sys.exit(f"data set {missing[0]} not found: set --data or ANABRANCH_DATASETS to the folder of the data sets")
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
    jobs = [Job(path, None, 0, arguments.validation) for path in paths.values()]
    jobs += [
        Job(p, variant, seed, arguments.validation)
        for seed in seeds
        for variant in arguments.variants
        for p in paths.values()
    ]
    with ProcessPoolExecutor(arguments.processes) as pool:
        for future in as_completed([pool.submit(run, job) for job in jobs]):
            try:
                record(future.result(), arguments.out)
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise


def record(outcome: Outcome, folder: Path) -> None:
    """Append a job's figures to FOLDER/DATASET.jsonl and write its ranks (benchmarks/quality/rank_archive.py)."""
    name = dataset_of(outcome.job.path)
    split = load(outcome.job.path, validation=outcome.job.validation)
    with (folder / f"{name}.jsonl").open("a") as lines:
        for variant, tested in outcome.tested.items():
            ranks = {seen: ranked.ranks for seen, ranked in tested.items()}
            found = scores(ranks, split.last)
            line = {"variant": variant, "seed": outcome.job.seed, "scores": found} | outcome.facts
            line["breadth"] = {seen: breadth(split, ranked.shown) for seen, ranked in tested.items()}
            lines.write(json.dumps(line) + "\n")
            figures_text = ", ".join(f"{where} {100 * figures['ndcg@10']:.2f}%" for where, figures in found.items())
            print(f"{name}, {variant}, seed {outcome.job.seed}: NDCG@10 {figures_text}", flush=True)
            write_loose(folder, name, (variant, outcome.job.seed), ranks)


if __name__ == "__main__":
    main()
