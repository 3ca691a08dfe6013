"""With `kafka.signing_key` set, pointers and commands without a right signature change nothing."""

import asyncio
import logging

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.config import Config, KafkaSettings
from stream.errors import ConfigError
from stream.kafka.commands import Commands
from stream.kafka.messages import Command, Pointer, encode
from stream.kafka.pointers import decode_pointer
from stream.kafka.rarely import Rarely
from stream.kafka.signing import refusal, signed
from stream.load_config import load

OLD, NEW = "the old key of this shop", "the new key of this shop"
POINTER = Pointer("create", "000001", "models", "abc", 3)
COMMAND = Command("pause", "1")


@pytest.mark.parametrize("record", [POINTER, COMMAND], ids=["pointer", "command"])
def test_a_record_is_accepted_with_the_signature_of_any_known_key(record):
    for keys, accepted in (((OLD,), (OLD,)), ((OLD,), (NEW, OLD)), ((NEW, OLD), (NEW,)), ((), ()), ((OLD,), ())):
        assert refusal(signed(record, keys), accepted) is None
    for keys, accepted in (((), (OLD,)), ((OLD,), (NEW,)), ((NEW, OLD), (OLD,))):
        assert "kafka.signing_key" in (refusal(signed(record, keys), accepted) or "")


@given(data=st.data())
@pytest.mark.parametrize("record", [POINTER, COMMAND], ids=["pointer", "command"])
def test_a_signature_covers_every_other_field(record, data):
    ours = signed(record, (OLD,))
    field = data.draw(st.sampled_from([f for f in msgspec.structs.fields(ours) if f.name != "signature"]))
    value = getattr(ours, field.name)
    other = data.draw(
        st.just(not value) if isinstance(value, bool)
        else st.integers(0, 99) if isinstance(value, int)
        else st.sampled_from(["candidate", "champion"]) if field.name == "role"
        else st.sampled_from(["operator", "trainer"]) if field.name == "by"
        else st.text(max_size=9)
    )  # fmt: skip
    changed = msgspec.structs.replace(ours, **{field.name: other})
    assert (refusal(changed, (OLD,)) is None) == (other == value)


@given(signature=st.text(max_size=70))
def test_no_text_but_the_signature_is_one(signature):
    assert refusal(msgspec.structs.replace(POINTER, signature=signature), (OLD,)) is not None


def test_a_pointer_is_no_command():
    keys = (OLD,)
    moved = msgspec.structs.replace(COMMAND, signature=signed(POINTER, keys).signature)
    assert refusal(moved, keys) is not None


def test_an_unsigned_pointer_is_not_followed_and_the_line_names_the_setting(caplog):
    assert decode_pointer(encode(signed(POINTER, (OLD,))), (NEW, OLD)) == signed(POINTER, (OLD,))
    with caplog.at_level(logging.WARNING):
        assert decode_pointer(encode(POINTER), (OLD,)) is None
        assert decode_pointer(encode(signed(POINTER, (OLD,))), (NEW,)) is None
    assert "pointer is not followed: version '000001': it is not signed, and kafka.signing_key is set" in caplog.text
    assert "it is signed with another key" in caplog.text


def test_a_flood_of_unsigned_pointers_and_commands_is_one_line_each_in_the_log(caplog):
    commands, rarely = Commands((OLD,)), Rarely()
    for number in range(100):
        decode_pointer(encode(msgspec.structs.replace(POINTER, version=f"{number:06}")), (OLD,), rarely)
        commands.accept(encode(Command("pause", str(number))))
    assert caplog.text.count("is not followed") == caplog.text.count("is not carried out") == 1


def test_an_unsigned_command_is_not_carried_out_and_does_not_hide_the_signed_one(caplog):
    commands = Commands((OLD,))
    with caplog.at_level(logging.WARNING):
        assert commands.accept(encode(COMMAND)) is None
    assert "command 'pause' is not carried out: it is not signed" in caplog.text
    ours = signed(COMMAND, (OLD,))
    assert commands.accept(encode(ours)) == ours
    assert commands.accept(encode(ours)) is None, "a repetition"


@pytest.mark.parametrize(
    "hostile",
    [
        {"version": "../../etc"},
        {"version": "/etc/passwd"},
        {"version": "000001/../000002"},
        {"version": "1"},
        {"version": "latest"},
        {"version": "000001\n"},
        {"moved_ts": 1 << 62},
        {"moved_ts": -1},
        {"name": "../create"},
    ],
)
def test_a_pointer_that_names_a_path_or_no_time_is_not_followed(hostile):
    assert decode_pointer(encode(msgspec.structs.replace(POINTER, **hostile))) is None


def test_the_key_is_in_no_text_and_a_short_one_is_refused():
    config = load(env={"ANABRANCH_KAFKA__SIGNING_KEY": f"{NEW}, {OLD}"}, broker="127.0.0.1:9")
    assert config.kafka.signing_keys == (NEW, OLD)
    assert Config().kafka.signing_keys == ()
    for text in (repr(config), str(config.kafka), repr(list(config.kafka.__rich_repr__()))):
        assert NEW not in text
        assert OLD not in text
    for short in ("short", f"{NEW},short", f"{NEW},"):
        with pytest.raises(ConfigError, match="openssl rand -hex 32") as refused:
            load(env={"ANABRANCH_KAFKA__SIGNING_KEY": short}, broker="127.0.0.1:9")
        assert NEW not in str(refused.value)
    with pytest.raises(ValueError, match="can be guessed"):
        KafkaSettings(signing_key="secret")


def test_commands_and_pointers_are_signed_where_they_are_sent(monkeypatch):
    from stream.kafka import pointers, publish

    sent = []

    class Producer:
        def __init__(self, **_):
            pass

        async def __aenter__(self):
            return self

        async def __aexit__(self, *_):
            pass

        async def send_and_wait(self, topic, value, key):
            sent.append(value)

    monkeypatch.setattr(publish, "AIOKafkaProducer", Producer)
    monkeypatch.setattr(publish, "check_existence", lambda *_: None)
    config = Config(kafka=KafkaSettings(signing_key=OLD))
    asyncio.run(pointers.publish_pointer(config, POINTER))
    assert decode_pointer(sent[0], (OLD,)) is not None
