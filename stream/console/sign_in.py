"""Signing in with a token, and out."""

from aiohttp import web

from stream.console.console import CONSOLE
from stream.console.form import read_form
from stream.console.page import go_to, query_of
from stream.console.session import COOKIE, SESSION_S
from stream.http.rate_limit import address_of

MAX_FORM_BYTES = 4 << 10


async def page(request: web.Request) -> web.Response:
    """The form."""
    return request.app[CONSOLE].pages.render(request, "sign_in.html", to=_local(query_of(request, "to")), problem=None)


async def sign_in(request: web.Request) -> web.StreamResponse:
    """A token becomes a session."""
    console = request.app[CONSOLE]
    form = await read_form(request, MAX_FORM_BYTES)
    to = _local(form.get("to", ""))
    forwarded = request.headers.getall("X-Forwarded-For", [])
    address = address_of(request.remote, forwarded, console.config.serve.proxies)

    def refused(status: int, problem: str, headers: dict[str, str] | None = None) -> web.Response:
        response = console.pages.render(request, "sign_in.html", status, to=to, problem=problem)
        response.headers.update(headers or {})
        return response

    if (wait_s := console.attempts.wait_s(address)) > 0:
        seconds = int(wait_s) + 1
        return refused(429, f"Too many wrong tokens. Try again in {seconds} s.", {"Retry-After": str(seconds)})
    found = console.sessions.right_of(form.get("token", "").strip())
    if found is None:
        console.attempts.wrong(address)
        return refused(
            401, "This is not a token of this installation: serve.operate_token lets act, serve.read_token lets look."
        )
    response = go_to(to)
    response.set_cookie(
        COOKIE, console.sessions.cookie(*found), max_age=SESSION_S, path="/", httponly=True, samesite="Strict",
        secure=request.secure or request.headers.get("X-Forwarded-Proto") == "https",
    )  # fmt: skip
    return response


async def sign_out(request: web.Request) -> web.StreamResponse:
    """The browser drops the session."""
    response = go_to("/")
    response.del_cookie(COOKIE, path="/", httponly=True, samesite="Strict")
    return response


def _local(to: str) -> str:
    r"""An address of the console; `/` for any other one: nobody is sent to another site after signing in.

    >>> _local("/user?id=alice"), _local("//evil.example"), _local("https://evil.example"), _local("/\\evil.example")
    ('/user?id=alice', '/', '/', '/')
    """
    return to if to.startswith("/") and not to.startswith("//") and "\\" not in to and to.isprintable() else "/"
