"""Models that learn from a stream, next to rivals that do not: `python -m benchmarks.quality.prequential --help`.

Each event is first a test, then the models learn from it (`model/evaluation/prequential.py`). Parts:

    streams     the whole system, the same one frozen (its counters live; with its counters frozen too), its versions
                without the ranker (`fusion`) and with the ranker as published, and rivals, which are ranked once for
                all seeds. --retrain adds a model retrained in each cycle, --all-rows the same versions with fusion
                weights as published, without fusion, and without provisional items
    ablation    the same increments without the graph's warm-up, without transfer, half and twice as long; with the
                likeliest fusion weights, without the NDCG search (model/fusion_weights/ndcg_search.py); and with half
                and twice the clicks that weights are chosen on between versions
    drift       two halves of the catalogue are swapped: events until Hit@10 recovers, with the drift trigger, with the
                timer alone, and without learning
    break       the same at the largest natural change of the clicks

Each run adds a line to OUT/runs.jsonl and writes its ranks to OUT/*.npz and its curves to OUT/*.png. `python -m
benchmarks.quality.prequential_report OUT` prints the tables. `python -m benchmarks.quality.pack OUT` keeps the lines.
"""

import argparse
import json
import os
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from msgspec import to_builtins
from msgspec.structs import replace

from benchmarks.ablations.likeliest_weights import likeliest
from model.evaluation.learner import AfterEvents, CycleTrigger, Learner, NeverDue
from model.evaluation.live_rivals import LIVE_RIVALS
from model.evaluation.prequential import (
    LIST_LENGTH,
    EvaluatedModel,
    ServedModel,
    begin_together,
    by_fusion,
    run,
    standing_still,
)
from model.evaluation.prequential_figures import RunResult, report, rolling
from model.evaluation.recorded_stream import RecordedStream, as_events
from model.learning.cycle import CycleSettings
from model.metrics import CUTOFF, Ranks
from model.ranking.fusion import MODEL_ONLY
from model.settings import ModelSettings, RankingSettings, TrainingSettings
from state.events import Ids, Records
from state.settings import StateSettings
from stream.config import Config
from stream.operate.event_files import read_interactions
from stream.trainer.drift import Drift

EVENTS = {"complete-journey": 40_000, "movietweetings-100k": 24_000, "yoochoose-100k": 24_000, "ml-100k": 24_000}
"""The streams, with the number of events that are used by default."""
STREAMS = tuple(EVENTS)
WARM_UP, CYCLES = 0.2, 8
ABLATION: dict[str, dict[str, Any]] = {
    "no warm-up": {"warm_up_epochs": 0, "increment_warm_up_epochs": 0},
    "no transfer": {"w_transfer": 0.0},
    "half the increment": {"increment_epochs": 2, "increment_last_epochs": 2, "increment_learning_rate": 1e-3},
    "twice the increment": {"increment_epochs": 8, "increment_last_epochs": 8},
    "likeliest weights": {},
}
ONLINE_CLICKS = {f"weights on {clicks} clicks": clicks for clicks in (200, 800)}
"""Values of `ranking.online_clicks` instead of the default."""
DROPOUT = {f"dropout {share}": share for share in (0.2, 0.4, 0.6)}
"""Values of `model.dropout`, the default included."""
VARIANTS = (*ABLATION, *ONLINE_CLICKS, *DROPOUT)
SWAP_AT_SHARE = 0.6
RECOVERED_SHARE = 0.9
"""A row has recovered when Hit@10 over RECOVERY_EVENTS tests is this share of the value before the change."""
RECOVERY_EVENTS = 500


def load(name: str, folder: Path, count: int | None = None) -> Records:
    """The first events of a stream; by default as many as EVENTS has."""
    count = count or EVENTS[name]
    if name == "complete-journey":
        from stream.local.demo_feed import read_purchases

        clicks = read_purchases(count).clicks
        ts = np.array([c["ts"] for c in clicks])
        return as_events([c["user"] for c in clicks], [c["item"] for c in clicks], ts)[0]
    users, items, ts = read_interactions(str(folder / f"{name}.csv.gz"), lambda *_: None)
    return as_events(users[:count], items[:count], ts[:count])[0]


def production(state: StateSettings | None = None, **training: Any) -> CycleSettings:
    """The default configuration."""
    config = Config()
    return CycleSettings(
        ModelSettings(), TrainingSettings(**training), RankingSettings(), state or StateSettings(), config.gate,
        config.trainer.user_events, config.trainer.replay_users,
    )  # fmt: skip


def warm_up(events: Records, settings: CycleSettings) -> RecordedStream:
    """A recorded stream with the warm-up events applied."""
    past = RecordedStream(settings.state)
    past.append(events[: int(len(events) * WARM_UP)])
    return past


def run_stream(
    events: Records, settings: CycleSettings, seed: int, *, retrain: bool, rivals: bool, all_rows: bool = False
) -> tuple[RunResult, dict[str, Learner]]:
    """Run all rows of part `streams` on the same versions."""
    past = warm_up(events, settings)
    every = AfterEvents(-(-(len(events) - past.count) // CYCLES))
    versions = {"create": Learner(settings, every, seed=seed), "frozen": Learner(settings, NeverDue(), seed=seed)}
    if retrain:
        versions["full retrain"] = Learner(settings, every, "retrain", seed=seed)
    begin_together(versions, past)
    ranking, create, frozen = settings.ranking, versions["create"], versions["frozen"]
    still = standing_still(ranking)
    rows: dict[str, EvaluatedModel] = {
        "create": ServedModel(past, create, ranking, seed=seed),
        "frozen": ServedModel(past, frozen, still, keeps_examples=False),
        "frozen, graph too": ServedModel(past, frozen, still, live=False, keeps_examples=False),
        "fusion": ServedModel(past, create, by_fusion(ranking)),
        "create, fixed ranker": ServedModel(past, create, replace(ranking, online_ranker=False), keeps_examples=False),
    }
    if retrain:
        rows["full retrain"] = ServedModel(past, versions["full retrain"], ranking, seed=seed)
    if all_rows:
        fixed = replace(ranking, online_clicks=0)
        rows |= {
            "create, fixed weights": ServedModel(past, create, fixed, seed=seed),
            "create, no fusion": ServedModel(past, create, fixed, fusion=MODEL_ONLY),
            "create, no provisional items": ServedModel(past, create, replace(ranking, fresh_items=0), seed=seed),
        }
    if rivals:
        rows |= {name: rival(past, LIST_LENGTH) for name, rival in LIVE_RIVALS.items()}
    return run(events, past, versions, rows), versions


def run_ablation(events: Records, seed: int, variant: str) -> tuple[RunResult, dict[str, Learner]]:
    """Run one variant of the training, or of the clicks that weights are chosen on between versions."""
    settings = production(**ABLATION.get(variant, {}))
    if variant in ONLINE_CLICKS:
        ranking = replace(settings.ranking, online_clicks=ONLINE_CLICKS[variant])
        settings = settings._replace(ranking=ranking)
    if variant in DROPOUT:
        settings = settings._replace(model=ModelSettings(dropout=DROPOUT[variant]))
    past = warm_up(events, settings)
    versions = {"create": Learner(settings, AfterEvents(-(-(len(events) - past.count) // CYCLES)), seed=seed)}
    fixed = replace(settings.ranking, online_clicks=0)
    rows: dict[str, EvaluatedModel] = {
        "create": ServedModel(past, versions["create"], settings.ranking),
        "create, no fusion": ServedModel(past, versions["create"], fixed, fusion=MODEL_ONLY),
    }
    with likeliest() if variant == "likeliest weights" else nullcontext():
        versions["create"].begin(past)
        return run(events, past, versions, rows), versions


class OnDrift:
    """A cycle is due by the timer, or when ADWIN finds a rise in misses, as in `stream.trainer.trigger`."""

    def __init__(self, every: int, min_events: int) -> None:
        trainer = Config().trainer
        self._every, self._min_events, self._due = every, min_events, False
        self._drift = Drift(trainer.drift_delta, trainer.drift_quiet_s)
        self.found: list[int] = []

    def due(self, new_events: int, tested: int, hits: int) -> bool:
        """Whether a cycle is due. `trainer.drift_quiet_s` counts tested events: a recorded stream has no wall clock."""
        if self._drift.update(tested, hits, float(tested)) is not None:
            self._due = True
            self.found.append(tested)
        if new_events >= self._every or (self._due and new_events >= self._min_events):
            self._due = False
            return True
        return False


def swap_halves(events: Records) -> Records:
    """From SWAP_AT_SHARE of the events on, swap each item of a random half of the catalogue with one of the other."""
    changed, at = events.copy(), int(len(events) * SWAP_AT_SHARE)
    items, counts = np.unique(events["item"], return_counts=True)
    by_count = items[np.argsort(-counts, kind="stable")]
    half = len(by_count) // 2
    first, second = np.random.default_rng(0).permutation(by_count[: 2 * half]).reshape(2, half)
    other = dict(zip([*first.tolist(), *second.tolist()], [*second.tolist(), *first.tolist()], strict=True))
    changed["item"][at:] = [other.get(i, i) for i in events["item"][at:].tolist()]
    return changed


def natural_break(events: Records) -> int:
    """The event at which the next tenth of the stream differs most from the previous tenth.

    The difference is the total variation of item shares. The search leaves enough events before the change to learn
    from, and enough after it to recover in.
    """
    _, item = np.unique(events["item"], return_inverse=True)
    width = len(events) // 10

    def shares(start: int) -> npt.NDArray[np.float64]:
        return np.bincount(item[start : start + width], minlength=item.max() + 1) / width

    places = range(int(0.4 * len(events)), int(0.75 * len(events)), width // 5)
    return max(places, key=lambda at: float(np.abs(shares(at) - shares(at - width)).sum()))


def run_drift(events: Records, changed: int, seed: int) -> tuple[RunResult, dict[str, Learner], dict[str, Any]]:
    """Test three ways of learning on a stream that changes at an event. All three have the live graph."""
    settings = production()
    past = warm_up(events, settings)
    every = -(-(len(events) - past.count) // 4)
    trigger = OnDrift(every, Config().trainer.min_events)
    triggers: dict[str, CycleTrigger] = {
        "drift trigger": trigger,
        "timer alone": AfterEvents(every),
        "no learning": NeverDue(),
    }
    versions = {name: Learner(settings, t, seed=seed) for name, t in triggers.items()}
    begin_together(versions, past)
    rows: dict[str, EvaluatedModel] = {name: ServedModel(past, v, settings.ranking) for name, v in versions.items()}
    alone = {
        f"{name}, no fusion": ServedModel(past, v, settings.ranking, fusion=MODEL_ONLY) for name, v in versions.items()
    }
    frozen = {"no learning, graph too": ServedModel(past, versions["no learning"], settings.ranking, live=False)}
    tested = run(events, past, versions, rows | alone | frozen)
    at = int(np.searchsorted(tested.at, changed))
    facts = {name: recovery(ranks, at) for name, ranks in tested.ranks.items()}
    return tested, versions, {"found_at_test": trigger.found, "changed_at_test": at, "recovery": facts}


def recovery(ranks: Ranks, at: int) -> dict[str, Any]:
    """Hit@10 before and after a change, and the number of tests until it recovers."""
    course = rolling(ranks, RECOVERY_EVENTS)
    before = float((ranks[max(at - 2 * RECOVERY_EVENTS, 0) : at] < CUTOFF).mean())
    later = course[at + RECOVERY_EVENTS :]
    back = np.flatnonzero(later >= RECOVERED_SHARE * before)
    after = ranks[at:] < CUTOFF
    return {
        "before": round(before, 5),
        "lowest": round(float(later.min()), 5) if len(later) else None,
        "after": round(float(after.mean()), 5),
        "tests_to_recover": int(back[0] + RECOVERY_EVENTS) if len(back) else None,
    }


def lead_in_points(ranks: Ranks, over: Ranks, users: Ids, draws: int = 1000) -> tuple[float, float, float]:
    """The lead in Hit@10, in percentage points, with a 95% interval from a bootstrap over users."""
    _, user = np.unique(users, return_inverse=True)
    gain = np.bincount(user, (ranks < CUTOFF).astype(float) - (over < CUTOFF))
    tests = np.bincount(user)
    weights = np.random.default_rng(0).multinomial(len(gain), np.full(len(gain), 1 / len(gain)), draws)
    low, high = np.percentile(100 * (weights @ gain) / (weights @ tests), [2.5, 97.5])
    return 100 * float(gain.sum() / tests.sum()), float(low), float(high)


def record(out: Path, facts: dict[str, Any], tested: RunResult, versions: dict[str, Learner], picture: bool) -> None:
    """Append a line of figures, and write the ranks and optionally a picture."""
    measured = report(tested, versions)
    found = to_builtins(measured)
    against = {}
    if "create" in tested.ranks:
        over = tested.ranks["create"]
        against = {
            n: [round(v, 3) for v in lead_in_points(ranks, over, tested.users)] for n, ranks in tested.ranks.items()
        }
    name = "-".join(str(facts[k]) for k in ("part", "stream", "events", "variant", "seed") if facts.get(k) is not None)
    name = name.replace(" ", "_").replace(",", "")
    if picture:
        from stream.operate.plot import draw

        draw(measured, out / f"{name}.png", f"{facts['stream']}, {facts['events']:,} events")
    small = {k: np.minimum(v, 65535).astype(np.uint16) for k, v in tested.ranks.items()}
    np.savez_compressed(out / f"{name}.npz", users=tested.users, new=tested.new, at=tested.at, **small)  # type: ignore[arg-type]
    kept = ("events", "models", "versions", "leads", "groups")
    line = facts | {k: found[k] for k in kept} | {"points_over_create": against}
    line["tested"] = line.pop("events")
    line["events"] = facts["events"]
    with (out / "runs.jsonl").open("a") as lines:
        lines.write(json.dumps(line) + "\n")
    for row, figures in found["models"].items():
        figures_text = " ".join(f"{k} {100 * v:.2f}%" for k, v in figures.items() if v is not None)
        print(f"{name}: {row:36} {figures_text}", flush=True)


def main() -> None:
    """Run the parts for each stream and seed."""
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("--data", type=Path, default=Path(os.environ.get("ANABRANCH_DATASETS", "../shared/data")))
    parse.add_argument("--out", type=Path, default=Path("build/prequential"))
    parse.add_argument("--streams", nargs="+", default=list(STREAMS), choices=STREAMS)
    parse.add_argument("--parts", nargs="+", default=["streams", "ablation", "drift"])
    parse.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=VARIANTS)
    parse.add_argument("--events", type=int, help="default: 24,000; 40,000 of complete-journey")
    parse.add_argument("--seeds", type=int, default=1)
    parse.add_argument("--first-seed", type=int, default=0)
    parse.add_argument("--retrain", action=argparse.BooleanOptionalAction, default=False)
    parse.add_argument("--all-rows", action="store_true")
    parse.add_argument("--no-rivals", action="store_true")
    parse.add_argument("--pictures", action="store_true", help="draw the curves; needs matplotlib")
    arguments = parse.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for stream in arguments.streams:
        events = load(stream, arguments.data, arguments.events)
        of_rivals: dict[str, Ranks] = {}
        for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
            facts: dict[str, Any] = {"stream": stream, "events": len(events), "seed": seed}
            for part in arguments.parts:
                variants = arguments.variants if part == "ablation" else [None]
                for variant in variants:
                    began = time.process_time()
                    more: dict[str, Any] = {"part": part, "variant": variant}
                    if part == "streams":
                        tested, versions = run_stream(
                            events, production(), seed, retrain=arguments.retrain,
                            rivals=not (arguments.no_rivals or of_rivals), all_rows=arguments.all_rows,
                        )  # fmt: skip
                        of_rivals |= {name: ranks for name, ranks in tested.ranks.items() if name in LIVE_RIVALS}
                        tested = tested._replace(ranks=tested.ranks | of_rivals)  # no rival depends on the seed
                    elif part == "ablation":
                        tested, versions = run_ablation(events, seed, variant or "")
                    else:
                        natural = part == "break"
                        changed = natural_break(events) if natural else int(len(events) * SWAP_AT_SHARE)
                        tested, versions, drift = run_drift(events if natural else swap_halves(events), changed, seed)
                        more |= drift
                    more["cpu_s"] = round(time.process_time() - began, 1)
                    record(arguments.out, facts | more, tested, versions, arguments.pictures)


if __name__ == "__main__":
    main()
