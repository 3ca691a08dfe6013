"""What the worker of a data directory serves, in a small file beside its state, for `anabranch status`."""

import contextlib
from pathlib import Path

import msgspec

from stream.files import json_file

SERVED_FILE = "served.json"


class Served(msgspec.Struct, frozen=True):
    """The version that answers, where it may differ from the one that the pointer names."""

    named: str
    """The version that the pointer names."""
    sha256: str
    """The hash of its manifest in the pointer."""
    version: str | None
    """The version that answers; None: popular items are recommended."""
    why: str = ""
    """Why it is not the named one."""


def not_loaded(version: str, why: str) -> str:
    """The sentence about a version that is named and that no other one stands in for; `why` may be empty."""
    return f"version {version} is named and not loaded{f': {why}' if why else ' yet'}"


def write(data: Path, served: Served) -> None:
    """Write the file. A full disk is no error."""
    with contextlib.suppress(OSError):
        json_file.write(data / SERVED_FILE, served)


def read(data: Path) -> Served | None:
    """What the worker of this data directory served last; None if it never followed a pointer."""
    return json_file.read(data / SERVED_FILE, Served)
