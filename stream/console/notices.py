"""What an action did, shown on the next page: a redirect carries the sentence, so that a reload repeats nothing.

The sentence travels in a cookie that the next page removes. An address with a sentence in it could be sent to
somebody by anybody.
"""

import base64
import binascii

from aiohttp import web

from stream.console.page import NOTICE_COOKIE, go_to

MAX_BYTES = 2_000


def redirect(request: web.Request, to: str, sentence: str) -> web.Response:
    """Go to a page of the console and show a sentence there."""
    response = go_to(to)
    value = base64.urlsafe_b64encode(sentence.encode("utf-8", "replace")[:MAX_BYTES]).decode().rstrip("=")
    response.set_cookie(
        NOTICE_COOKIE, value, max_age=60, path="/", httponly=True, samesite="Strict", secure=request.secure
    )
    return response


def answer(request: web.Request) -> str | None:
    """The sentence of the action before; None if there was none."""
    value = request.cookies.get(NOTICE_COOKIE, "")
    try:
        return base64.urlsafe_b64decode(value + "=" * (-len(value) % 4)).decode("utf-8", "replace") or None
    except (binascii.Error, ValueError):
        return None
