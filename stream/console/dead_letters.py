"""Messages that were refused: why, how many, and what they looked like. Their bytes come from anybody."""

import re
from collections import Counter
from typing import Any, NamedTuple

from aiohttp import web

from stream.console.console import CONSOLE
from stream.console.topic_scan import Bounds
from stream.console.topic_scan import newest as newest_records

NEWEST = Bounds(found=1_000, records=1_000, seconds=4.0, bytes=8 << 20)
SAMPLES, MAX_REASONS = 3, 30
SHOWN_BYTES = 600
VALUES = re.compile(r"'[^']*'|\"[^\"]*\"|(?<![\w:.-])[0-9][0-9,.]*(?![\w:-])")


class Letter(NamedTuple):
    """One of them, as a person may see it."""

    ts: int
    reason: str
    place: str
    """Where it came from."""
    key: str
    value: str
    cut: int
    """Bytes that are not shown."""


class Reason(NamedTuple):
    """Letters with one reason, whatever values it names."""

    text: str
    letters: int
    share: float
    newest_ts: int
    oldest_ts: int
    samples: list[Letter]


async def page(request: web.Request) -> web.Response:
    """The page; the topic is read when it is there."""
    console = request.app[CONSOLE]
    return console.pages.render(
        request, "dead_letters.html", topic=console.config.topics.dead_letters, counts=console.live().counts,
        bounds=NEWEST,
    )  # fmt: skip


async def newest(request: web.Request) -> web.Response:
    """The newest letters, by reason."""
    console = request.app[CONSOLE]
    topic = console.config.topics.dead_letters
    async with console.scanning():
        scanned = await newest_records(console.config, topic, None, lambda _: True, NEWEST)
    return console.pages.render(
        request, "dead_letters_newest.html", reasons=reasons(scanned.records), scanned=scanned, topic=topic
    )


def reasons(records: list[Any]) -> list[Reason]:
    """The records by reason, the most frequent first; those beyond MAX_REASONS together."""
    by_reason: dict[str, list[Any]] = {}
    for record in records:
        by_reason.setdefault(without_values(_header(record, "reason")), []).append(record)
    order = [text for text, _ in Counter({text: len(of) for text, of in by_reason.items()}).most_common()]
    if len(order) > MAX_REASONS:
        rest = [record for text in order[MAX_REASONS - 1 :] for record in by_reason[text]]
        order = [*order[: MAX_REASONS - 1], "other reasons"]
        by_reason["other reasons"] = rest
    found = []
    for text in order:
        of = by_reason[text]
        times = [record.timestamp for record in of]
        share = len(of) / len(records)
        found.append(Reason(text, len(of), share, max(times), min(times), [letter(r) for r in of[:SAMPLES]]))
    return found


def without_values(reason: str) -> str:
    """A reason without the values that it quotes, so that equal mistakes count together.

    >>> without_values("event 'buy' is unknown"), without_values("")
    ('event … is unknown', 'no reason is given')
    """
    return VALUES.sub("…", reason[:300]).strip() or "no reason is given"


def letter(record: Any) -> Letter:
    """A record as a person may see it."""
    value = record.value or b""
    place = " · ".join(
        f"{name} {found}" for name in ("topic", "partition", "offset") if (found := _header(record, name))
    )
    return Letter(
        ts=record.timestamp,
        reason=_header(record, "reason") or "no reason is given",
        place=place,
        key=readable((record.key or b"")[:SHOWN_BYTES]),
        value=readable(value[:SHOWN_BYTES]),
        cut=max(len(value) - SHOWN_BYTES, 0),
    )


def readable(data: bytes) -> str:
    r"""Bytes as text; those that are no UTF-8 as escapes.

    >>> readable(b"caf\xc3\xa9 \xff")
    'café \\xff'
    """
    return data.decode("utf-8", "backslashreplace")


def _header(record: Any, name: str) -> str:
    for key, value in record.headers or ():
        if key == name:
            return readable((value or b"")[:1000])
    return ""
