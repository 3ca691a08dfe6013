"""The page `/metrics`, in Prometheus' text format."""

import time
from collections.abc import Awaitable, Callable

from aiohttp import web
from aiohttp.typedefs import Middleware
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

from stream.metrics.instruments import HttpInstruments

UNKNOWN_ROUTE = "other"
"""The route of a path that the interface does not have."""


def add_metrics(app: web.Application, registry: CollectorRegistry) -> None:
    """Answer `/metrics` with what is registered."""

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})

    app.router.add_get("/metrics", metrics)


def measured(instruments: HttpInstruments) -> Middleware:
    """A middleware that counts and times the answers of an application."""

    @web.middleware
    async def measure(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        began, code = time.perf_counter(), 500
        resource = request.match_info.route.resource
        route = resource.canonical if resource is not None else UNKNOWN_ROUTE
        try:
            response = await handler(request)
            code = response.status
            return response
        except web.HTTPException as error:
            code = error.status
            raise
        finally:
            instruments.answered(route, code, time.perf_counter() - began)

    return measure
