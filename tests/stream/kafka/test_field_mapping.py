"""A click that is published with a shop's field names is read back by them."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.config import ClickFields, ClickSettings
from stream.kafka.click_values import Invalid
from stream.kafka.decode import Decoder
from stream.kafka.field_mapping import map_fields, paths_of, read_fields
from stream.kafka.messages import Click
from tests.stream.kafka.test_decode import Record

MAPPED = ClickFields(user="customer.id", item="product.sku", ts="meta.at", event="type")
CLICK = {"user": "ann", "item": "milk", "ts": 1_700_000_000_000}


def test_our_fields_go_to_their_paths_and_other_fields_stay():
    message = map_fields(CLICK | {"price": 3}, MAPPED)
    assert message == {
        "customer": {"id": "ann"}, "product": {"sku": "milk"}, "meta": {"at": 1_700_000_000_000}, "price": 3,
    }  # fmt: skip


def test_a_field_of_the_shop_with_the_name_of_a_section_is_replaced():
    assert map_fields(CLICK | {"customer": "?"}, MAPPED)["customer"] == {"id": "ann"}


def test_without_a_mapping_the_message_is_the_click():
    assert map_fields(CLICK, ClickFields()) == CLICK


def test_every_field_of_a_click_can_be_mapped():
    assert tuple(paths_of(ClickFields())) == Click.__struct_fields__
    assert ClickFields() == ClickFields(**{name: name for name in Click.__struct_fields__})


def test_fields_are_read_from_where_they_were_mapped_to():
    read = read_fields(map_fields(CLICK, MAPPED), paths_of(MAPPED))
    assert read == {**CLICK, "event": None, "id": None}


def test_the_first_alternative_that_is_there_is_read():
    paths = {"user": "userId|traits.id|anonymousId"}
    for message, user in [
        ({"userId": "u", "anonymousId": "a"}, "u"),
        ({"userId": None, "anonymousId": "a"}, "a"),
        ({"userId": "", "traits": {"id": 7}}, 7),
        ({"userId": 0, "anonymousId": "a"}, 0),
        ({"userId": ""}, ""),
        ({}, None),
    ]:
        assert read_fields(message, paths) == {"user": user}


@pytest.mark.parametrize(
    ("message", "path", "value"),
    [
        ({"items": [{"item_id": "SKU_1"}, {"item_id": "SKU_2"}]}, "items.0.item_id", "SKU_1"),
        ({"items": [{"item_id": "SKU_1"}, {"item_id": "SKU_2"}]}, "items.1.item_id", "SKU_2"),
        ({"items": {"0": {"item_id": "SKU_1"}}}, "items.0.item_id", "SKU_1"),
        ({"items": [["a", "b"]]}, "items.0.1", "b"),
        ({"items": []}, "items.0.item_id", None),
        ({"items": "text"}, "items.0.item_id", None),
        ({"user.id": "flat"}, "user.id", "flat"),
        ({"user.id": "flat", "user": {"id": "nested"}}, "user.id", "nested"),
        ({"user": {"name": "ann"}, "user.id": "flat"}, "user.id", "flat"),
        ({"a": {"b.c": {"d": 1}}}, "a.b.c.d", 1),
        ({"a.b": {"c.d": 1}}, "a.b.c.d", 1),
        ({"user": [1]}, "user.-1", None),
    ],
)
def test_a_path_leads_through_arrays_and_keys_with_dots(message, path, value):
    assert read_fields(message, {"field": path}) == {"field": value}


def test_a_click_goes_to_the_first_alternative_and_into_an_array():
    fields = ClickFields(user="userId|anonymousId", item="items.0.item_id", ts="items.0.at")
    message = map_fields(CLICK, fields)
    assert message == {"userId": "ann", "items": [{"item_id": "milk", "at": CLICK["ts"]}]}
    assert read_fields(message, paths_of(fields)) == {**CLICK, "event": None, "id": None}


@pytest.mark.parametrize("fields", [{"user": ""}, {"item": "a..b"}, {"ts": ".at"}, {"user": "a|"}])
def test_a_path_with_an_empty_key_is_refused(fields):
    with pytest.raises(ValueError, match="is not a path: it has an empty key"):
        ClickFields(**fields)


def test_an_empty_path_means_that_the_messages_have_no_such_field():
    fields = ClickFields(id="", event="")
    assert read_fields(CLICK | {"id": "x", "event": "y"}, paths_of(fields))["id"] is None
    assert map_fields(CLICK | {"event": "forget"}, fields) == CLICK


def test_what_common_trackers_send_is_read_and_the_path_of_a_missing_field_is_named():
    ga4 = ClickFields(user="user.id", item="items.0.item_id", ts="event_timestamp", event="")
    for message in (
        {"user": {"id": "u"}, "items": [{"item_id": "SKU"}], "event_timestamp": CLICK["ts"] * 1000},
        {"user.id": "u", "items": {"0": {"item_id": "SKU"}}, "event_timestamp": str(CLICK["ts"])},
    ):
        row = Decoder(ClickSettings(fields=ga4)).one(Record(msgspec.json.encode(message)))
        assert (row.user, row.item, row.ts) == (b"u", b"SKU", CLICK["ts"])
    segment = ClickFields(user="userId|anonymousId", item="properties.product_id")
    with pytest.raises(Invalid, match=r"item \(properties.product_id\) is missing or null"):
        Decoder(ClickSettings(fields=segment)).one(Record(b'{"userId": "u", "properties": {"path": "/"}}'))


names = st.text(st.characters(codec="utf-8", exclude_characters=".|"), min_size=1, max_size=6)
paths = st.lists(names, min_size=1, max_size=3).map(".".join)


@given(user=st.text("abc", min_size=1), item=st.text("abc", min_size=1), prefix=st.lists(paths, min_size=3, max_size=3))
def test_the_decoder_reads_the_same_click_under_any_mapping(user, item, prefix):
    of_user, of_item, of_ts = (f"{field}.{path}" for field, path in zip("uit", prefix, strict=True))
    fields = ClickFields(user=of_user, item=of_item, ts=of_ts)
    value = msgspec.json.encode(map_fields(CLICK | {"user": user, "item": item}, fields))
    row = Decoder(ClickSettings(fields=fields)).one(Record(value))
    assert (row.user, row.item, row.ts) == (user.encode(), item.encode(), CLICK["ts"])
