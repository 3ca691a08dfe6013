"""`evaluate`: measure the model and its rivals on a file."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from stream.cli.app import command
from stream.cli.output import percent, show, show_json
from stream.errors import AnabranchError

if TYPE_CHECKING:
    from state.events import Records
    from stream.config import Config

MIN_EVENTS = 100

Progress = Callable[[float, str], None]


@command(broker_required=False)
def evaluate(
    file: Annotated[str, typer.Argument(help="CSV or JSON lines: user, item, ts (ms, ISO-8601) or timestamp (s).")],
    *,
    protocol: Annotated[Literal["global-temporal", "prequential"], typer.Option("--protocol")],
    seed: Annotated[int, typer.Option("--seed")] = 0,
    cycles: Annotated[int, typer.Option("--cycles", min=1, help="prequential: cycles of learning.")] = 8,
    with_retrain: Annotated[
        bool, typer.Option("--with-retrain", help="prequential: also a model trained from scratch at each cycle; slow.")
    ] = False,
    plot: Annotated[Path | None, typer.Option("--plot", help="prequential: rolling Hit@10 as a picture.")] = None,
    settings: "Config",
    as_json: bool,
) -> None:
    """Measure the model and its baselines on a file, by the code that runs in production."""
    from rich.console import Console
    from rich.progress import Progress as Bar

    from model.evaluation.global_temporal import as_events
    from stream.operate.event_files import read_interactions

    if protocol != "prequential" and (plot or with_retrain):
        raise AnabranchError(
            f"--plot and --with-retrain need --protocol prequential, but it is {protocol}: leave them out, or change it"
        )
    if plot:
        from stream.operate.plot import require

        require(plot)
    on_broken_line = lambda line, reason: print(f"line {line} {reason}; left out", file=sys.stderr)  # noqa: E731
    users, items, ts = read_interactions(file, on_broken_line)
    if len(ts) < MIN_EVENTS:
        raise AnabranchError(
            f"{file} has {len(ts)} usable events, too few to measure anything: an evaluation needs {MIN_EVENTS} of them"
        )
    with Bar(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("evaluating", total=1.0)

        def progress(done: float, what: str) -> None:
            bar.update(task, completed=done, description=what)

        if protocol == "prequential":
            events, _ = as_events(users, items, ts)
            found = run_prequential(events, settings, seed, cycles, with_retrain, progress)
        else:
            from model.evaluation.global_temporal import global_temporal

            found = global_temporal(
                users, items, ts,
                model=settings.model, training=settings.training, ranking=settings.ranking, state=settings.state,
                seed=seed, progress=progress,
            )  # fmt: skip
    if plot:
        from stream.operate.plot import draw

        draw(found, plot, Path(file).name.split(".")[0])
    if as_json:
        return show_json(found)
    show_prequential(found) if protocol == "prequential" else show_global_temporal(found)


def run_prequential(
    events: "Records", settings: "Config", seed: int, cycles: int, with_retrain: bool, progress: Progress
) -> dict[str, Any]:
    """The prequential protocol with production's settings."""
    from model.evaluation.prequential import Settings, prequential

    production = Settings(
        settings.model, settings.training, settings.ranking, settings.state, settings.gate,
        settings.trainer.user_events, settings.trainer.replay_users, seed,
    )  # fmt: skip
    return prequential(events, production, cycles=cycles, with_retrain=with_retrain, progress=progress)


def show_global_temporal(found: dict[str, Any]) -> None:
    """Print a line for each model and target, and the leads: with the user's seen items in the list, and without."""
    from rich.table import Table

    for seen, title in (("unfiltered", "Seen items ranked like any other"), ("filtered", "Seen items left out")):
        table = Table("model", "", "NDCG@10", "MRR", "Recall@10", box=None)
        for name, scores in found["models"].items():
            for target, of in scores.items():
                table.add_row(name, target, *(percent(of[seen][m]) for m in ("ndcg@10", "mrr", "recall@10")))
        show(f"{title}:")
        show(table)
        for lead in (lead for lead in found["leads"] if lead["seen_items"] == seen):
            mean, low, high = (f"{100 * lead[key]:+.1f}" for key in ("lead", "low", "high"))
            show(f"{lead['model']} over {lead['over']}, {lead['target']}: NDCG@10 {mean}% [{low}, {high}]")
        show("")
    epochs, events = found["epochs"], found["events"]
    show(
        f"create: {epochs['create']['warm_up']} epochs of the graph and {epochs['create']['joint']} joint ones; "
        f"sasrec: {epochs['sasrec']['joint']}, which take about as long."
    )
    show(
        f"{events['past']:,} events to learn from; {events['tested']:,} tested, {events['last']:,} of them their "
        f"user's last; {events['cold']:,} of items without an earlier event left out."
    )


def show_prequential(found: dict[str, Any]) -> None:
    """Print a line for each model, and the number of versions."""
    from rich.table import Table

    table = Table("", "Hit@10", "NDCG@10", "MRR", "last quarter", "items new to the version", box=None)
    metrics = ("hit@10", "ndcg@10", "mrr", "last_quarter_hit@10", "new_items_hit@10")
    for name, s in found["models"].items():
        table.add_row(name, *(percent(s[m]) for m in metrics), style="bold" if name == "create" else "")
    show(table)
    events, versions = found["events"], found["versions"]["create"]
    promoted = sum(cycle["promoted"] for cycle in versions)
    show(
        f"{events['tested']:,} events tested, {events['of_new_items']:,} of items new to the version that served; "
        f"the last two columns are Hit@10. {len(versions)} versions learned, {promoted} promoted."
    )
