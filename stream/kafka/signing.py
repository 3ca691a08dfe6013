"""Signed messages: who can write to `models` and `commands` but has no key decides nothing, and reads no history.

A signature covers every other field of its record. It says who made the record and not when: an old pointer changes
nothing because a newer one is known, and a command is accepted once. A request can be sent again: only workers need
Read on `requests`.
"""

from typing import TypeVar

import msgspec

from state.signing import Keys, is_signed, sign
from stream.kafka.messages import Command, IdKey, Pointer, Request

Signed = TypeVar("Signed", Command, Pointer, IdKey, Request)


def signed(record: Signed, keys: Keys) -> Signed:
    """The record with its signature; without a key as it is."""
    return msgspec.structs.replace(record, signature=sign(keys, _purpose(record), _content(record))) if keys else record


def refusal(record: Signed, keys: Keys) -> str | None:
    """Why a received record is refused; None if it is signed, or there is no key."""
    if is_signed(keys, _purpose(record), _content(record), record.signature):
        return None
    how = "is signed with another key" if record.signature else "is not signed"
    return f"it {how}, and kafka.signing_key is set: set the same key where it was sent"


def _content(record: Command | Pointer | IdKey | Request) -> bytes:
    return msgspec.json.encode(msgspec.structs.replace(record, signature=""))


def _purpose(record: Command | Pointer | IdKey | Request) -> str:
    return type(record).__name__
