"""What the topics carry, as typed records: the JSON on the wire is theirs, field by field."""

from typing import Literal

import msgspec


class Recommended(msgspec.Struct, omit_defaults=True):
    """One recommended item."""

    item: str
    score: float
    because: list[str] = []
    """The one or two items of the user's own sequence that speak most for it."""
    title: str | None = None


class Recommendation(msgspec.Struct):
    """An answer for one user, reflecting every event up to `offset` of `partition`."""

    user: str
    items: list[Recommended]
    model: str | None
    """The version that ranked; None where no model could."""
    model_age_s: float | None
    source: str
    """`model` or `popularity`."""
    event_ts: int | None
    emitted_ts: int
    partition: int
    offset: int


class Pointer(msgspec.Struct, frozen=True):
    """Which version every worker serves, or scores beside it. The newest `moved_ts` wins, but see
    `stream.kafka.pointers`."""

    name: str
    version: str
    """Empty: no candidate is scored any more."""
    url: str
    sha256: str
    moved_ts: int
    role: Literal["champion", "candidate"] = "champion"
    pinned: bool = False
    """Only an operator moves it."""
    by: Literal["trainer", "operator"] = "trainer"


class Command(msgspec.Struct, frozen=True):
    """An operator's word to trainers and workers."""

    command: str
    id: str
    version: str | None = None
    shadow: bool = False
    """`retrain`: the candidate is scored live and not served."""


class CommandReply(msgspec.Struct, frozen=True):
    """What a command came to: `waiting`, `started`, `progress`, `done`, `kept` or `failed`, with a sentence."""

    id: str
    status: str
    message: str
    version: str | None = None
    share: float | None = None
    """How much of a cycle is done, with `progress`."""


UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What decoding a message raises where somebody sent something else."""


class Request(msgspec.Struct, frozen=True):
    """Recommend for this user now."""

    user: str | int
    id: str | int = ""


class ItemTitle(msgspec.Struct, frozen=True):
    """A readable name for an item."""

    item: str | int
    title: str


encode = msgspec.json.encode
