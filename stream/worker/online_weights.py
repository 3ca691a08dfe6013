"""Fusion weights as a worker has learned them since its version was published, kept beside the state.

`anabranch status` finds them there, and the worker's next start goes on from them if the same version serves: without
that every restart would serve the version's own weights for some hours again.
"""

import contextlib
from pathlib import Path

import msgspec

from model.ranking.fusion import Learned
from stream import json_file

PREFIX = "weights-"


class Kept(msgspec.Struct, frozen=True):
    """One worker's weights."""

    version: str
    learned: Learned


def write(data: Path, instance: str, version: str, learned: Learned) -> None:
    """Keep them; a disk that is full does not stop the worker."""
    with contextlib.suppress(OSError):
        json_file.write(data / f"{PREFIX}{instance}.json", Kept(version, learned))


def read(data: Path) -> dict[str, Kept]:
    """By instance; a file that cannot be read is as good as none."""
    files = {file.stem.removeprefix(PREFIX): file for file in sorted(data.glob(f"{PREFIX}*.json"))}
    found = {instance: json_file.read(file, Kept) for instance, file in files.items()}
    return {instance: weights for instance, weights in found.items() if weights is not None}
