"""The interface for shops: `/v1/` and its description, on any application of aiohttp.

`anabranch serve` adds it to its application, and a worker with `worker.api` to its own. They differ in their `Answers`.
"""

import asyncio
from importlib.metadata import version
from typing import Protocol
from urllib.parse import unquote_to_bytes

import msgspec
from aiohttp import web

from stream.config import Config
from stream.http.answers import Answers
from stream.http.event_body import JSON, JSON_LINES, EventReader, EventsTaken
from stream.http.guard import CALLER, Guard
from stream.http.openapi import description
from stream.http.problems import Problem, RejectedEvent
from stream.http.routes import DESCRIPTION, MAX_LIMIT, ROUTES
from stream.kafka.click_values import Invalid, read_identifier

BODY_WITHIN_S = 10.0
"""A body that takes longer to come is refused."""
AGAIN_S = 5
"""After this long a client may send events again that Kafka did not take."""
MAX_TRACE_HEADER = 512
"""A longer header of a trace is left out: workers pass none on."""
RELATED_MAX_AGE_S = 10
JSON_LINES_NAMES = (JSON_LINES, "application/jsonl", "application/x-jsonlines")


class ApiCounts(Protocol):
    """Counts what the interface did."""

    def recommended(self, by: str) -> None:
        """A recommendation came from the owner of the user, or from a fallback: `owner`, `last`, `popular`, `none`."""

    def sent(self, outcome: str, count: int) -> None:
        """So many events were `accepted`, `invalid` or `unsent`."""


class Api:
    """The handlers of the routes."""

    def __init__(self, config: Config, answers: Answers, counts: ApiCounts, listens_on: str = "") -> None:
        """`listens_on` is the setting with the address of its server; `serve.http` if it is empty."""
        self._answers, self._counts = answers, counts
        self._max_body_bytes = config.serve.max_body_bytes
        self._cached = "private" if config.serve.read_token else "public"
        self._events = EventReader(config.clicks, config.state)
        self._document = msgspec.json.encode(description(version("anabranch"), config.clicks.fields, config.state))
        self.guard = Guard(config.serve, listens_on or config.serve.http)

    def add_to(self, app: web.Application) -> None:
        """Add the routes and their middleware."""
        handlers = {
            "recommendations": self._recommendations,
            "related": self._related,
            "events": self._send_events,
            "openapi": self._describe,
        }
        for route in (*ROUTES, DESCRIPTION):
            handler = self.guard.protect(route, handlers[route.name])
            if route.method == "GET":
                app.router.add_get(route.path, handler)
            else:
                app.router.add_route(route.method, route.path, handler)
        app.middlewares.append(self.guard.middleware)

    async def _recommendations(self, request: web.Request) -> web.Response:
        user, limit = _identifier(request, "user"), _limit(request)
        answer = await self._answers.recommend(user)
        self._counts.recommended(answer.fallback or "owner")
        return _json(msgspec.structs.replace(answer, items=answer.items[:limit]), "private, no-store")

    async def _related(self, request: web.Request) -> web.Response:
        item, limit = _identifier(request, "item"), _limit(request)
        answer = await self._answers.related(item)
        kept = "no-store" if answer.fallback else f"{self._cached}, max-age={RELATED_MAX_AGE_S}"
        return _json(msgspec.structs.replace(answer, items=answer.items[:limit]), kept)

    async def _send_events(self, request: web.Request) -> web.Response:
        content_type, body = await self._read_body(request)
        may_forget = "operate" in request[CALLER].rights
        read = self._events.read(body, content_type, may_forget=may_forget)
        traced = _trace_headers(request)
        outcomes = await self._answers.publish([event._replace(headers=traced) for event in read.valid.values()])
        unsent = [
            RejectedEvent(index, outcome.reason, outcome.again)
            for index, outcome in zip(read.valid, outcomes, strict=True)
            if outcome is not None
        ]
        accepted = len(read.valid) - len(unsent)
        for outcome, count in (("accepted", accepted), ("invalid", len(read.rejected)), ("unsent", len(unsent))):
            self._counts.sent(outcome, count)
        rejected = sorted([*read.rejected, *unsent], key=lambda event: event.index)
        if accepted:
            return _json(EventsTaken(accepted, rejected), "no-store", status=202)
        if any(event.again for event in unsent):
            raise Problem(503, "Kafka acknowledged no event in time.", {"Retry-After": str(AGAIN_S)}, rejected)
        raise Problem(422, f"No event was accepted: {rejected[0].reason}.", rejected=rejected)

    async def _read_body(self, request: web.Request) -> tuple[str, bytes]:
        content_type = request.content_type
        if content_type != JSON and content_type not in JSON_LINES_NAMES:
            raise Problem(415, f"Events are sent with Content-Type: {JSON}, or {JSON_LINES} for JSON lines.")
        if request.headers.get("Content-Encoding", "identity") != "identity":
            raise Problem(415, "A compressed body is not read: send it without Content-Encoding.")
        size = request.content_length
        if size is not None and size > self._max_body_bytes:
            raise self._too_large()
        parts, read = [], 0
        try:
            async with asyncio.timeout(BODY_WITHIN_S):
                async for part in request.content.iter_any():
                    read += len(part)
                    if read > self._max_body_bytes:
                        raise self._too_large()
                    parts.append(part)
        except TimeoutError:
            raise Problem(
                408, f"The body did not come within {BODY_WITHIN_S:.0f} s.", {"Connection": "close"}
            ) from None
        return JSON if content_type == JSON else JSON_LINES, b"".join(parts)

    def _too_large(self) -> Problem:
        return Problem(
            413, f"The body is larger than {self._max_body_bytes:,} bytes: send the events in several requests.",
            {"Connection": "close"},
        )  # fmt: skip

    async def _describe(self, request: web.Request) -> web.Response:
        return web.Response(body=self._document, content_type=JSON, headers={"Cache-Control": "public, max-age=300"})


def _identifier(request: web.Request, name: str) -> str:
    """The user or item in the path. Raises Problem."""
    # aiohttp leaves escapes that are no UTF-8 as they are: another id could be meant by them.
    segment = request.rel_url.raw_path.split("/")[3]
    try:
        return read_identifier(unquote_to_bytes(segment).decode(), name).decode()
    except UnicodeDecodeError:
        raise Problem(400, f"The {name} in the path is not percent-encoded UTF-8.") from None
    except Invalid as reason:
        raise Problem(400, f"The {reason}.") from None


def _limit(request: web.Request) -> int:
    text = request.query.get("limit", str(MAX_LIMIT))
    if not (text.isascii() and text.isdecimal() and len(text) <= 9 and 1 <= int(text) <= MAX_LIMIT):
        raise Problem(400, f"limit is {text[:40]!r}: it is a whole number from 1 to {MAX_LIMIT:,}.")
    return int(text)


def _trace_headers(request: web.Request) -> tuple[tuple[str, bytes], ...]:
    """The headers of W3C Trace Context, for the events' messages; the worker passes on valid ones (docs/tracing.md)."""
    found = ((name, request.headers.get(name, "")) for name in ("traceparent", "tracestate"))
    return tuple((name, value.encode()) for name, value in found if 0 < len(value) <= MAX_TRACE_HEADER)


def _json(answer: msgspec.Struct, kept: str, status: int = 200) -> web.Response:
    return web.Response(
        status=status, body=msgspec.json.encode(answer), content_type=JSON, headers={"Cache-Control": kept}
    )
