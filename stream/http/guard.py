"""What every request of the interface passes on its way to a handler: limits, tokens, origins; and errors on the way
back. Everything else of the process (health, metrics, the console) passes unchanged."""

import asyncio
import logging

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

from stream.config import ServeSettings
from stream.http.local_name import foreign_name
from stream.http.problems import Problem, problem_of
from stream.http.rate_limit import RateLimit, address_of
from stream.http.routes import Route
from stream.http.tokens import Caller, Tokens
from stream.kafka.rarely import Rarely
from stream.printable import printable

log = logging.getLogger("anabranch.http")

PREFIXES = ("/v1", "/openapi.json")
PREFLIGHT_S = 600
"""How long a browser keeps what a preflight allowed."""
CALLER = web.RequestKey("caller", Caller)


class Guard:
    """The checks, as a middleware and as a wrapper of handlers."""

    def __init__(self, settings: ServeSettings, listens_on: str) -> None:
        """`listens_on` is the address of the server, as in a setting `http`."""
        self._settings, self._listens_on = settings, listens_on
        self._tokens, self._limit = Tokens(settings), RateLimit(settings.client_requests_per_s)
        self._origins, self._rarely = settings.origins, Rarely()
        self.stopping = False
        """Whether connections are to be closed after their next answer."""

    def protect(self, route: Route, handler: Handler) -> Handler:
        """The handler for callers who have the route's right."""

        async def protected(request: web.Request) -> web.StreamResponse:
            if route.right is not None:
                self._tokens.require(request[CALLER], route.right)
            return await handler(request)

        return protected

    @property
    def middleware(self) -> Middleware:
        """Checks requests to the interface, and turns errors into documents."""

        @web.middleware
        async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
            if not request.path.startswith(PREFIXES):
                return await handler(request)
            response = await self._answer(request, handler)
            self._set_headers(request, response)
            return response

        return guarded

    async def _answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            request[CALLER] = self._tokens.caller(request.headers.get(hdrs.AUTHORIZATION))
            self._check_name(request)
            self._check_limit(request)
            if request.method == hdrs.METH_OPTIONS:
                return self._options(request)
            return await handler(request)
        except Problem as problem:
            return problem.response()
        except web.HTTPException as error:
            if error.status < 400:
                return error
            return problem_of(error, request.path).response()
        except asyncio.CancelledError:
            raise
        except Exception:
            if self._rarely.may_log():
                log.exception("%s %s failed", request.method, printable(request.path)[:200])
            return Problem(500, "This process failed. Its log has the reason.").response()

    def _check_name(self, request: web.Request) -> None:
        if request[CALLER].name or self._settings.read_token or self._settings.proxies:
            return  # a page of another site has no token
        if (name := foreign_name(self._listens_on, request.host)) is not None:
            raise Problem(
                403,
                f"This process listens on this machine only, and was asked for as {name!r}. Ask for localhost; or set "
                f"serve.read_token, or serve.proxies where a proxy of yours asks.",
            )

    def _check_limit(self, request: web.Request) -> None:
        forwarded = request.headers.getall("X-Forwarded-For", [])
        address = address_of(request.remote, forwarded, self._settings.proxies)
        if wait_s := self._limit.wait_s(f"{address} {request[CALLER].name}"):
            raise Problem(
                429,
                f"More than {self._settings.client_requests_per_s:g} requests a second come from this client.",
                {"Retry-After": str(wait_s)},
            )

    def _options(self, request: web.Request) -> web.Response:
        """The answer to OPTIONS: what is possible at the path, and to a preflight what a page may do."""
        info = request.match_info
        error = info.http_exception
        if error is not None and error.status == 404:
            raise error
        methods = error.allowed_methods if isinstance(error, web.HTTPMethodNotAllowed) else set[str]()
        allowed = ", ".join(sorted({*methods, hdrs.METH_OPTIONS}))
        response = web.Response(status=204, headers={"Allow": allowed, "Cache-Control": "no-store"})
        if self._allowed_origin(request) and hdrs.ACCESS_CONTROL_REQUEST_METHOD in request.headers:
            response.headers[hdrs.ACCESS_CONTROL_ALLOW_METHODS] = allowed
            response.headers[hdrs.ACCESS_CONTROL_ALLOW_HEADERS] = "Authorization, Content-Type"
            response.headers[hdrs.ACCESS_CONTROL_MAX_AGE] = str(PREFLIGHT_S)
        return response

    def _set_headers(self, request: web.Request, response: web.StreamResponse) -> None:
        headers = response.headers
        headers["X-Content-Type-Options"] = "nosniff"
        headers["Server"] = "anabranch"
        if self._origins:
            if "*" not in self._origins:
                headers[hdrs.VARY] = hdrs.ORIGIN
            if origin := self._allowed_origin(request):
                headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = origin
                headers[hdrs.ACCESS_CONTROL_EXPOSE_HEADERS] = "Retry-After, WWW-Authenticate"
        if self.stopping:
            response.force_close()

    def _allowed_origin(self, request: web.Request) -> str:
        origin = request.headers.get(hdrs.ORIGIN, "")
        if not origin or not self._origins:
            return ""
        if "*" in self._origins:
            return "*"
        return origin if origin in self._origins else ""
