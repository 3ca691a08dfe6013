"""Messages of the topic `examples`: what is written is read, and whatever else somebody writes is refused in words."""

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.ranker.examples import Example
from stream.kafka.examples import MAX_BYTES, MAX_ITEMS, ExampleMessage, NoExample, OtherSchema, pack, unpack

SCHEMA, COLUMNS = "0123456789ab", 56


def an_example(items: int = 41) -> Example:
    draw = np.random.default_rng(items)
    stands_for = np.full(items, 2.5, np.float32)
    stands_for[0] = 1
    return Example(
        7, 1_600_000_000_000, 1_600_000_005_000, "000012", draw.integers(1, 1 << 60, items, np.uint64),
        draw.normal(size=(items, COLUMNS)).astype(np.float16), stands_for, 0.25,
    )  # fmt: skip


@pytest.mark.parametrize("items", [1, 2, MAX_ITEMS])
def test_an_example_is_read_as_it_was_written(items):
    example = an_example(items)
    packed = pack(example, SCHEMA)
    found = unpack(packed, 7, SCHEMA, COLUMNS)
    assert found[:4] + found[7:] == example[:4] + example[7:]
    assert all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in zip(found[4:7], example[4:7], strict=True))
    assert len(packed) < 6_000


def test_a_field_that_a_later_version_adds_is_ignored():
    later = msgspec.msgpack.decode(pack(an_example(), SCHEMA)) | {"position": [1, 2]}
    assert unpack(msgspec.msgpack.encode(later), 7, SCHEMA, COLUMNS).version == "000012"


def test_features_of_other_columns_are_named_by_their_schema():
    with pytest.raises(OtherSchema, match="'fedcba'"):
        unpack(pack(an_example(), "fedcba"), 7, SCHEMA, COLUMNS)


def changed(**fields: object) -> bytes:
    message = msgspec.msgpack.decode(pack(an_example(2), SCHEMA), type=ExampleMessage)
    return msgspec.msgpack.encode(msgspec.structs.replace(message, **fields))


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (b"", "truncated"),
        (b"{}", "object"),
        (b"\x80" + b"x" * MAX_BYTES, "bytes"),
        (changed(items=b""), "0 items"),
        (changed(items=b"x" * 8 * 42), "42 items"),
        (changed(items=b"x" * 17), "arrays"),
        (changed(features=b"x"), "arrays"),
        (changed(features=np.full(112, np.nan, "<f2").tobytes()), "not a number"),
        (changed(features=np.full(112, np.inf, "<f2").tobytes()), "not a number"),
        (changed(stands_for=np.array([1, -1], "<f4").tobytes()), "out of range"),
        (changed(stands_for=np.array([1, np.nan], "<f4").tobytes()), "out of range"),
        (changed(stands_for=np.array([2, 2], "<f4").tobytes()), "out of range"),
        (changed(ts=-1), "ts"),
        (changed(ts=1 << 60), "ts"),
        (changed(propensity=0.0), "propensity"),
        (changed(version="9" * 65), "version"),
    ],
)
def test_a_malformed_message_is_refused_in_words(value, why):
    with pytest.raises(NoExample, match=why):
        unpack(value, 7, SCHEMA, COLUMNS)


FIELDS = st.sampled_from(ExampleMessage.__struct_fields__)
SCALARS = st.none() | st.integers(-(1 << 63), 1 << 62) | st.floats() | st.text(max_size=9) | st.binary(max_size=99)
DOCUMENTS = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(FIELDS, inner))


@given(st.binary(max_size=300) | DOCUMENTS.map(msgspec.msgpack.encode))
def test_whatever_somebody_writes_is_an_example_or_refused(value):
    try:
        found = unpack(value, 7, SCHEMA, COLUMNS)
    except NoExample:
        return
    assert np.isfinite(found.features).all()


@given(st.data())
def test_a_message_that_was_changed_anywhere_is_an_example_or_refused(data):
    value = bytearray(pack(an_example(2), SCHEMA))
    for _ in range(data.draw(st.integers(1, 4))):
        value[data.draw(st.integers(0, len(value) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = unpack(bytes(value), 7, SCHEMA, COLUMNS)
    except NoExample:
        return
    assert found.features.shape == (2, COLUMNS)
    assert np.isfinite(found.features).all()
    assert (found.stands_for >= 1).all()
    assert 0 < found.propensity <= 1
