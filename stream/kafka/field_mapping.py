"""Where the fields of a click lie in the messages of a shop with field names of its own (`[clicks.fields]`).

A path names keys from the outside in: `customer.id`. In an array a key is a position: `items.0.item_id`. A key may
itself hold dots: `customer.id` also finds the field "customer.id", after one inside of "customer". Alternatives are
tried in their order: `userId|anonymousId` is the first that is there and not null or empty.
"""

import functools
from typing import Any

from stream.config import CLICK_PATHS, ClickFields


def paths_of(fields: ClickFields) -> dict[str, str]:
    """The path of each field, by its name here."""
    return {name: getattr(fields, name) for name in CLICK_PATHS}


def map_fields(click: dict[str, Any], fields: ClickFields) -> dict[str, Any]:
    """The message for a click: each field of ours goes to its path, other fields stay. `read_fields` inverts it."""
    paths = paths_of(fields)
    message = {name: value for name, value in click.items() if name not in paths}
    for name, path in paths.items():
        if name in click and path:
            _put(message, _keys_of(path)[0], click[name])
    return message


def read_fields(message: dict[str, Any], paths: dict[str, str]) -> dict[str, Any]:
    """Our fields of a message, each from its path; None where the message has none."""
    return {name: _first_value(message, path) for name, path in paths.items()}


def _first_value(message: dict[str, Any], path: str) -> Any:
    last = None
    for keys in _keys_of(path):
        value: Any = message
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        if value is None and len(keys) > 1:
            value = _value_at(message, keys)
        if value is not None and value != "":
            return value
        last = value if last is None else last
    return last


@functools.cache
def _keys_of(path: str) -> list[list[str]]:
    """The keys of each alternative of a path."""
    return [alternative.split(".") for alternative in path.split("|")]


def _value_at(place: Any, keys: list[str]) -> Any:
    """The value at the keys, also where an outer one is a position or holds dots."""
    if not keys:
        return place
    if isinstance(place, list):
        at = keys[0]
        return _value_at(place[int(at)], keys[1:]) if at.isdecimal() and len(at) < 6 and int(at) < len(place) else None
    if not isinstance(place, dict):
        return None
    for count in range(1, len(keys) + 1):
        key = ".".join(keys[:count])
        if key in place and (found := _value_at(place[key], keys[count:])) is not None:
            return found
    return None


def _put(place: Any, keys: list[str], value: Any) -> None:
    """Put the value where `_value_at` finds it. Position 0 of something new makes an array."""
    for key, after in zip(keys, [*keys[1:], None], strict=True):
        made = value if after is None else [] if after == "0" else {}
        if isinstance(place, list):
            if not place:
                place.append(made)
            elif after is None or not isinstance(place[0], dict | list):
                place[0] = made
            place = place[0]
        else:
            if after is None or not isinstance(place.get(key), dict | list):
                place[key] = made
            place = place[key]
