"""The pages `/livez`, `/readyz` and `/startupz`, as Kubernetes probes and people ask for them.

Each answers 200 or 503 with a JSON document: `status`, and `problems`, a sentence for each thing that is missing.

/livez      the event loop turns, or nothing would answer, and each task of the process still runs. A restart repairs
            what it reports. A broker that is away, a rebalance, a pause and a full disk are not reported here.
/readyz     the process does its work now
/startupz   the process has started, or waits for a broker: a restart would not bring it sooner
"""

from collections.abc import Awaitable, Callable, Sequence

import msgspec
from aiohttp import web

from stream.http.problems import Problem

Check = Callable[[], Sequence[str]]
"""The problems of now, each a sentence; none: all is well."""

STARTING = "the process is starting"
HEALTH_PATHS = ("/livez", "/readyz", "/startupz")


class Health(msgspec.Struct):
    """The document of a health page."""

    status: str
    problems: list[str] = []


class Checks(msgspec.Struct, frozen=True):
    """What the three pages ask."""

    live: Check = lambda: ()
    ready: Check = lambda: (STARTING,)
    started: Check = lambda: ()


def add_health(app: web.Application, checks: Checks) -> None:
    """Answer the three paths."""
    for path, check, bad in (
        ("/livez", checks.live, "not alive"),
        ("/readyz", checks.ready, "not ready"),
        ("/startupz", checks.started, "starting"),
    ):
        app.router.add_get(path, _page(check, bad))


def _page(check: Check, bad: str) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def page(_: web.Request) -> web.StreamResponse:
        problems = list(check())
        return web.Response(
            body=msgspec.json.encode(Health(bad if problems else "ok", problems)) + b"\n",
            status=503 if problems else 200,
            content_type="application/json",
            headers={"Cache-Control": "no-store"},
        )

    return page


def waiting_app(what: str, *, api: bool = False) -> web.Application:
    """The pages of a process that waits for a broker before it can begin, and of `/v1/` where it will have it."""
    app = web.Application()
    add_health(app, Checks(ready=lambda: (what,)))
    if api:

        async def later(_: web.Request) -> web.StreamResponse:
            return Problem(503, f"{what[:1].upper()}{what[1:]}.", {"Retry-After": "1"}).response()

        app.router.add_route("*", "/v1/{rest:.*}", later)
    return app
