"""Settings of the rivals, at most nine for each: `python -m benchmarks.rivals.rival_tuning --help`.

NDCG@10 of successive events with seen items filtered, on validation data
(`benchmarks.quality.global_temporal --validation`).
The best settings on Amazon Beauty are used in `benchmarks.quality.global_temporal` and
`model/evaluation/global_temporal.py`. Untrained rivals have other settings on Amazon Sports: `UNTRAINED_SETTINGS` of
`benchmarks.quality.global_temporal`. CREATE was tried in more forms there.
"""

import argparse
import json
import os
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import torch

from benchmarks.ablations.graph_forms import half_life
from benchmarks.quality.global_temporal import (
    DAY_S,
    EXPERIMENTS,
    GRAPH_ALONE,
    SASREC_TRAINING,
    VARIANTS,
    Settings,
    graph_alone,
    load,
    train_before_split,
    without_time_limit,
)
from model.encoders.histories import to_histories
from model.evaluation.global_temporal import CountScorer, ModelScorer, RankedTests, Split, ranked_tests
from model.evaluation.rivals import HistoryScorer, item_knn, popularity, transitions
from model.learning.experiment import NO_EXPERIMENT, Experiment
from model.metrics import summary
from model.ranking.fusion import MODEL_ONLY
from model.settings import ModelSettings, RankingSettings

SETTINGS_TO_TRY: dict[str, tuple[Settings, ...]] = {
    "SASRec": (
        {},
        {"epochs": 120},
        {"dropout": 0.5},
        {"dropout": 0.7},
        {"layers": 2},
        {"learning_rate": 2e-3},
        {"heads": 1},
        {"negatives": 1024},
        {"dropout": 0.5, "learning_rate": 3e-3},
    ),
    "CREATE": (
        {},
        {"dropout": 0.5},
        {"dropout": 0.4},
        {"learning_rate": 3e-3},
        {"learning_rate": 2e-3},
        {"dropout": 0.5, "learning_rate": 3e-3},
        {"dropout": 0.5, "epochs": 60},
    ),
    "BERT4Rec": (
        {},
        {"epochs": 200},
        {"epochs": 200, "mask_share": 0.15},
        {"epochs": 200, "mask_share": 0.5},
        {"epochs": 200, "dropout": 0.4},
        {"epochs": 200, "learning_rate": 2e-3},
        {"epochs": 200, "layers": 2},
        {"epochs": 400, "mask_share": 0.5, "dropout": 0.4, "learning_rate": 2e-3},
    ),
    "UltraGCN": (
        {},
        {"warm_up_epochs": 20},
        {"warm_up_epochs": 200},
        {"graph_learning_rate": 1e-3, "warm_up_epochs": 200},
        {"negative_weight": 50.0},
        {"item_item_weight": 3.0},
        {"item_item_weight": 100.0},
        {"graph_half_life_s": 180 * DAY_S},
        {"graph_half_life_s": 90 * DAY_S},
    ),
    "LightGCN": (
        {},
        {"warm_up_epochs": 20},
        {"warm_up_epochs": 100},
        {"graph_learning_rate": 1e-3},
        {"graph_learning_rate": 1.6e-2},
        {"lightgcn_layers": 1},
        {"lightgcn_layers": 3},
        {"graph_half_life_s": 180 * DAY_S},
        {"graph_half_life_s": 90 * DAY_S},
    ),
    "item-kNN": tuple({"age_decay": decay} for decay in (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 1.0)),
    "transitions": (
        *({"window": window, "age_decay": 0.0} for window in (1, 5, 10, 50)),
        *({"window": 10, "age_decay": decay} for decay in (0.3, 0.5, 0.7, 0.9)),
    ),
    "recent popularity": tuple({"half_life_s": days * DAY_S} for days in (1, 3, 7, 14, 30, 60, 90, 180)),
}
HALF_LIFE_S = "graph_half_life_s"
"""Not a setting of training, but the half-life of edges in `benchmarks/ablations/graph_forms.py`."""
BERT4REC: tuple[Settings, Settings] = ({"sequence_encoder": "bert4rec"}, SASREC_TRAINING)
"""Settings of BERT4Rec to which those of SETTINGS_TO_TRY are added."""
UNTRAINED_RIVALS = ("item-kNN", "transitions", "recent popularity")


def untrained_scorer(split: Split, rival: str, settings: Settings) -> HistoryScorer:
    """The scorer of an untrained rival with these settings."""
    past, items = to_histories(split.past, split.vocabulary), len(split.vocabulary)
    if rival == "recent popularity":
        return popularity(past, split.past.steps["ts"], items, **settings)
    return (item_knn if rival == "item-kNN" else transitions)(past, items, **settings)


def run_trial(path: str, rival: str, settings: Settings, seed: int) -> dict[str, Any]:
    """The result of a rival with these settings, on one thread. Runs in a separate process."""
    torch.set_num_threads(1)
    tested, facts = ranks_of_rival(load(path, validation=True), rival, settings, seed)
    found = {seen: summary(ranked.ranks)["ndcg@10"] for seen, ranked in tested.items()}
    return {"rival": rival, "settings": settings, "seed": seed, "ndcg@10": found} | facts


def ranks_of_rival(
    split: Split, rival: str, settings: Settings, seed: int
) -> tuple[dict[str, RankedTests], dict[str, Any]]:
    """Ranks and training facts of a rival with these settings."""
    if rival in GRAPH_ALONE:
        of_training = {key: value for key, value in settings.items() if key != HALF_LIFE_S}
        experiment = EXPERIMENTS.get(rival, NO_EXPERIMENT)
        if HALF_LIFE_S in settings:
            experiment = Experiment(graph_encoder=half_life(settings[HALF_LIFE_S]))
        return graph_alone(split, GRAPH_ALONE[rival] | {"warm_up_epochs": 50} | of_training, seed, experiment)
    if rival in UNTRAINED_RIVALS:
        return ranked_tests(split, CountScorer(split, untrained_scorer(split, rival, settings))), {}
    of_model = {key: value for key, value in settings.items() if key in ModelSettings.__struct_fields__}
    of_training = {key: value for key, value in settings.items() if key not in of_model}
    first_model, first_training = BERT4REC if rival == "BERT4Rec" else VARIANTS[rival]
    trained = train_before_split(split, first_model | of_model, without_time_limit(first_training | of_training), seed)
    facts = {"train_s": round(trained.metrics["train_s"], 1)}
    return ranked_tests(split, ModelScorer(split, trained, MODEL_ONLY, RankingSettings(), live=False)), facts


def main() -> None:
    """Try the chosen settings. Print and write a line for each."""
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("--data", type=Path, default=Path(os.environ.get("ANABRANCH_DATASETS", "../shared/data")))
    parse.add_argument("--dataset", default="amazon-beauty")
    parse.add_argument("--rivals", nargs="+", default=list(SETTINGS_TO_TRY), choices=list(SETTINGS_TO_TRY))
    parse.add_argument("--settings", type=int, nargs="+", help="indices of each rival's settings; default: all")
    parse.add_argument("--seeds", type=int, default=1)
    parse.add_argument("--processes", type=int, default=1, help="runs in parallel; more make train_s larger")
    parse.add_argument("--out", type=Path, default=Path("build/rival_tuning.jsonl"))
    arguments = parse.parse_args()
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    path = str(arguments.data / f"{arguments.dataset}.csv.gz")
    jobs = [
        (rival, settings, seed)
        for seed in range(arguments.seeds)
        for rival in arguments.rivals
        for n, settings in enumerate(SETTINGS_TO_TRY[rival])
        if arguments.settings is None or n in arguments.settings
    ]
    with ProcessPoolExecutor(arguments.processes) as pool:
        for future in as_completed([pool.submit(run_trial, path, *job) for job in jobs]):
            line = future.result()
            filtered = f"{100 * line['ndcg@10']['filtered']:.2f}%"
            print(
                line["rival"],
                f"{line['settings']}, seed {line['seed']}:",
                filtered,
                f"{line.get('train_s', 0)} s",
                flush=True,
            )
            with arguments.out.open("a") as lines:
                lines.write(json.dumps({"dataset": arguments.dataset} | line) + "\n")


if __name__ == "__main__":
    main()
