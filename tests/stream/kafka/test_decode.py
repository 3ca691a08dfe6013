"""Every message in the clicks topic becomes an event or a dead letter."""

from dataclasses import dataclass

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from state.events import hash_id
from state.kinds import code_of
from state.settings import KINDS, Kind, StateSettings
from stream.config import ClickFields, ClickSettings
from stream.kafka.decode import Decoder

BROKER_TIME = 1_700_000_000_000


DAY_MS = 86_400_000


@dataclass
class Record:
    value: bytes | None
    offset: int = 0
    key: bytes | None = None
    timestamp: int = BROKER_TIME
    timestamp_type: int = 1
    headers: tuple = ()


def decode(*values: bytes | None, clicks: ClickSettings = ClickSettings()):  # noqa: B008
    return Decoder(clicks).decode([Record(v, offset) for offset, v in enumerate(values)])


def click(**fields: object) -> bytes:
    return msgspec.json.encode({"user": "ann", "item": "milk"} | fields)


def test_a_plain_click_takes_the_brokers_time():
    decoded = decode(click())
    assert decoded.dead == []
    assert decoded.batch.users == [b"ann"]
    event = decoded.batch.events[0]
    assert (event["user"], event["item"], event["ts"]) == (hash_id("ann"), hash_id("milk"), BROKER_TIME)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"not json", "not JSON"),
        (b"", "not JSON"),
        (b"[1, 2]", "not a JSON object but an array"),
        (b'"text"', "not a JSON object but a string"),
        (b"17", "not a JSON object but a number"),
        (b"null", "not a JSON object but null"),
        (None, "tombstone"),
        (b'{"item": "milk"}', "user is missing"),
        (b'{"user": null, "item": "milk"}', "user is missing or null"),
        (b'{"user": "ann"}', "item is missing"),
        (click(user=""), "user is empty"),
        (click(item=""), "item is empty"),
        (b'{"user": "\xff\xfe", "item": "milk"}', "not JSON"),
        (b'{"user": "\\ud800", "item": "milk"}', "not JSON"),
        (click(user="x" * 10_000), "user is 10000 bytes long"),
        (click(item="x" * 513), "item is 513 bytes long"),
        (click(user=1.5), "user 1.5 is neither text nor a whole number"),
        (click(user=True), "user True is neither"),
        (click(user=["ann"]), "neither text nor a whole number"),
        (click(ts=-5), "ts -5 is negative"),
        (click(ts=1_700_000), "ts 1700000 is too small to give its unit away: set clicks.fields.ts_unit"),
        (click(ts="11/11/2019 9:05:58 AM"), "may have the day or the month first"),
        (click(ts="2024-03-10T02:30:00 EST"), "has the zone EST, which is ambiguous"),
        (click(ts=""), "ts '' is empty, not a time"),
        (click(ts={"$date": "2024-03-10T02:30:00Z"}), "is an object, not a time: its field '$date' needs a path"),
        (click(user={"$oid": "507f"}), "name the path of its inner field, as in user.$oid"),
        (click(user=["ann"]), "as in user.0"),
        (b'{"user": "ann", "item": "milk", "ts": NaN}', "not JSON"),
        (click(ts="yesterday"), "ts 'yesterday' is neither a number nor ISO-8601"),
        (click(ts=253_402_300_799_000), "is 1978-01-11 21:31:40 in microseconds, which is not likely"),
        (click(ts=BROKER_TIME + 2 * DAY_MS), "172800 s ahead of the broker's clock"),
        (click(ts="9999-12-31T23:59:59Z"), "ahead of the broker's clock"),
        (click(ts=True), "ts True is true or false, not a time"),
        (b'{"user": "ann", "item": "milk", "ts": 1' + b"0" * 400 + b"}", "is too large to be a time"),
        (b'{"user": "ann", "item": "milk", "ts": 1e300}', "is too large to be a time"),
        (b'{"user": "ann", "item": "milk", "x": ' + b"[" * 5000 + b"]" * 5000 + b"}", "nested too deeply"),
        (click(event="explode"), "unknown event kind 'explode'"),
        (click(event=7), "unknown event kind 7"),
        (click(note="x" * 5_000_000), "more than clicks.max_message_bytes"),
    ],
)
def test_an_invalid_message_goes_to_the_dead_letters_with_its_reason(value, reason):
    decoded = decode(click(), value, click(user="bob"))
    assert [d.record.offset for d in decoded.dead] == [1]
    assert reason in decoded.dead[0].reason
    assert decoded.batch.users == [b"ann", b"bob"]
    assert decoded.batch.events["offset"].tolist() == [0, 2]


@pytest.mark.parametrize(
    ("value", "user", "ts"),
    [
        (click(user=42), b"42", BROKER_TIME),
        (click(user="a\x00b"), b"a\x00b", BROKER_TIME),
        (click(user="🛒\n"), "🛒\n".encode(), BROKER_TIME),
        (click(user="x" * 512), b"x" * 512, BROKER_TIME),
        (click(ts=1_600_000_000_123), b"ann", 1_600_000_000_123),
        (click(ts=1_600_000_000_123.0), b"ann", 1_600_000_000_123),
        (click(ts=None), b"ann", BROKER_TIME),
        (click(ts="2023-11-14T22:13:20Z"), b"ann", BROKER_TIME),
        (click(ts="2023-11-14T23:13:20+01:00"), b"ann", BROKER_TIME),
        (click(ts="2023-11-14T22:13:20"), b"ann", BROKER_TIME),
        (b' {"user": "ann", "item": "milk"}\n', b"ann", BROKER_TIME),
        (click(event=None), b"ann", BROKER_TIME),
        (click(unknown={"deep": [1]}), b"ann", BROKER_TIME),
    ],
)
def test_a_valid_message_becomes_the_event_that_it_describes(value, user, ts):
    decoded = decode(value)
    assert decoded.dead == []
    assert decoded.batch.users == [user]
    assert decoded.batch.events["ts"].tolist() == [ts]


def test_the_kind_of_the_event_is_decoded():
    assert decode(click(event="purchase")).batch.events["kind"].tolist() == [code_of("purchase")]


def test_a_key_that_is_not_the_user_is_counted_and_the_value_wins():
    decoded = Decoder(ClickSettings()).decode([Record(click(), key=b"someone else"), Record(click(), 1, key=b"ann")])
    assert decoded.key_mismatch == 1
    assert decoded.batch.users == [b"ann", b"ann"]


def test_values_cannot_complete_or_shift_each_other():
    pieces = [b'{"user":"a","item":"b","x":[{}', b"{}]}", b'{"user":"c","item":"d"},{"user":"e","item":"f"}']
    decoded = decode(*pieces, click())
    assert [d.record.offset for d in decoded.dead] == [0, 1, 2]
    assert decoded.batch.events["offset"].tolist() == [3]


def test_two_objects_in_one_value_are_one_dead_letter():
    decoded = decode(b'{"user":"a","item":"b"}\n{"user":"c","item":"d"}', click())
    assert [d.record.offset for d in decoded.dead] == [0]


def test_a_shops_field_names_are_found_by_their_dotted_paths():
    fields = ClickFields(user="customer.id", item="sku", ts="meta.at", event="what", id="uuid")
    value = msgspec.json.encode(
        {
            "customer": {"id": 7},
            "sku": "milk",
            "meta": {"at": 1_600_000_000_000},
            "what": "cart",
            "uuid": "e-1",
        }
    )
    decoded = decode(value, b'{"customer": 7, "sku": "milk"}', clicks=ClickSettings(fields=fields))
    assert decoded.batch.users == [b"7"]
    assert decoded.batch.ids == {0: b"e-1"}
    assert decoded.dead[0].reason == "user (customer.id) is missing or null"


@pytest.mark.parametrize(
    ("unit", "ts"),
    [("s", 1_600_000_000), ("ms", 1_600_000_000_000), ("us", "1600000000000000"), ("ns", 1_600_000_000_000_000_000)],
)
@pytest.mark.parametrize("set_unit", [True, False], ids=["unit set", "unit by size"])
def test_a_time_in_each_unit_is_read(unit, ts, set_unit):
    clicks = ClickSettings(fields=ClickFields(ts_unit=unit if set_unit else "auto"))
    assert decode(click(ts=ts), click(), clicks=clicks).batch.events["ts"].tolist() == [1_600_000_000_000, BROKER_TIME]


def test_a_unit_that_is_set_reads_small_numbers_and_does_not_look_at_their_size():
    in_seconds = ClickSettings(fields=ClickFields(ts_unit="s"))
    assert decode(click(ts=7), clicks=in_seconds).batch.events["ts"].tolist() == [7_000]
    dead = decode(click(ts=1_600_000_000_000), clicks=in_seconds).dead
    assert "is later than the year 9999 in seconds" in dead[0].reason


def test_microseconds_are_read_however_far_ahead_a_time_may_be():
    clicks = ClickSettings(max_future_s=1e15)
    micros = BROKER_TIME * 1000
    assert decode(click(ts=micros), click(ts=micros), clicks=clicks).batch.events["ts"].tolist() == [BROKER_TIME] * 2


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["user", "item", "ts", "id"]), inner),
    max_leaves=5,
)
anything = st.binary(max_size=40) | json_values.map(msgspec.json.encode) | st.just(click()) | st.none()


@given(st.lists(anything, max_size=8))
def test_every_record_is_an_event_or_a_dead_letter_and_neighbours_change_nothing(values):
    together = decode(*values)
    events = together.batch.events["offset"].tolist()
    dead = [d.record.offset for d in together.dead]
    assert sorted(events + dead) == list(range(len(values)))
    for offset, value in enumerate(values):
        alone = Decoder(ClickSettings()).decode([Record(value, offset)])
        assert alone.batch.events["offset"].tolist() == ([offset] if offset in events else [])


def test_a_forget_needs_no_item_and_other_events_do():
    decoded = decode(b'{"user": "ann", "event": "forget"}', b'{"user": "ann", "event": "undo"}')
    assert decoded.batch.events["kind"].tolist() == [code_of("forget")]
    assert decoded.dead[0].reason == "item is missing or null"


@given(st.lists(st.sampled_from(["click", "forget", "undo", "erase"]), min_size=1, max_size=6), st.booleans())
def test_a_chunk_with_forgets_is_what_its_records_are_one_by_one(kinds, with_item):
    state = StateSettings(kinds=KINDS | {"erase": Kind("forget")})
    erases = {"forget", "erase"}
    values = [
        click(event=kind, item="milk" if kind not in erases or with_item else None, user=f"u{n}")
        for n, kind in enumerate(kinds)
    ]
    decoder = Decoder(ClickSettings(), state)
    records = [Record(value, offset) for offset, value in enumerate(values)]
    together, rows = decoder.decode(records).batch, [decoder.one(record) for record in records]
    assert together.items == [row.item for row in rows] == [b"" if kind in erases else b"milk" for kind in kinds]
    assert together.events["kind"].tolist() == [row.kind for row in rows]


def test_a_configured_kind_is_known_by_its_name():
    state = StateSettings(kinds=KINDS | {"wishlist": Kind("positive", 0.7)})
    decoded = Decoder(ClickSettings(), state).decode([Record(click(event="wishlist"))])
    assert decoded.batch.events["kind"].tolist() == [code_of("wishlist")]
    assert decode(click(event="wishlist")).dead[0].reason.startswith("unknown event kind 'wishlist'")


@pytest.mark.parametrize("given", [{}, {"ts": BROKER_TIME}], ids=["time left out", "time given"])
@pytest.mark.parametrize("stamp", [-1, 0, 1_700_000_000, BROKER_TIME * 1000, BROKER_TIME * 10**6])
@pytest.mark.parametrize("beside", [0, 3])
def test_a_record_with_an_impossible_timestamp_is_a_dead_letter_alone_or_among_others(stamp, beside, given):
    others = [Record(click(ts=BROKER_TIME), n) for n in range(beside)]
    wrong = Record(click(**given), beside, timestamp=stamp)
    last = Record(click(ts=BROKER_TIME), beside + 1)
    decoded = Decoder(ClickSettings()).decode([*others, wrong, last])
    assert [d.record.offset for d in decoded.dead] == [beside]
    assert f"the record's own timestamp {stamp} is not a time" in decoded.dead[0].reason
    assert len(decoded.batch.events) == beside + 1


def test_each_time_is_compared_with_the_time_of_its_record():
    early = Record(click(ts=BROKER_TIME + 2 * DAY_MS), 0, timestamp=BROKER_TIME)
    late = Record(click(ts=BROKER_TIME + 2 * DAY_MS), 1, timestamp=BROKER_TIME + 2 * DAY_MS)
    decoded = Decoder(ClickSettings()).decode([early, late])
    assert [d.record.offset for d in decoded.dead] == [0]
