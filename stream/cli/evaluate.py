"""`evaluate`: measure the model and its rivals on a file."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from stream.cli.app import command
from stream.cli.output import Complaints, note, show, show_json
from stream.errors import AnabranchError

if TYPE_CHECKING:
    from rich.table import Table

    from model.evaluation.reports import GlobalTemporalReport, Interval, PrequentialReport
    from stream.config import Config

MIN_EVENTS = 100
MAX_CYCLES = 1_000
MAX_SEED = 2**32 - 1
"""The largest that numpy and torch both accept."""
PLAIN: dict[str, Any] = {"box": None, "padding": (0, 1, 0, 0), "pad_edge": False}


@command(broker_required=False)
def evaluate(
    file: Annotated[str, typer.Argument(help="CSV or JSON: user, item, and ts or timestamp.")],
    *,
    protocol: Annotated[
        Literal["global-temporal", "prequential"],
        typer.Option("--protocol", help="Test the events after a moment, or each event before it is learned."),
    ],
    seed: Annotated[int, typer.Option("--seed", min=0, max=MAX_SEED, help="Seed of the training.")] = 0,
    cycles: Annotated[
        int, typer.Option("--cycles", min=1, max=MAX_CYCLES, help="prequential: number of training cycles.")
    ] = 8,
    with_retrain: Annotated[
        bool,
        typer.Option(
            "--with-retrain", help="prequential: also measure a model trained from scratch at each cycle; slow."
        ),
    ] = False,
    moment: Annotated[
        Literal["asked", "pushed"],
        typer.Option(
            "--moment",
            help="prequential: test lists that are asked for at the event, or pushed at the user's event before it.",
        ),
    ] = "asked",
    plot: Annotated[
        Path | None, typer.Option("--plot", help="prequential: write a plot of rolling Hit@10 to this file.")
    ] = None,
    settings: "Config",
    as_json: bool,
) -> None:
    """Measure the model and its baselines on a file. It runs the code that runs in production."""
    from rich.console import Console
    from rich.progress import Progress as Bar

    from model.evaluation.recorded_stream import as_events
    from model.evaluation.reports import GlobalTemporalReport, PrequentialReport
    from model.learning.cycle import CycleSettings
    from stream.operate.event_files import read_interactions

    if protocol != "prequential" and (plot or with_retrain or moment != "asked"):
        raise AnabranchError(
            f"--plot, --with-retrain and --moment need --protocol prequential, but it is {protocol}: leave them out, "
            "or change it"
        )
    if plot:
        from stream.operate.plot import require

        require(plot)
    complaints = Complaints()
    users, items, ts = read_interactions(file, complaints, settings.clicks, note)
    complaints.end()
    if len(ts) < MIN_EVENTS:
        raise AnabranchError(
            f"{file} has {len(ts)} usable events, too few to measure anything: an evaluation needs {MIN_EVENTS} of them"
        )
    console = Console(stderr=True)
    with Bar(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("evaluating", total=1.0)

        def progress(done: float, what: str) -> None:
            bar.update(task, completed=done, description=what)

        cycle = CycleSettings(
            settings.model, settings.training, settings.ranking, settings.state, settings.gate,
            settings.trainer.user_events, settings.trainer.replay_users,
        )  # fmt: skip
        report: PrequentialReport | GlobalTemporalReport
        if protocol == "prequential":
            from model.evaluation.prequential import prequential

            events, _ = as_events(users, items, ts)
            report = prequential(
                events, cycle, seed=seed, cycles=cycles, with_retrain=with_retrain, moment=moment, progress=progress
            )
            if plot:
                from stream.operate.plot import draw

                draw(report, plot, Path(file).name.split(".")[0])
        else:
            from model.evaluation.global_temporal import global_temporal

            report = global_temporal(users, items, ts, cycle, seed=seed, progress=progress)
    if as_json:
        return show_json(report)
    show_prequential(report) if isinstance(report, PrequentialReport) else show_global_temporal(report)


def show_global_temporal(report: "GlobalTemporalReport") -> None:
    """Two tables, with seen items and without: a line for each model and target, then the leads."""
    from rich.table import Table

    for seen, title in (("unfiltered", "Seen items ranked like any other"), ("filtered", "Seen items left out")):
        table = Table("model", "", "NDCG@10", "MRR", "Recall@10", box=None)
        for name, by_target in report.models.items():
            for target, of in by_target.items():
                figures = of[seen]
                shares = (figures.ndcg, figures.mrr, figures.recall_10)
                table.add_row(name, target, *(f"{100 * share:.2f}%" for share in shares))
        show(f"{title}:")
        show(table)
        for lead in (lead for lead in report.leads if lead.seen_items == seen):
            percent = (f"{100 * share:+.1f}" for share in (lead.lead, lead.low, lead.high))
            show("{} over {}, {}: NDCG@10 {}% [{}, {}]".format(lead.model, lead.over, lead.target, *percent))
        show("")
    events, epochs = report.events, report.epochs["create"]
    [(encoder, alone)] = [(name, of) for name, of in report.epochs.items() if name != "create"]
    show(
        f"create: {epochs.warm_up} epochs of the graph and {epochs.joint} joint ones; "
        f"{encoder}: {alone.joint}, which take about as long."
    )
    show(
        f"{events.past:,} events to learn from; {events.tested:,} tested, {events.last:,} of them their "
        f"user's last; {events.cold:,} of items without an earlier event left out."
    )


def show_prequential(report: "PrequentialReport") -> None:
    """A line for each row, a line for each kind of test, and how many versions were promoted. At most 100 columns."""
    from rich.table import Table

    table = Table("in percent", "Hit@10", "NDCG@10", "MRR", "last quarter", "new items", **PLAIN)
    table.add_column("create over it, NDCG@10")
    for name, of in report.models.items():
        shares = (of.hit, of.ndcg, of.mrr, of.last_quarter_hit, of.new_items_hit)
        cells = ("-" if share is None else f"{100 * share:.2f}" for share in shares)
        over = percent_of(report.leads[name].ndcg) if name in report.leads else ""
        table.add_row(name, *cells, over, style="bold" if name == "create" else "")
    show(table)
    events, learned = report.events, report.versions["create"]
    promoted = sum(cycle.promoted for cycle in learned)
    when = "the event" if report.moment == "asked" else "the user's event before it"
    show(f"{events.tested:,} events tested, {events.of_new_items:,} of items new to the version that served.")
    show(f"Lists are ranked for the time of {when}. {len(learned)} versions learned, {promoted} promoted.")
    show("Last quarter and new items are Hit@10. Intervals hold 95%: users are drawn again.")
    show("")
    show(by_kind(report))
    show("Best rival: the one with the highest NDCG@10 of its line. --json has every row of every line.")


def by_kind(report: "PrequentialReport") -> "Table":
    """By kind of test: the figures of `create`, and its lead in NDCG@10 over the rows that stand for not learning."""
    from rich.table import Table

    from model.evaluation.live_rivals import LIVE_RIVALS

    others = [name for name in ("frozen", "fusion") if name in report.models]
    table = Table("create", "tests", "Hit@10", "NDCG@10", "MRR", **PLAIN)
    for name in [*others, "best rival"]:
        table.add_column(f"over {name}")
    for kind, group in report.groups.items():
        best = max(LIVE_RIVALS, key=lambda name: group.models[name].ndcg)
        create = group.models["create"]
        shares = (f"{100 * share:.2f}" for share in (create.hit, create.ndcg, create.mrr))
        over = (percent_of(group.leads[name].ndcg) for name in (*others, best))
        table.add_row(kind, f"{group.tested:,}", *shares, *over)
    return table


def percent_of(lead: "Interval | None") -> str:
    """A relative lead in percent, with its interval; a wide one has no decimals."""
    if lead is None:
        return "-"
    digits = 1 if lead.high - lead.low < 0.1 else 0
    return f"{100 * lead.lead:+.{digits}f} [{100 * lead.low:.{digits}f}, {100 * lead.high:.{digits}f}]"
