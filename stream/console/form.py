"""The fields of a form, from a body that anybody can send."""

import asyncio

from aiohttp import web

WITHIN_S = 10.0
"""A form that takes longer to come is refused: each one that waits holds a connection."""


class BadForm(Exception):
    """The body is no form of ours; the message says why, as a sentence."""

    def __init__(self, status: int, title: str, text: str) -> None:
        super().__init__(text)
        self.status, self.title = status, title


async def read_form(request: web.Request, max_bytes: int) -> dict[str, str]:
    """The fields. `request.post()` returns them again. Raises BadForm."""
    if request.content_length is None or request.content_length > max_bytes:
        raise BadForm(413, "This form is too large", f"At most {max_bytes:,} bytes are read.")
    if request.content_type != "application/x-www-form-urlencoded" or (request.charset or "utf-8").lower() != "utf-8":
        raise BadForm(415, "This is no form", "A form is sent as application/x-www-form-urlencoded, in UTF-8.")
    try:
        async with asyncio.timeout(WITHIN_S):
            fields = await request.post()
    except TimeoutError:
        raise BadForm(408, "This form did not come", f"It took longer than {WITHIN_S:.0f} s.") from None
    except ValueError:
        raise BadForm(400, "This is no form", "The body is not UTF-8.") from None
    return {name: value for name, value in fields.items() if isinstance(value, str)}
