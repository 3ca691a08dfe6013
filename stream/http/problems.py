"""Errors as a client gets them: a JSON document of RFC 9457 with a sentence that says what is wrong."""

from collections.abc import Mapping
from http import HTTPStatus

import msgspec
from aiohttp import web

CONTENT_TYPE = "application/problem+json"


class RejectedEvent(msgspec.Struct, frozen=True):
    """An event that was not sent, and why."""

    index: int
    """Its place among the events of the request, from 0."""
    reason: str
    again: bool = False
    """Whether sending it again can help: Kafka did not take it in time. Give such events an `id`: if Kafka took it
    after all, the second is dropped."""


class ProblemDetails(msgspec.Struct, frozen=True, omit_defaults=True):
    """What went wrong (RFC 9457)."""

    title: str
    """The name of the status."""
    status: int
    detail: str
    """A sentence for the person who wrote the client."""
    rejected: list[RejectedEvent] = []
    """The events that were not sent, of a request that sends events."""


class Problem(Exception):
    """The request is answered with this status, sentence and headers."""

    def __init__(
        self,
        status: int,
        detail: str,
        headers: Mapping[str, str] | None = None,
        rejected: list[RejectedEvent] | None = None,
    ) -> None:
        super().__init__(detail)
        self.details = ProblemDetails(HTTPStatus(status).phrase, status, detail, rejected or [])
        self.headers = dict(headers or {})

    def response(self) -> web.Response:
        """The answer."""
        body = msgspec.json.encode(self.details)
        headers = {"Cache-Control": "no-store"} | self.headers
        return web.Response(status=self.details.status, body=body, content_type=CONTENT_TYPE, headers=headers)


def problem_of(error: web.HTTPException, path: str) -> Problem:
    """The problem in place of an error that aiohttp raises: an unknown path, a wrong method, a body too large."""
    headers = {name: error.headers[name] for name in ("Allow", "Retry-After") if name in error.headers}
    if error.status == 404:
        return Problem(404, "There is nothing at this path. GET /openapi.json describes what there is.")
    if isinstance(error, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted({*error.allowed_methods, "OPTIONS"}))
        return Problem(405, f"{error.method} is not possible here. These are: {allowed}.", headers | {"Allow": allowed})
    return Problem(error.status, error.reason, headers)
