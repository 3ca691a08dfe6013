"""The fusion weights that a worker has learned since its version was published, in a file beside the state.

`anabranch status` and `anabranch recommend` read the file. The worker's next start goes on from it: without it, every
restart would serve the version's own weights for some hours again.
"""

import contextlib
from pathlib import Path

import msgspec

from model.ranking.fusion import Learned
from stream.files import json_file

FILE_PREFIX = "weights-"


class StoredWeights(msgspec.Struct, frozen=True):
    """One worker's weights."""

    version: str
    learned: Learned


def write(data: Path, instance: str, version: str, learned: Learned) -> None:
    """Replace the file of this worker; a full disk does not stop the worker."""
    with contextlib.suppress(OSError):
        json_file.write(data / f"{FILE_PREFIX}{instance}.json", StoredWeights(version, learned))


def read(data: Path) -> dict[str, StoredWeights]:
    """The weights by worker instance, without files that cannot be read."""
    found = {_instance(file): json_file.read(file, StoredWeights) for file in sorted(data.glob(f"{FILE_PREFIX}*.json"))}
    return {instance: weights for instance, weights in found.items() if weights is not None}


def newest_instance(data: Path) -> str | None:
    """The worker instance that wrote weights last; None if none has.

    A data directory belongs to one worker at a time, but the worker can be given another name.
    """
    written: dict[str, int] = {}
    for file in data.glob(f"{FILE_PREFIX}*.json"):
        with contextlib.suppress(OSError):
            written[_instance(file)] = file.stat().st_mtime_ns
    return max(written, key=written.__getitem__, default=None)


def _instance(file: Path) -> str:
    return file.stem.removeprefix(FILE_PREFIX)
