"""The user or item that a page is about: the parameter `id` of its address."""

from typing import Literal

from aiohttp import web

from stream.console.page import query_of
from stream.errors import AnabranchError
from stream.kafka.click_values import Invalid, read_identifier

Kind = Literal["user", "item"]


def name_of(request: web.Request, kind: Kind) -> str:
    """The name. Raises AnabranchError where there is none, or none that an event could have."""
    name = query_of(request, "id")
    if not name or (problem := problem_of(name, kind)):
        raise AnabranchError(problem if name else f"No {kind} is named.")
    return name


def problem_of(name: str, kind: Kind) -> str | None:
    """Why no user or item has this name; None if one may."""
    if not name:
        return None
    try:
        read_identifier(name, kind)
    except Invalid as error:
        return f"{error}: no event can name it."
    return None
