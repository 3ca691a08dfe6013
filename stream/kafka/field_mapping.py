"""Where the fields of a click lie in the messages of a shop with field names of its own (`[clicks.fields]`)."""

from typing import Any

import msgspec

from stream.config import ClickFields


def paths_of(fields: ClickFields) -> dict[str, str]:
    """The dotted path of each field, by its name here."""
    return msgspec.structs.asdict(fields)


def map_fields(click: dict[str, Any], fields: ClickFields) -> dict[str, Any]:
    """The message for a click: each field of ours goes to its path, other fields stay. `read_fields` inverts it."""
    paths = paths_of(fields)
    message = {name: value for name, value in click.items() if name not in paths}
    for name, path in paths.items():
        if name not in click:
            continue
        *outer, last = path.split(".")
        place = message
        for section in outer:
            if not isinstance(place.get(section), dict):
                place[section] = {}
            place = place[section]
        place[last] = click[name]
    return message


def read_fields(message: dict[str, Any], paths: dict[str, str]) -> dict[str, Any]:
    """Our fields of a message, each from its path; None where the message has none."""
    return {name: _value_at(message, path) for name, path in paths.items()}


def _value_at(message: dict[str, Any], path: str) -> Any:
    found: Any = message
    for key in path.split("."):
        found = found.get(key) if isinstance(found, dict) else None
    return found
