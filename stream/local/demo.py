"""The demo: a year of real grocery purchases (The Complete Journey) through Kafka, while the model learns.

Its broker, worker and trainer are those of `anabranch up`; its table shows the document of `anabranch status`.
"""

import contextlib
import random
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from state.view import View
from stream.config import Config
from stream.errors import AnabranchError
from stream.kafka.pointers import read_last_pointers
from stream.local.demo_feed import Feed, Purchases
from stream.operate import lookup
from stream.operate.report import Status, status

HOUSEHOLDS_SHOWN = 3
HOUSEHOLDS_EVERY_S = 6.0
"""Time for which the same households are shown: long enough to read them."""
LINE_EVERY_S = 10.0
"""Time between two lines of output without a terminal."""
APPLIED_WITHIN_S = 60.0
"""Time after the last event was published, until all must be applied."""
RECENT_EVENTS = 400
ROW_TITLES = {
    "model": "the live model",
    "popularity": "global popularity",
    "own": "own most frequent items",
    "transitions": "item-to-item transitions",
}

DEMO_SETTINGS = {
    "ANABRANCH_TRAINER__EVERY_EVENTS": "8500",
    "ANABRANCH_TRAINER__MIN_EVENTS": "8500",
    "ANABRANCH_TRAINING__MAX_TRAIN_S": "20",
}
"""Cycles follow each other faster than by default, so that the demo shows in minutes what takes hours otherwise."""


class Screen:
    """What the demo shows: a live table on a terminal, lines elsewhere."""

    def __init__(self, console: Console, config: Config, feed: Feed, purchases: Purchases) -> None:
        self._console, self._config, self._feed, self._purchases = console, config, feed, purchases
        self._title = {t["item"]: t["title"] for t in purchases.titles}
        self._view: View | None = None
        self._random = random.Random(7)
        self._rates: list[tuple[float, int]] = []
        self._chosen: list[Text] = []
        self._chosen_at = -HOUSEHOLDS_EVERY_S
        self.status: Status | None = None
        self.versions: list[str] = []
        self.source = ""
        """What ranked the newest list that was looked at."""

    def refresh(self) -> None:
        """Read the state again."""
        if self._view is None:
            self._view = View(self._config.data, self._config.topics.clicks, self._config.state)
        self._view.refresh()
        if not self._view.partitions:
            return
        pointers = read_last_pointers(self._config.data)
        version = pointers.champion.version if pointers.champion else None
        if version and version not in self.versions:
            self.versions.append(version)
        self.status = status(self._config, self._view, None, pointers)
        self._choose_households_if_due()
        self._rates = [*self._rates, (time.monotonic(), self.applied)][-5:]

    @property
    def applied(self) -> int:
        """Events applied so far."""
        return self.status.events.applied if self.status else 0

    @property
    def events_per_s(self) -> float:
        """Events applied a second, over the last few refreshes."""
        if len(self._rates) < 2:
            return 0.0
        (then, before), (now, after) = self._rates[0], self._rates[-1]
        return (after - before) / max(now - then, 1e-9)

    def line(self) -> str:
        """The state in one plain line."""
        status = self.status
        if status is None:
            return "starting"
        quality = "  ".join(
            f"{name} {100 * status.prequential[name].rolling_hit:.1f}%"
            for name in ROW_TITLES
            if name in status.prequential
        )
        return (
            f"{self.applied:,} events ({self.events_per_s:,.0f}/s, lag {self._lag():,}), {status.users:,} users, "
            f"{status.items:,} items, version {status.model.version or 'none yet'}{self._learning()}, "
            f"source {self.source or '-'}, rolling Hit@10: {quality or '-'}"
        )

    def tables(self) -> Group:
        """The live table and a few households."""
        status = self.status
        if status is None:
            return Group(Text("starting the broker, the worker and the trainer …"))
        model = status.model
        age = f"{model.age_s:.0f} s old" if model.age_s is not None else ""
        facts = Table(box=None, show_header=False, padding=(0, 2))
        facts.add_row("events", f"{self.applied:,}", "events/s", f"{self.events_per_s:,.0f}", "lag", f"{self._lag():,}")
        facts.add_row("users", f"{status.users:,}", "items", f"{status.items:,}", "edges", f"{status.edges:,}")
        facts.add_row("model", model.version or "none yet", "", age, "versions", str(len(self.versions)))
        facts.add_row("source", self.source or "none yet", "trainer", self._learning().strip(" ()") or "waits")
        return Group(facts, Text(), self.quality_table(rolling=True), Text(), *self._chosen)

    def quality_table(self, *, rolling: bool) -> Table:
        """The live model beside its baselines, on the same events."""
        assert self.status is not None
        scores = self.status.prequential
        title = "newest 2,000 purchases, each first a test" if rolling else "each purchase is first a test"
        table = Table(title, "Hit@10", "NDCG@10", "events tested", box=None, padding=(0, 2))
        for name, row_title in ROW_TITLES.items():
            if name in scores:
                s = scores[name]
                means = (s.rolling_hit, s.rolling_ndcg) if rolling else (s.hit, s.ndcg)
                style = "bold" if name == "model" else ""
                table.add_row(row_title, *(f"{100 * mean:.2f}%" for mean in means), f"{s.events:,}", style=style)
        return table

    def _learning(self) -> str:
        """What the trainer does, in brackets; empty while it waits."""
        trainer = self.status.trainer if self.status else None
        return f" ({trainer.share:.0%} of the next learned)" if trainer and trainer.doing == "learning" else ""

    def _lag(self) -> int:
        return max(self._feed.published - self.applied, 0)

    def _choose_households_if_due(self) -> None:
        """Some households that bought just now: their last products and recommendations."""
        if time.monotonic() - self._chosen_at > HOUSEHOLDS_EVERY_S:
            self._chosen_at = time.monotonic()
            self._chosen = list(self._choose_households())

    def _choose_households(self) -> Iterator[Text]:
        assert self._view is not None
        at = min(self.applied, len(self._purchases.clicks) - 1)
        recent = {c["user"] for c in self._purchases.clicks[max(at - RECENT_EVENTS, 0) : at]}
        shown = 0
        for name in self._random.sample(sorted(recent), len(recent)):
            if shown == HOUSEHOLDS_SHOWN:
                return
            if self._view.recommended(self._view.ids.of(name)) is None:
                continue
            found = lookup.user(self._config, self._view, name)
            assert found.recommended is not None
            self.source = found.recommended.source
            shown += 1
            bought = [self._title.get(step.item, step.item) for step in found.sequence[-3:]]
            offered = [item.title or item.item for item in found.recommended.items[:3]]
            yield Text(f"{name} bought {', '.join(bought)}", no_wrap=True, overflow="ellipsis")
            yield Text(f"    → {', '.join(offered)}", no_wrap=True, overflow="ellipsis", style="bold")

    def close(self) -> None:
        """Close the view."""
        if self._view is not None:
            self._view.close()


def empty_directory(data: Path) -> None:
    """Remove what an earlier demo left. Raises AnabranchError if the directory is not a demo's."""
    if data.exists() and any(data.iterdir()) and not (data / "DEMO").exists():
        raise AnabranchError(
            f"{data} was not made by a demo, which would remove it: name another directory with --data DIR"
        )
    shutil.rmtree(data, ignore_errors=True)
    data.mkdir(parents=True)
    (data / "DEMO").write_text("made by `anabranch demo`; removed by its next run\n")


def watch(console: Console, config: Config, feed: Feed, screen: Screen, check: Callable[[], None]) -> None:
    """Show the demo until the feed has ended and all that it published is applied. Raises AnabranchError."""
    plain = not console.is_terminal
    printed_at = 0.0
    applied_by: float | None = None
    with Live(console=console, refresh_per_second=4, transient=True) if not plain else contextlib.nullcontext() as live:
        while feed.is_alive() or screen.applied < feed.published:
            check()
            if feed.failure is not None:
                raise feed.failure
            if not feed.is_alive():
                applied_by = applied_by or time.monotonic() + APPLIED_WITHIN_S
                if time.monotonic() > applied_by:
                    raise AnabranchError(
                        f"{feed.published - screen.applied:,} events were not applied within {APPLIED_WITHIN_S:.0f} s: "
                        f"{config.data}/worker.log has the reason"
                    )
            screen.refresh()
            if plain and time.monotonic() - printed_at > LINE_EVERY_S:
                printed_at = time.monotonic()
                console.print(screen.line(), soft_wrap=True, highlight=False, markup=False)
            elif live is not None:
                live.update(screen.tables())
            time.sleep(1.0)
