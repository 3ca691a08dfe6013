"""How a click lies in the messages of a shop that maps its own fields (`[clicks.fields]`)."""

from typing import Any

import msgspec

from stream.config import ClickFields


def map_fields(click: dict[str, Any], fields: ClickFields) -> dict[str, Any]:
    """The click with our fields where the mapping has them, as `stream.kafka.decode` reads them; others stay."""
    paths = msgspec.structs.asdict(fields)
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
