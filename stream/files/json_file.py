"""Small JSON documents beside the state. A file is replaced as a whole or not at all."""

from pathlib import Path
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")


def write(file: Path, document: Any) -> None:
    """Replace the file by the document. Raises OSError."""
    temporary = file.with_name(f"{file.name}.new")
    temporary.write_bytes(msgspec.json.encode(document))
    temporary.rename(file)


def read(file: Path, of: type[T]) -> T | None:
    """The document in the file; None if there is no file, or it holds no such document."""
    try:
        return msgspec.json.decode(file.read_bytes(), type=of)
    except (OSError, msgspec.MsgspecError):
        return None
