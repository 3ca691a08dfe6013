"""Fusion weights as a worker has learned them since its version was published, kept beside the state.

`anabranch status` finds them there, and the worker's next start goes on from them if the same version serves: without
that every restart would serve the version's own weights for some hours again.
"""

from pathlib import Path

import msgspec

from model.fusion import Learned

PREFIX = "weights-"


class Kept(msgspec.Struct, frozen=True):
    """One worker's weights."""

    version: str
    learned: Learned


def write(data: Path, instance: str, version: str, learned: Learned) -> None:
    """Keep them; a disk that is full does not stop the worker."""
    file = data / f"{PREFIX}{instance}.json"
    temporary = file.with_suffix(".new")
    try:
        temporary.write_bytes(msgspec.json.encode(Kept(version, learned)))
        temporary.rename(file)
    except OSError:
        return


def read(data: Path) -> dict[str, Kept]:
    """By instance; a file that cannot be read is as good as none."""
    found = {}
    for file in sorted(data.glob(f"{PREFIX}*.json")):
        try:
            found[file.stem.removeprefix(PREFIX)] = msgspec.json.decode(file.read_bytes(), type=Kept)
        except (OSError, msgspec.MsgspecError):
            continue
    return found
