"""One item: what follows it, now and at past times, and whether it is recommended."""

import asyncio

from aiohttp import web

from stream.console.console import CONSOLE
from stream.console.graph_picture import MAX_FIRST, MAX_SECOND, Link, draw
from stream.console.named import name_of, problem_of
from stream.console.notices import answer, redirect
from stream.console.page import query_of, url
from stream.kafka.withdrawals import publish_withdrawal

HOUR, DAY = 3_600_000, 86_400_000
STEPS_BACK = (
    ("1 year before", 365 * DAY),
    ("180 days before", 180 * DAY),
    ("90 days before", 90 * DAY),
    ("30 days before", 30 * DAY),
    ("14 days before", 14 * DAY),
    ("7 days before", 7 * DAY),
    ("3 days before", 3 * DAY),
    ("1 day before", DAY),
    ("6 hours before", 6 * HOUR),
    ("1 hour before", HOUR),
    ("now", 0),
)
"""Positions of the slider: times before the item's newest event."""


async def page(request: web.Request) -> web.Response:
    """The page of an item, or the form to find one."""
    console, name = request.app[CONSOLE], query_of(request, "id")
    return console.pages.render(
        request,
        "item.html",
        item=name,
        problem=problem_of(name, "item"),
        notice=answer(request),
        steps=STEPS_BACK,
        sent=console.broker.newest,
    )


async def now(request: web.Request) -> web.Response:
    """What the state knows of the item, asked of the workers."""
    console, name = request.app[CONSOLE], name_of(request, "item")
    found = await console.item(name)
    return console.pages.render(request, "item_now.html", item=name, report=found.report, missing=found.missing)


async def picture(request: web.Request) -> web.Response:
    """The item's neighbourhood at the slider's time: what followed it, and what followed that."""
    console, name = request.app[CONSOLE], name_of(request, "item")
    label, back = STEPS_BACK[_position(request)]
    found = await console.item(name)
    title, at = found.report.title, 0
    if back and found.newest_ts:
        at = max(found.newest_ts - back, 1)
        found = await console.item(name, at)
    first = [Link(f.item, f.title, f.weight) for f in found.report.next][:MAX_FIRST]
    second = await asyncio.gather(*(console.item(link.item, at) for link in first), return_exceptions=True)
    theirs = {
        link.item: [Link(f.item, f.title, f.weight) for f in of.report.next][:MAX_SECOND]
        for link, of in zip(first, second, strict=True)
        if not isinstance(of, BaseException)
    }
    missing = [*found.missing, *(str(of) for of in second if isinstance(of, BaseException))]
    return console.pages.render(
        request, "item_picture.html", item=name, drawn=draw(Link(name, title, 0.0), first, theirs), label=label,
        at=at or None, missing=missing[:3],
    )  # fmt: skip


async def withdraw(request: web.Request) -> web.StreamResponse:
    """Recommend the item to nobody, or to everybody again."""
    console, name = request.app[CONSOLE], name_of(request, "item")
    withdrawn = (await request.post()).get("do") != "undo"

    async def publish() -> None:
        await publish_withdrawal(console.config, name, withdrawn=withdrawn)

    await console.act(publish, "The item is as it was")
    done = "is recommended to nobody from now on" if withdrawn else "may be recommended again"
    return redirect(request, url("/item", id=name), f"{name} {done}.")


def _position(request: web.Request) -> int:
    """The slider's position; the last one for anything else."""
    text = query_of(request, "step")
    return min(int(text), len(STEPS_BACK) - 1) if text.isascii() and text.isdigit() else len(STEPS_BACK) - 1
