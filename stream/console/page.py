"""From a template to a page: everything that is not ours is escaped, and the browser runs our files only."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from aiohttp import web
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from stream.console.assets import Assets
from stream.console.session import COOKIE, Sessions
from stream.operate.reasons_in_words import in_words
from stream.printable import printable_lines
from stream.times import iso, moment, now_ms

TEMPLATES = Path(__file__).parent / "templates"
SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # Not `no-referrer`: a browser then sends no Origin with a form.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-store",
}
UNKNOWN = "–"
CODE = re.compile(r"`([^`]{1,80})`")
NOTICE_COOKIE = "anabranch_notice"
NAVIGATION = (
    ("/", "Overview"),
    ("/user", "User"),
    ("/item", "Item"),
    ("/versions", "Versions"),
    ("/dead-letters", "Dead letters"),
    ("/cycles", "Cycles"),
)


class Pages:
    """Renders templates."""

    def __init__(self, assets: Assets, sessions: Sessions) -> None:
        self._sessions = sessions
        # `finalize` sees every value that a template puts out: no id or title turns a line round or hides a part.
        self._templates = Environment(
            loader=FileSystemLoader(TEMPLATES),
            autoescape=True,
            undefined=StrictUndefined,
            auto_reload=False,
            cache_size=-1,
            trim_blocks=True,
            lstrip_blocks=True,
            finalize=lambda value: printable_lines(value) if type(value) is str else value,
        )
        self._templates.globals |= {"asset": assets.url, "url": url, "navigation": NAVIGATION, "now": now_ms}
        self._templates.filters |= {
            "number": number,
            "percent": percent,
            "duration": duration,
            "ms": milliseconds,
            "time": time_element,
            "ago": ago,
            "words": words,
            "in_words": in_words,
        }
        self._compile_all()

    def _compile_all(self) -> None:
        """Read every template now: the files may be replaced while this process runs."""
        for name in self._templates.list_templates(extensions=["html"]):
            self._templates.get_template(name)

    def render(self, request: web.Request, template: str, status: int = 200, **values: Any) -> web.Response:
        """A page, or the part of one."""
        session = self._sessions.session(request.cookies.get(COOKIE))
        shown = {
            "path": request.path,
            "here": request.path_qs,
            "session": session,
            "may_act": session is not None and session.right == "operate",
            "csrf": session.csrf if session else "",
            "acting_is_possible": self._sessions.acting_is_possible,
            "notice": None,
        } | values
        text = self._templates.get_template(template).render(shown)
        response = web.Response(text=text, status=status, content_type="text/html", headers=SECURITY_HEADERS)
        if shown["notice"]:
            response.del_cookie(NOTICE_COOKIE, path="/")
        return response


def go_to(address: str) -> web.Response:
    """Let the browser load another page of the console, with GET."""
    return web.Response(status=303, headers=SECURITY_HEADERS | {"Location": address})


def url(path: str, **query: Any) -> str:
    """A link to a page of the console; what is None is left out."""
    given = {key: value for key, value in query.items() if value is not None}
    return f"{path}?{urlencode(given)}" if given else path


def number(value: int | float | None) -> str:
    """A count with commas.

    >>> number(12345), number(None)
    ('12,345', '–')
    """
    return UNKNOWN if value is None else f"{value:,.0f}"


def percent(share: float | None, digits: int = 1) -> str:
    """A share of 1 in percent.

    >>> percent(0.0868), percent(None)
    ('8.7\xa0%', '–')
    """
    return UNKNOWN if share is None else f"{100 * share:.{digits}f}\xa0%"


def milliseconds(value: float | None) -> str:
    """A short time, in the unit that reads best.

    >>> milliseconds(42.4), milliseconds(4200), milliseconds(None)
    ('42\xa0ms', '4.2\xa0s', '–')
    """
    if value is None:
        return UNKNOWN
    return f"{value:,.0f}\xa0ms" if value < 1000 else duration(value / 1000)


def duration(seconds: float | None) -> str:
    """A time in its largest unit.

    >>> duration(4.2), duration(70), duration(7300), duration(200_000)
    ('4.2\xa0s', '1\xa0min', '2.0\xa0h', '2.3\xa0d')
    """
    if seconds is None:
        return UNKNOWN
    seconds = max(seconds, 0.0)
    if seconds < 60:
        return f"{seconds:.1f}\xa0s" if seconds < 10 else f"{seconds:.0f}\xa0s"
    if seconds < 3600:
        return f"{seconds / 60:.0f}\xa0min"
    return f"{seconds / 3600:.1f}\xa0h" if seconds < 172_800 else f"{seconds / 86_400:.1f}\xa0d"


def time_element(ts: int | None, form: str = "full") -> Markup | str:
    """A time, ms: in UTC, and in the reader's zone once the script has run; pointing at it shows both."""
    if not ts:
        return UNKNOWN
    shown = moment(ts)
    try:
        machine = iso(ts)
    except OverflowError:
        return shown
    return Markup('<time datetime="{}" data-form="{}" title="{} UTC">{}</time>').format(machine, form, shown, shown)


def ago(ts: int | None) -> str:
    """How long ago a time, ms, was."""
    return UNKNOWN if not ts else f"{duration((now_ms() - ts) / 1000)} ago"


def words(text: str) -> Markup:
    """A sentence of ours, in which commands and settings stand between backticks.

    >>> words("`anabranch up` <b>")
    Markup('<code>anabranch up</code> &lt;b&gt;')
    """
    return Markup(CODE.sub(r"<code>\1</code>", str(escape(printable_lines(text)))))


def query_of(request: web.Request, name: str, max_chars: int = 600) -> str:
    """A value of the page's address, cut; empty if there is none."""
    values: Mapping[str, str] = request.query
    return values.get(name, "")[:max_chars]
