"""Small documents kept beside the state, each a JSON file that is there whole or not at all."""

from pathlib import Path
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")


def keep(file: Path, document: Any) -> None:
    """Put it in the file's place. Raises OSError."""
    temporary = file.with_name(f"{file.name}.new")
    temporary.write_bytes(msgspec.json.encode(document))
    temporary.rename(file)


def kept(file: Path, of: type[T]) -> T | None:
    """What was kept last; None where nothing was, or nothing that can be read."""
    try:
        return msgspec.json.decode(file.read_bytes(), type=of)
    except (OSError, msgspec.MsgspecError):
        return None
