"""The addresses of the console, and what holds for all: who may look, who may act, what an error looks like."""

import hmac
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from urllib.parse import SplitResult, urlsplit

from aiohttp import web

from stream.config import Config
from stream.console import cycles, dead_letters, item, overview, sign_in, user, versions
from stream.console.assets import Assets
from stream.console.broker_watch import BrokerWatch
from stream.console.console import CONSOLE, Console, Members, Requests
from stream.console.form import BadForm, read_form
from stream.console.page import Pages, go_to, url
from stream.console.session import COOKIE, Sessions
from stream.errors import AnabranchError
from stream.http.local_name import foreign_name

log = logging.getLogger("anabranch.console")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

MAX_FORM_BYTES = 16 << 10

PAGES: dict[str, Handler] = {
    "/": overview.page,
    "/overview/now": overview.now,
    "/overview/members": overview.members,
    "/overview/history.json": overview.history,
    "/overview/values": overview.values,
    "/user": user.page,
    "/user/now": user.now,
    "/user/before": user.before,
    "/item": item.page,
    "/item/now": item.now,
    "/item/picture": item.picture,
    "/versions": versions.page,
    "/dead-letters": dead_letters.page,
    "/dead-letters/newest": dead_letters.newest,
    "/cycles": cycles.page,
    "/cycles/now": cycles.now,
}
ACTIONS: dict[str, Handler] = {
    "/item/withdraw": item.withdraw,
    "/versions/serve": versions.serve,
    "/versions/unpin": versions.unpin,
    "/versions/shadow": versions.shadow,
    "/cycles/start": cycles.start,
    "/pause": overview.pause,
}


def add_routes(
    app: web.Application,
    config: Config,
    members: Members,
    client_of: Callable[[], Requests | None],
    broker: BrokerWatch | None = None,
) -> None:
    """Serve the console at `/`. `members` and what it reads by itself start and end with `app`.

    `client_of` gives what asks the workers, None until a broker answers. `broker` is for tests.
    """
    assets = Assets()
    sessions = Sessions(config.serve.tokens("read"), config.serve.tokens("operate"))
    console = Console(config, members, client_of, Pages(assets, sessions), sessions, broker or BrokerWatch(config))
    app[CONSOLE] = console
    app.router.add_get("/assets/{name}", assets.handle)
    app.router.add_get("/sign-in", _guarded(console, sign_in.page, needs=None))
    app.router.add_post("/sign-in", _guarded(console, sign_in.sign_in, needs=None))
    app.router.add_post("/sign-out", _guarded(console, sign_in.sign_out, needs=None))
    for path, handler in PAGES.items():
        app.router.add_get(path, _guarded(console, handler, needs="look"))
    for path, handler in ACTIONS.items():
        app.router.add_post(path, _guarded(console, handler, needs="operate"))

    async def run(_: web.Application) -> AsyncIterator[None]:
        await console.start()
        yield
        await console.stop()

    app.cleanup_ctx.append(run)


def _guarded(console: Console, handler: Handler, needs: str | None) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        if refused := _refusal(console, request):
            return console.error(request, 403, "This request is refused", refused)
        try:
            if needs and (response := await _check(console, request, needs)):
                return response
            return await handler(request)
        except web.HTTPException:
            raise
        except BadForm as bad:
            return console.error(request, bad.status, bad.title, str(bad))
        except (AnabranchError, TimeoutError) as error:
            return console.error(request, 503, "This cannot be shown now", str(error) or "it took too long")
        except Exception:
            log.exception("the page %s failed", request.path)
            return console.error(request, 500, "This page failed", "The log of `anabranch serve` has the reason.")

    return handle


def _refusal(console: Console, request: web.Request) -> str | None:
    """Why a request is refused, by whom it is sent: it was made by a page of another site."""
    serve = console.config.serve
    if console.sessions.looking_is_open and not serve.proxies:
        host = foreign_name(serve.http, request.host)
        if host is not None:
            return (
                f"This console listens on this machine only, and was asked for as {host!r}. Open it as localhost, or "
                f"set serve.read_token."
            )
    if request.method != "POST":
        return None
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    same = site == "same-origin" if site is not None else origin is None or _split(origin).netloc == request.host
    return None if same else "The form was sent by a page of another site."


def _split(address: str) -> SplitResult:
    """The parts of an address; empty ones where it is none."""
    try:
        return urlsplit(address)
    except ValueError:
        return urlsplit("")


async def _check(console: Console, request: web.Request, needs: str) -> web.StreamResponse | None:
    """The answer to somebody who may not; None for somebody who may."""
    session = console.sessions.session(request.cookies.get(COOKIE))
    if needs == "look":
        if console.sessions.looking_is_open or session is not None:
            return None
        if request.headers.get("HX-Request") or request.path.endswith(".json"):
            return console.error(request, 401, "Your session has ended", "Load the page again to sign in.")
        return go_to(url("/sign-in", to=request.path_qs))
    if not console.sessions.acting_is_possible:
        return console.error(
            request, 403, "Nobody can act here", "No token for acting is set: serve.operate_token (docs/console.md)."
        )
    if session is None or session.right != "operate":
        return console.error(request, 403, "You may look, not act", "Sign in with the operate token first.")
    form = await read_form(request, MAX_FORM_BYTES)
    if not hmac.compare_digest(form.get("csrf", "").encode(errors="replace"), session.csrf.encode()):
        return console.error(request, 403, "This form is of another session", "Go back, reload the page and try again.")
    return None
