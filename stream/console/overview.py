"""The first page: does everything run, and how well does the model predict beside its rivals?"""

from typing import Any, NamedTuple

import msgspec
from aiohttp import web

from stream.console.console import CONSOLE, Console
from stream.console.history import COARSE_S, FINE_S, KEYS, Sample, columns
from stream.console.live import NAMES, Live
from stream.console.notices import answer, redirect
from stream.console.page import SECURITY_HEADERS, duration
from stream.operate.send_command import send_command
from stream.times import now_ms

ROWS_OF_VALUES = 12
PAUSE_REPLY_WITHIN_S = 8.0


class Headline(NamedTuple):
    """One sentence about everything."""

    state: str
    """`good`, `warn`, `bad` or `wait`."""
    text: str
    more: str = ""


async def page(request: web.Request) -> web.Response:
    """The whole page."""
    console = request.app[CONSOLE]
    return console.pages.render(
        request, "overview.html", week=_week(request), names=NAMES, notice=answer(request), **_now(console)
    )


async def now(request: web.Request) -> web.Response:
    """The part that is loaded again every two seconds."""
    console = request.app[CONSOLE]
    return console.pages.render(request, "overview_now.html", **_now(console))


async def members(request: web.Request) -> web.Response:
    """Partitions, versions and members, loaded again every three seconds."""
    console = request.app[CONSOLE]
    return console.pages.render(request, "overview_members.html", **_now(console))


async def history(request: web.Request) -> web.Response:
    """The plots' values."""
    samples, week = request.app[CONSOLE].history, _week(request)
    body = msgspec.json.encode(columns(samples.samples(week=week), COARSE_S if week else FINE_S))
    return web.Response(body=body, content_type="application/json", headers=SECURITY_HEADERS)


async def values(request: web.Request) -> web.Response:
    """The plots' values as a table, for those who cannot see a plot."""
    console = request.app[CONSOLE]
    shown = spread(console.history.samples(week=_week(request)), ROWS_OF_VALUES)
    return console.pages.render(request, "overview_values.html", samples=shown, keys=KEYS, names=NAMES)


async def pause(request: web.Request) -> web.StreamResponse:
    """Stop or continue reading clicks, on every worker."""
    console = request.app[CONSOLE]
    name = "resume" if (await request.post()).get("do") == "resume" else "pause"

    async def send() -> str:
        reply = await send_command(console.config, name, ("done",), PAUSE_REPLY_WITHIN_S)
        return reply.message

    return redirect(request, "/", await console.act(send, f"No worker has confirmed the command {name!r}"))


def spread(samples: list[Sample], count: int) -> list[Sample]:
    """So many samples, evenly over all, the newest first and always among them."""
    newest_first = samples[::-1]
    step = max(len(samples) / count, 1.0)
    return [newest_first[int(n * step)] for n in range(min(count, len(samples)))]


def _week(request: web.Request) -> bool:
    return request.query.get("range") == "week"


def _now(console: Console) -> dict[str, Any]:
    found, broker = console.live(), console.broker
    pointers = broker.pointers
    return {
        "live": found,
        "headline": headline(console, found),
        "broker": broker,
        "address": console.config.broker,
        "champion": pointers.champion,
        "candidate": pointers.scored,
        "newest": console.history.fine[-1] if console.history.fine else None,
        "latency": _last_latency(console),
        "sent": broker.newest,
    }


def _last_latency(console: Console) -> Sample | None:
    """The newest sample with a latency, of the last two minutes."""
    since = now_ms() - 120_000
    return next((s for s in reversed(console.history.fine) if s.latency_ms is not None and s.ts > since), None)


def headline(console: Console, found: Live) -> Headline:
    """What an operator wants to know first."""
    broker = console.broker
    if not broker.asked and not found.known:
        return Headline("wait", "Asking the broker …", console.config.broker)
    if console.away:
        since = duration((now_ms() - broker.since_ts) / 1000)
        return Headline("bad", "The broker does not answer", f"For {since}. Below is what was known then. {broker.why}")
    if not found.known:
        return Headline(
            "wait", "No worker and no trainer is known", "`anabranch up` starts both; one that runs appears in seconds."
        )
    total, answering = len(found.partitions), found.answering
    version = f"Version {', '.join(found.versions)} answers." if found.versions else "Popular items are recommended."
    if not found.partitions:
        return Headline("warn", "No worker owns a partition", version)
    if any(not row.owner for row in found.partitions):
        return Headline("bad", f"{answering} of {total} partitions answer", found.warnings[0])
    if answering < total:
        return Headline("warn", f"{answering} of {total} partitions answer", version)
    if not any(trainer.lives for trainer in found.trainers):
        return Headline("warn", "Everything answers, nothing is learned", f"{version} No trainer runs.")
    return Headline("good", "Everything answers", version)
