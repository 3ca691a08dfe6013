"""What the HTTP interface answers with, and what it needs from the process that it runs in."""

from collections.abc import Sequence
from typing import Annotated, Literal, NamedTuple, Protocol

import msgspec

from stream.kafka.messages import Recommended

Fallback = Literal["last", "popular", "none"]


class Recommendations(msgspec.Struct, kw_only=True):
    """What is recommended to a user."""

    user: str
    items: list[Recommended]
    """The best first; empty where nothing is known to recommend."""
    source: Literal["ranker", "model", "popularity", "none"]
    """How the items were chosen, as in the topic `recommendations`: by a version of the model, with its ranker
    (`ranker`) or its fusion (`model`), or the most popular ones; `none`: there are no items."""
    fallback: Fallback | None = None
    """Null: the worker that owns the user answered now. Else it did not answer in time, and the items are: `last`: of
    the user's last recommendation; `popular`: popular with everybody; `none`: nothing was known."""
    age_s: float | None = None
    """How long ago the items were ranked, in seconds."""
    model: str | None = None
    """The version that ranked."""
    model_age_s: float | None = None
    """Age of the version when it ranked, in seconds."""
    event_ts: int | None = None
    """Time of the user's newest event that the items reflect, ms since 1970."""
    emitted_ts: int | None = None
    """When the items were ranked, ms since 1970."""
    partition: int | None = None
    """Partition of `clicks` with the user's events."""
    offset: int | None = None
    """The newest event in it that the items reflect."""


class RelatedItem(msgspec.Struct, omit_defaults=True):
    """An item that users took after another one."""

    item: str
    weight: Annotated[float, msgspec.Meta(ge=0)]
    """How often, newer events counting more."""
    title: str | None = None


class Related(msgspec.Struct, kw_only=True):
    """What users took after an item."""

    item: str
    title: str | None = None
    items: list[RelatedItem] = []
    """The most frequent first; empty where nothing is known about the item."""
    events: int = 0
    """Events of the item."""
    fallback: Literal["last", "partial", "none"] | None = None
    """Null: workers answered now, or less than ten seconds ago. Else not all of them answered in time: `last`: this is
    what they last answered; `partial`: what the others know; `none`: nothing was known."""
    age_s: float | None = None
    """How long ago workers answered, in seconds."""


class Event(NamedTuple):
    """A valid event on its way to Kafka."""

    key: bytes
    value: bytes
    headers: tuple[tuple[str, bytes], ...] = ()
    """The context of the client's trace."""


class Unsent(NamedTuple):
    """Why an event may not be in Kafka."""

    reason: str
    again: bool
    """Whether sending it again can help."""


class Answers(Protocol):
    """Answers requests of clients. Nothing here raises because a worker or Kafka is away."""

    async def recommend(self, user: str) -> Recommendations:
        """What is recommended to the user now, or what comes nearest to it."""

    async def related(self, item: str) -> Related:
        """What users took after the item."""

    async def publish(self, events: Sequence[Event]) -> list[Unsent | None]:
        """Send the events; for each None once Kafka has acknowledged it, or why it is not known to have it."""
