"""Messages of the topic `examples`: what was recommended with the features it was ranked by, and what was taken next.

The key is the user's id, so that a tombstone of it erases the user's examples. The value is a map in msgpack. Its
arrays are bytes, little-endian: [n] items as hashes, [n, F] features as float16, [n] counts as float32. The first item
is the one that the user took. `schema` names the columns of the features (`model.ranking.features.SCHEMA`).
"""

from typing import Annotated

import msgspec
import numpy as np

from model.ranker.examples import NEGATIVES, Example

MAX_BYTES = 64 << 10
"""A longer value is no example."""
MAX_ITEMS = 1 + NEGATIVES
MAX_STANDS_FOR = 1e6

Moment = Annotated[int, msgspec.Meta(ge=0, le=1 << 53)]
Name = Annotated[str, msgspec.Meta(max_length=64)]


class ExampleMessage(msgspec.Struct, frozen=True):
    """Topic `examples`: one choice of a user."""

    schema: Name
    version: Name
    """The version that ranked."""
    moment: Moment
    """Event time, ms, at which the items were ranked."""
    ts: Moment
    """Event time, ms, of the event that took the first item."""
    items: bytes
    features: bytes
    stands_for: bytes
    """How many candidate items each stands for."""
    propensity: Annotated[float, msgspec.Meta(gt=0, le=1)] = 1.0


class NoExample(ValueError):
    """A message that is not read as an example."""


class OtherSchema(NoExample):
    """Its features have other columns: another version of Anabranch wrote it."""


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(ExampleMessage).decode


def pack(example: Example, schema: str) -> bytes:
    """The value of an example's message."""
    return _encode(
        ExampleMessage(
            schema,
            example.version,
            example.moment,
            example.ts,
            example.items.astype("<u8").tobytes(),
            example.features.astype("<f2").tobytes(),
            example.stands_for.astype("<f4").tobytes(),
            example.propensity,
        )
    )


def unpack(value: bytes, user: int, schema: str, columns: int) -> Example:
    """The example of this user, a hash, with features of these `columns`. Raises NoExample, OtherSchema."""
    if len(value) > MAX_BYTES:
        raise NoExample(f"it has {len(value):,} bytes")
    try:
        message = _decode(value)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise NoExample(str(error)) from None
    if message.schema != schema:
        raise OtherSchema(f"its features are those of schema {message.schema!r}")
    count = len(message.items) // 8
    if not 1 <= count <= MAX_ITEMS:
        raise NoExample(f"it has {count} items")
    sizes = len(message.items), len(message.features), len(message.stands_for)
    if sizes != (8 * count, 2 * count * columns, 4 * count):
        raise NoExample(f"its arrays have {sizes} bytes for {count} items")
    items = np.frombuffer(message.items, "<u8").astype(np.uint64)
    features = np.frombuffer(message.features, "<f2").astype(np.float16).reshape(count, columns)
    stands_for = np.frombuffer(message.stands_for, "<f4").astype(np.float32)
    if not np.isfinite(features).all():
        raise NoExample("a feature is not a number")
    if not ((stands_for >= 1) & (stands_for <= MAX_STANDS_FOR)).all() or stands_for[0] != 1:
        raise NoExample("a count is out of range")
    return Example(user, message.moment, message.ts, message.version, items, features, stands_for, message.propensity)
