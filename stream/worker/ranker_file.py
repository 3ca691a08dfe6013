"""The ranker that a worker has moved since its version was published, in a file beside the state.

The worker's next start goes on from it, and `anabranch recommend` ranks with it.
"""

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from model.ranker.network import Ranker
    from model.ranker.stored import Stored

Role = Literal["champion", "candidate"]
ROLES: tuple[Role, ...] = ("champion", "candidate")


def write(data: Path, instance: str, role: Role, version: str, ranker: "Ranker") -> None:
    """Replace the file of this worker; a full disk does not stop the worker."""
    from model.ranker.stored import encode
    from model.ranking.features import SCHEMA

    file = _file(data, instance, role)
    temporary = file.with_name(f"{file.name}.new")
    with contextlib.suppress(OSError):
        temporary.write_bytes(encode(ranker, SCHEMA, version))
        temporary.rename(file)


def read(data: Path, instance: str, role: Role) -> "Stored | None":
    """The ranker in the file; None if there is no file, or it holds no ranker."""
    from model.ranker.stored import MAX_RANKER_BYTES, decode
    from model.ranking.features import NAMES, SCHEMA

    try:
        with _file(data, instance, role).open("rb") as file:
            return decode(file.read(MAX_RANKER_BYTES + 1), len(NAMES), SCHEMA)
    except (OSError, ValueError):
        return None


def _file(data: Path, instance: str, role: Role) -> Path:
    return data / f"ranker-{instance}-{role}.safetensors"
