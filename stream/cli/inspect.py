"""`status`, `user`, `item`, `graph`, `recommend`, `models`: looking at the state, whether workers run or not."""

import asyncio
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stream.cli.app import BrokerOption, ConfigOption, DataOption, JsonOption, app, configured, utf8
from stream.errors import AnabranchError

if TYPE_CHECKING:
    from state.errors import StateError
    from state.view import View
    from stream.config import Config
    from stream.kafka.messages import Pointer
    from stream.kafka.pointers import Pointers

AtOption = Annotated[
    str | None, typer.Option("--at", metavar="TIME", help="As it was before this time: ms or ISO-8601.")
]

WEIGHTS = ("model", "evidence", "repeat", "popularity")


@app.command()
def status(
    data: DataOption = None,
    broker: BrokerOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """How far, how much, which version, and how good it has been."""
    from rich.table import Table

    from stream.errors import BrokerUnavailable
    from stream.kafka.topics import log_ends
    from stream.operate import report

    settings = configured(config, data, broker)
    ends = None
    if settings.broker:
        try:
            ends = log_ends(settings, settings.topics.clicks)
        except BrokerUnavailable as error:
            note(str(error))
    pointers = pointers_of(settings)
    with view_of(settings, whole=False) as view:
        found = report.status(settings, view, ends, pointers)
        for unreadable in view.unreadable.values():
            note(mended(unreadable))
    if as_json:
        return show_json(found)
    table = Table("partition", "next offset", "log end", "lag", box=None)
    for p in found["partitions"]:
        table.add_row(*(number(p[key]) for key in ("partition", "next_offset", "log_end", "lag")))
    show(table)
    events = found["events"]
    show(
        f"events   {events['applied']:,} applied, {events['dead']:,} dead letters, {events['duplicate']:,} duplicates, "
        f"{events['too_old']:,} too old, {events['lost']:,} lost to retention"
        + (f", {events['key_mismatch']:,} with a key that is not their user" if events["key_mismatch"] else "")
        + "\n"
        f"graph    {found['users']:,} users, {found['items']:,} items, {found['edges']:,} edges; "
        f"{events['expired']:,} expired, {events['erased']:,} erased\n"
        f"model    {found['model']['version'] or 'none yet'}"
        + (f", {found['model']['age_s']:.0f} s old" if found["model"]["age_s"] is not None else "")
        + (", pinned: the trainer does not replace it" if found["model"]["pinned"] else "")
    )
    for instance, told in found["model"]["online_weights"].items():
        moved = ", ".join(f"{w} {told['chosen'][w]:.2f} → {told['now'][w]:.2f}" for w in WEIGHTS)
        show(f"weights  {moved} (worker {instance}, from {told['clicks']:,} clicks)")
    if found["model"]["artifacts"]:
        note(found["model"]["artifacts"])
    for line in told_of_trainer(found["trainer"]):
        show(f"trainer  {line}")
    quality = Table("prequential", "events", "Hit@10", "NDCG@10", "rolling Hit@10", "rolling NDCG@10", box=None)
    for name, s in found["prequential"].items():
        means = (s[k] for k in ("hit@10", "ndcg@10", "rolling_hit@10", "rolling_ndcg@10"))
        quality.add_row(name, f"{s['events']:,}", *(f"{100 * m:.2f}%" for m in means))
    show(quality)
    if found["comparison"]:
        show_comparison(found["comparison"])


def told_of_trainer(trainer: dict[str, Any] | None) -> list[str]:
    """What the trainer does, and what it did last."""
    if trainer is None:
        return ["none has run here"]
    since = time.time() - trainer["since_ts"] / 1000
    doing = {
        "waiting": f"waiting, {trainer['events']:,} new events since the last cycle",
        "learning": f"learning for {since:.0f} s, {trainer['share']:.0%}: {trainer['what']}",
        "not running": "not running: the champion goes on serving, nothing is learned",
    }[trainer["doing"]]
    lines = [doing]
    if trainer["last"]:
        lines.append(f"{time.time() - trainer['last_ts'] / 1000:.0f} s ago: {trainer['last']}")
    if trainer["failure"]:
        lines.append(f"{trainer['failures']} failed since: {trainer['failure']}")
    if trainer["drifts"]:
        lines.append(f"drift was found {trainer['drifts']} times since it started")
    return lines


def show_comparison(found: dict[str, Any]) -> None:
    """Champion and candidate side by side."""
    from rich.table import Table

    told = f"A/B, {found['share']:.0%} of users" if found["mode"] == "ab" else "the same events, candidate not served"
    table = Table(told, "version", "events", "Hit@10", "NDCG@10", box=None)
    for arm in ("champion", "candidate"):
        s = found[arm]
        means = (f"{100 * s[k]:.2f}%" if k in s else "-" for k in ("hit@10", "ndcg@10"))
        table.add_row(arm, s["version"], f"{s.get('events', 0):,}", *means)
    show(table)


@app.command()
def user(
    name: Annotated[str, typer.Argument(metavar="USER", callback=utf8)],
    at: AtOption = None,
    data: DataOption = None,
    broker: BrokerOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """A user's sequence, and what was last recommended."""
    from stream.operate import report

    settings = configured(config, data, broker)
    with view_of(settings) as view:
        found = report.user_at(settings, view, name, instant(at)) if at else report.user(settings, view, name)
    if as_json:
        return show_json(found)
    if not found["sequence"]:
        raise AnabranchError(
            f"no events of user {name!r} in {settings.data}; with several workers they may be on another machine"
        )
    for step in found["sequence"]:
        show(f"{moment(step['ts'])}  {step['event']:8}  {step['item']}")
    if not at:
        show_recommendation(found["recommended"])


@app.command()
def item(
    name: Annotated[str, typer.Argument(metavar="ITEM", callback=utf8)],
    at: AtOption = None,
    data: DataOption = None,
    broker: BrokerOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """An item's degree and popularity, and what follows it."""
    from stream.operate import report

    settings = configured(config, data, broker)
    if at:
        return item_at(settings, name, instant(at), as_json)
    champion = serving(settings)
    known = None
    if champion:
        from model.learning.versions import load

        known = set(load(champion.url, champion.name, champion.version, champion.sha256).trained.vocabulary.ids)
    with view_of(settings) as view:
        found = report.item(settings, view, name, known)
    if as_json:
        return show_json(found)
    if not found["degree"]:
        raise AnabranchError(f"no events of item {name!r} in {settings.data}")
    show(f"{found['item']}  {found['title'] or ''}")
    by_model = {True: "known to the model", False: "not known to the model yet", None: "no model yet"}
    show(f"{found['degree']:,} events, popularity {found['popularity']:.2f}, {by_model[found['known_to_model']]}")
    for n in found["next"]:
        show(f"  {n['weight']:8.2f}  {n['item']}  {n['title'] or ''}")


def item_at(settings: "Config", name: str, t: int, as_json: bool) -> None:
    """An item as it was at t."""
    from stream.operate import report

    with view_of(settings) as view:
        found = report.item_at(settings, view, name, t)
    if as_json:
        return show_json(found)
    show(f"{name} at {moment(t)}: {found['degree']:,} events, popularity {found['popularity']:.2f}")
    for n in found["next"]:
        show(f"  {n['weight']:8.2f}  {n['item']}")
    for user in found["last_users"]:
        show(f"{moment(user['ts'])}  {user['event']:8}  {user['user']}")


@app.command()
def graph(
    start: Annotated[
        str | None, typer.Option("--from", metavar="TIME", help="Only events after this: ms or ISO-8601.")
    ] = None,
    end: Annotated[str | None, typer.Option("--to", metavar="TIME", help="Only events up to this.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Write the events to this .npz file.")] = None,
    data: DataOption = None,
    broker: BrokerOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """The temporal graph in numbers, whole or a window of event time."""
    from stream.operate import report

    settings = configured(config, data, broker)
    if start or end or out:
        return window(settings, instant(start or "0"), instant(end) if end else 2**62, out, as_json)
    with view_of(settings) as view:
        found = report.graph(settings, view)
    if as_json:
        return show_json(found)
    show(f"{found['users']:,} users, {found['items']:,} items, {found['edges']:,} edges")
    if found["oldest_ts"] is not None:
        show(f"from {moment(found['oldest_ts'])} to {moment(found['newest_ts'])}")
    show("events an item: " + ", ".join(f"{k} {v:,}" for k, v in found["item_degree"].items()))


def window(settings: "Config", start: int, end: int, out: Path | None, as_json: bool) -> None:
    """The events with start < time <= end: their numbers, and on request they themselves."""
    from stream.operate import report

    with view_of(settings) as view:
        found, events = report.window(view, start, end)
    if out is not None:
        import numpy as np

        try:
            with out.open("wb") as file:
                np.savez(file, user=events["user"], item=events["item"], ts=events["ts"], kind=events["kind"])
        except OSError as error:
            raise AnabranchError(f"cannot write --out {out}: {error.strerror}") from None
    if as_json:
        return show_json(found)
    show(
        f"{found['edges']:,} edges of {found['users']:,} users and {found['items']:,} items"
        + (f", in {out}" if out else "")
    )


@app.command()
def recommend(
    name: Annotated[str, typer.Argument(metavar="USER", callback=utf8)],
    data: DataOption = None,
    broker: BrokerOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """What the worker of this data directory would recommend to a user now.

    Version, learned weights, filters and A/B arm are the worker's. It counts clicks in memory, and this command reads
    them from its state: a score can differ in its last digits, and so can the place of an item that the version does
    not know yet.
    """
    from stream.operate.recommend import answer_now

    settings = configured(config, data, broker)
    pointers = pointers_of(settings)
    with view_of(settings) as view:
        found = answer_now(settings, view, pointers, name)
    if as_json:
        return show_json(found)
    show_recommendation(found)


@app.command()
def models(
    data: DataOption = None,
    broker: BrokerOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Published versions, and which one serves."""
    from rich.table import Table

    from stream.operate import report

    settings = configured(config, data, broker)
    found = report.models(settings, pointers_of(settings))
    if as_json:
        return show_json(found)
    if not found["versions"]:
        raise AnabranchError(f"no version in {settings.artifacts_url} yet: the trainer publishes the first one")
    table = Table("version", "", "age", "parent", "held-out NDCG@10", "champion's then", box=None)
    for v in found["versions"]:
        metrics = v["metrics"]
        means = (metrics.get(k) for k in ("ndcg@10", "champion_ndcg@10"))
        table.add_row(
            v["version"],
            standing_of(v["version"], v["promoted"], found),
            f"{time.time() - v['created_ts'] / 1000:.0f} s",
            v["parent"] or "-",
            *("-" if m is None else f"{100 * m:.2f}%" for m in means),
        )
    show(table)
    for v in found["versions"]:
        if v["reason"]:
            show(f"{v['version']}  {v['reason']}")


def standing_of(version: str, promoted: bool, found: dict[str, Any]) -> str:
    """What a version is now, in a word."""
    if version == found["serving"]:
        return "serving, pinned" if found["pinned"] else "serving"
    if version == found["candidate"]:
        return "candidate"
    return "" if promoted else "not promoted"


def serving(settings: "Config") -> "Pointer | None":
    """The champion: from the broker where one answers, else as this machine's worker last knew it."""
    return pointers_of(settings).champion


def pointers_of(settings: "Config") -> "Pointers":
    """Champion and candidate: from the broker where one answers, else as this machine's worker last knew them."""
    from stream.errors import BrokerUnavailable
    from stream.kafka.pointers import read_pointers, remembered

    if settings.broker:
        try:
            return asyncio.run(read_pointers(settings))
        except BrokerUnavailable:
            pass
    return remembered(settings.data)


def view_of(settings: "Config", *, whole: bool = True) -> "View":
    """The state in the data directory: all partitions, or not `whole`, those that can be read.

    Raises AnabranchError where there is none, or it cannot be read.
    """
    from state.view import View, partitions_in

    if not partitions_in(settings.data, settings.topics.clicks):
        raise AnabranchError(
            f"no state in {settings.data}: `anabranch up` or `anabranch worker` makes it; "
            f"--data names another directory"
        )
    view = View(settings.data, settings.topics.clicks, settings.state)
    view.settle()
    unreadable = list(view.unreadable.values())
    if unreadable and (whole or not view.partitions):
        view.close()
        raise AnabranchError(mended(unreadable[0]))
    return view


def mended(error: "StateError") -> str:
    """Why a store cannot be read, with what mends it."""
    from state.errors import StoreUnreadable

    by = "; a worker started on this --data moves it aside and restores it (docs/faults.md)"
    return f"{error}{by if isinstance(error, StoreUnreadable) else ''}"


def show(what: Any) -> None:
    """Print for a person; nothing in the text is taken for markup."""
    from rich.console import Console

    Console(soft_wrap=True, markup=False, highlight=False, emoji=False).print(what)


def show_json(document: Any) -> None:
    """Print one JSON document."""
    import msgspec

    print(msgspec.json.encode(document).decode())


def show_recommendation(message: dict[str, Any] | None) -> None:
    """Print a recommendation message."""
    if message is None:
        return show("nothing recommended yet")
    by = f"version {message['model']}" if message["model"] else message["source"]
    show(f"recommended by {by}:")
    for r in message["items"]:
        because = f"   because of {', '.join(r['because'])}" if r.get("because") else ""
        show(f"  {r['score']:8.3f}  {r['item']}  {r.get('title') or ''}{because}")


def note(text: str) -> None:
    """A word on stderr."""
    import sys

    print(f"anabranch: {text}", file=sys.stderr)


def number(value: int | None) -> str:
    """A count, or - where it is not known."""
    return "-" if value is None else f"{value:,}"


def instant(text: str) -> int:
    """A time as a person writes it, ms or ISO-8601 (UTC where no zone is given), in ms."""
    from state.timeline import ALL_TIME
    from stream.times import iso_ms

    try:
        ms = int(text) if text.isdecimal() else iso_ms(text)
        if ms > ALL_TIME:
            raise ValueError(ms)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no time: give milliseconds or ISO-8601 (2026-11-24T18:00)") from None
    return ms


def moment(ts: int) -> str:
    """A time in ms as a person reads it, UTC."""
    try:
        return datetime.fromtimestamp(ts / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return str(ts)
