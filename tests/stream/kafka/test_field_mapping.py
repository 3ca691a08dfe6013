"""A click that is published with a shop's field names is read back by them."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from stream.config import ClickFields, ClickSettings
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
    assert ClickFields.__struct_fields__ == Click.__struct_fields__
    assert ClickFields() == ClickFields(**{name: name for name in Click.__struct_fields__})


def test_fields_are_read_from_where_they_were_mapped_to():
    read = read_fields(map_fields(CLICK, MAPPED), paths_of(MAPPED))
    assert read == {**CLICK, "event": None, "id": None}


names = st.text(st.characters(codec="utf-8", exclude_characters="."), min_size=1, max_size=6)
paths = st.lists(names, min_size=1, max_size=3).map(".".join)


@given(user=st.text("abc", min_size=1), item=st.text("abc", min_size=1), prefix=st.lists(paths, min_size=3, max_size=3))
def test_the_decoder_reads_the_same_click_under_any_mapping(user, item, prefix):
    of_user, of_item, of_ts = (f"{field}.{path}" for field, path in zip("uit", prefix, strict=True))
    fields = ClickFields(user=of_user, item=of_item, ts=of_ts)
    value = msgspec.json.encode(map_fields(CLICK | {"user": user, "item": item}, fields))
    row = Decoder(ClickSettings(fields=fields)).one(Record(value))
    assert (row.user, row.item, row.ts) == (user.encode(), item.encode(), CLICK["ts"])
