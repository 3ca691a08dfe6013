"""What the topics carry, as typed records: the JSON on the wire is theirs, field by field."""

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
    """The champion: which version every worker serves. The newest `moved_ts` wins."""

    name: str
    version: str
    url: str
    sha256: str
    moved_ts: int


class Command(msgspec.Struct, frozen=True):
    """An operator's word to trainers and workers."""

    command: str
    id: str
    version: str | None = None


class CommandReply(msgspec.Struct, frozen=True):
    """What a command came to: `started`, `progress`, `done`, `kept` or `failed`, with a sentence."""

    id: str
    status: str
    message: str
    version: str | None = None


class Request(msgspec.Struct, frozen=True):
    """Recommend for this user now."""

    user: str
    id: str = ""


class ItemTitle(msgspec.Struct, frozen=True):
    """A readable name for an item."""

    item: str | int
    title: str


encode = msgspec.json.encode
