"""The messages of all topics, as typed records. Their JSON on the wire has the same fields.

A click comes in, a recommendation goes out; docs/messages.md has an example of each.
"""

from typing import Annotated, Literal

import msgspec

from state.id_hash import KEY_PATTERN, IdHash

encode = msgspec.json.encode
UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""Errors of decoding a message that is not such a record."""


class Click(msgspec.Struct, gc=False):
    """Topic `clicks`: one event, with the default field names (`ClickFields`). Unknown fields are ignored."""

    user: str | int
    item: str | int | None = None
    """Only a forget has none."""
    ts: int | float | str | None = None
    """Time of the event, ms or ISO-8601; the record's own time if None."""
    event: str = "click"
    id: str | int | None = None
    """Repetitions of an id are dropped."""


class Recommended(msgspec.Struct, omit_defaults=True):
    """One recommended item."""

    item: str
    score: float
    because: list[str] = []
    """The one or two items of the user's own sequence that contribute most to the score."""
    title: str | None = None
    why: str = ""
    """The kind of the reason: `again` (the user comes back to it), `followed` (it often comes after the user's newest
    items), `similar` (it is near them), `rising`, `popular` or `new`. More kinds may follow."""


class Recommendation(msgspec.Struct):
    """Topic `recommendations`: the answer for one user after every event up to `offset` of `partition`."""

    user: str
    items: list[Recommended]
    model: str | None
    """The version that ranked; None where no model could."""
    model_age_s: float | None
    source: str
    """`ranker`: the version's ranker, over candidate items; `model`: the weighted sum of its four signals, until it has
    a ranker; `popularity`: no version could rank."""
    event_ts: int | None
    emitted_ts: int
    partition: int
    offset: int


class Reply(Recommendation):
    """Topic `replies`: the answer to one request."""

    id: str | int = ""
    """The request's."""
    status: Literal["ok", "too many", "too large"] = "ok"
    """`too many`: more requests came than the worker answers between two polls; `too large`: the topic did not take the
    answer. Both come without items."""


Want = Literal["recommendation", "user", "item", "popular"]
MAX_LIMIT, MAX_AT = 1_000, 1 << 53


class Request(msgspec.Struct, frozen=True, omit_defaults=True):
    """Topic `requests`: recommend for this user now, or say what the partition of the request knows."""

    user: str | int = ""
    id: str | int = ""
    want: Want = "recommendation"
    """`user`: a user's sequence and last recommendation; `item`: what follows an item; `popular`: the most popular
    items. The reply to these is a `Document` (`stream/kafka/documents.py`)."""
    item: str | int = ""
    """With `item`, which then needs no user."""
    limit: Annotated[int, msgspec.Meta(ge=0, le=MAX_LIMIT)] = 0
    """How many items are wanted at most; 0: as many as there are, for a recommendation `ranking.k`. There are never
    more than that."""
    at: Annotated[int, msgspec.Meta(ge=0, le=MAX_AT)] = 0
    """With `item`: as it was before this time, ms; 0: now."""
    signature: str = ""
    """As in a pointer, with `user` only: pages may ask what is recommended, and not read a history."""


class ItemTitle(msgspec.Struct, frozen=True):
    """Topic `items`: a readable name for an item."""

    item: str | int
    title: str


class Withdrawal(msgspec.Struct, frozen=True):
    """Topic `items`: an item that is recommended to nobody, or to everybody again."""

    item: str | int
    withdrawn: bool
    title: str | None = None
    """A message may have both."""


class Pointer(msgspec.Struct, frozen=True):
    """Topic `models`: the version that every worker serves (champion) or scores beside it (candidate).

    The newest `moved_ts` wins; `stream.kafka.pointers` has the exception.
    """

    name: str
    version: str
    """Empty: no candidate is scored from now on."""
    url: str
    """Where it was published, for a person: versions are read from the configured `artifacts` only."""
    sha256: str
    moved_ts: int
    role: Literal["champion", "candidate"] = "champion"
    pinned: bool = False
    """Only an operator moves it."""
    by: Literal["trainer", "operator"] = "trainer"
    signature: str = ""
    """HMAC-SHA256 of the other fields, where `kafka.signing_key` is set."""


class IdKey(msgspec.Struct, frozen=True):
    """Topic `models`, under the key `id-key`: the secret with which ids are hashed."""

    id_key: Annotated[str, msgspec.Meta(pattern=KEY_PATTERN)]
    """Empty: the installation is from before the key, and its ids are hashed without one."""
    replaces: list[str] = []
    """Fingerprints of the keys before; empty text where ids had none. Stores of these are built again."""
    signature: str = ""
    """As in a pointer."""

    @property
    def ids(self) -> IdHash:
        """The hash with this key."""
        return IdHash(self.id_key)

    def __repr__(self) -> str:
        return f"IdKey({self.ids!r}, replaces={self.replaces})"


class Command(msgspec.Struct, frozen=True):
    """Topic `commands`: an operator's command to the trainer or to the workers."""

    command: str
    id: str
    version: str | None = None
    shadow: bool = False
    """`retrain`: the candidate is scored live and not served."""
    sent_ts: int = 0
    """When the sender sent it first, ms of its clock."""
    expires_ts: int = 0
    """When the sender no longer waits for a reply, ms of its clock; 0: an older sender, which did not say."""
    signature: str = ""
    """As in a pointer."""


class CommandReply(msgspec.Struct, frozen=True):
    """Topic `command-replies`: the state of a command, with a sentence for the operator.

    `status` is `waiting`, `started`, `progress`, `done`, `kept`, `failed` or `expired`.
    """

    id: str
    status: str
    message: str
    version: str | None = None
    share: float | None = None
    """Share of the cycle that is done, with `progress`."""
