"""One user: the sequence, what is recommended now and why, what was recommended when."""

import asyncio
import itertools
from collections.abc import Awaitable
from typing import Any, NamedTuple, TypeVar

import msgspec
from aiohttp import web

from stream.console.console import CONSOLE
from stream.console.named import name_of, problem_of
from stream.console.page import query_of
from stream.console.topic_scan import Bounds, newest
from stream.errors import AnabranchError
from stream.kafka.keys import partition_of
from stream.kafka.messages import UNREADABLE, Recommendation

T = TypeVar("T")

BEFORE = Bounds(found=20, records=40_000, seconds=4.0)
"""How far back the recommendations of a user are searched."""


class Earlier(NamedTuple):
    """A recommendation that was sent."""

    at: int
    message: Recommendation
    new: frozenset[str]
    """Items that the one before it did not have."""


async def page(request: web.Request) -> web.Response:
    """The page of a user, or the form to find one."""
    console, name = request.app[CONSOLE], query_of(request, "id")
    return console.pages.render(
        request, "user.html", user=name, problem=problem_of(name, "user"), sent=console.broker.newest
    )


async def now(request: web.Request) -> web.Response:
    """The sequence and the recommendation of now, asked of the user's owner."""
    console, name = request.app[CONSOLE], name_of(request, "user")
    report, reply = await asyncio.gather(_or_error(console.user(name)), _or_error(console.recommendation(name)))
    if isinstance(report, AnabranchError) and isinstance(reply, AnabranchError):
        raise report
    sequence = [] if isinstance(report, AnabranchError) else report.sequence[::-1]
    titles = {step.item: step.title for step in sequence if step.title}
    return console.pages.render(
        request, "user_now.html", user=name, report=report, reply=reply, sequence=sequence, titles=titles,
        failed=lambda found: isinstance(found, AnabranchError),
    )  # fmt: skip


async def before(request: web.Request) -> web.Response:
    """What was recommended when, from the end of the user's partition of `recommendations`."""
    console, name = request.app[CONSOLE], name_of(request, "user")
    topic, key = console.config.topics.recommendations, name.encode()
    partitions = len(console.broker.ends)
    numbers = [partition_of(name, partitions)] if partitions else None
    async with console.scanning():
        scanned = await newest(console.config, topic, numbers, lambda record: record.key == key, BEFORE)
    earlier = [_decoded(record) for record in scanned.records]
    return console.pages.render(
        request, "user_before.html", user=name, earlier=with_changes([e for e in earlier if e is not None]),
        scanned=scanned, topic=topic, forgotten=sum(e is None for e in earlier),
    )  # fmt: skip


def with_changes(earlier: list[Earlier]) -> list[Earlier]:
    """Each with the items that the one before it did not have; newest first."""
    shown = []
    for newer, older in itertools.zip_longest(earlier, earlier[1:]):
        had = {item.item for item in older.message.items} if older is not None else None
        new = frozenset() if had is None else frozenset(i.item for i in newer.message.items if i.item not in had)
        shown.append(newer._replace(new=new))
    return shown


def _decoded(record: Any) -> Earlier | None:
    try:
        message = msgspec.json.decode(record.value or b"", type=Recommendation)
    except UNREADABLE:  # a tombstone: the user was forgotten
        return None
    return Earlier(record.timestamp, message, frozenset())


async def _or_error(asked: Awaitable[T]) -> T | AnabranchError:
    try:
        return await asked
    except AnabranchError as error:
        return error
