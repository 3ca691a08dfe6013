"""Ids and titles of items for the messages, looked up once and cached."""

import logging
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from state.errors import StateError
from state.events import Ids
from state.partition import Partition
from state.titles import Titles

log = logging.getLogger("anabranch.names")

MAX_CACHED_NAMES = 500_000
MAX_TITLE_CHARS = 2000
"""A longer title is cut before it is stored. Answers cut it further (`worker.title_chars`)."""


def cut_title(title: str, chars: int) -> str:
    """The title, at most so many characters; the last of a longer one is an ellipsis.

    >>> cut_title("Green tea", 6)
    'Green…'
    """
    return title if len(title) <= chars else title[: chars - 1] + "…"


class Name(NamedTuple):
    """An item's id and title."""

    id: str
    title: str | None


class ItemNames:
    """Names by item hash. The thread that ranks looks them up while the event loop may forget some of them."""

    def __init__(
        self, stores: Mapping[int, Partition], titles: Titles | None, title_chars: int = MAX_TITLE_CHARS
    ) -> None:
        self._stores, self._titles, self._title_chars = stores, titles, title_chars
        self._cached: dict[int, Name] = {}
        self._forgotten = 0

    def of(self, items: set[int]) -> dict[int, Name]:
        """Names of these items, by hash."""
        found = {item: name for item in items if (name := self._cached.get(item)) is not None}
        missing = np.array(sorted(items - found.keys()), np.uint64)
        if not len(missing):
            return found
        before = self._forgotten
        titles = self._titles_of(missing)
        ids: list[bytes | None] = [None] * len(missing)
        for store in list(self._stores.values()):
            ids = [a or b for a, b in zip(ids, store.item_ids(missing), strict=True)]
        # An item that only a version trained elsewhere knows has no id here: its hash is shown instead.
        new = {
            item: Name(identifier.decode() if identifier else f"#{item:016x}", self._cut(title))
            for item, identifier, title in zip(missing.tolist(), ids, titles, strict=True)
        }
        if before == self._forgotten:  # else some of these names were forgotten during the lookup
            if len(self._cached) > MAX_CACHED_NAMES:
                self._cached.clear()
            self._cached.update(new)
        return found | new

    def _titles_of(self, items: Ids) -> list[str | None]:
        try:
            if self._titles is not None:
                return self._titles.get(items)
        except StateError as error:  # a message without titles is better than none
            log.warning("no titles for now: %s", error)
            self.forget([])  # so that names without titles are not cached
        return [None] * len(items)

    def _cut(self, title: str | None) -> str | None:
        return cut_title(title, self._title_chars) if title is not None else None

    def forget(self, items: Iterable[int]) -> None:
        """Look these up again: their names changed, or they are gone."""
        self._forgotten += 1
        for item in items:
            self._cached.pop(item, None)
