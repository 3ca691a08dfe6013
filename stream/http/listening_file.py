"""Where the `serve` process of a data directory listens, in a small file there, for `anabranch health`.

The setting does not always say it: `anabranch up` takes another port where that one is in use.
"""

import contextlib
import socket
from pathlib import Path

import msgspec

from stream.files import json_file

FILE_NAME = "serve.json"


class Listening(msgspec.Struct, frozen=True):
    """The file, of the process that began to listen last."""

    http: str
    """HOST:PORT, as the setting `serve.http` has it."""
    host: str = ""
    """The machine or container: several may share a data directory."""


def write(data: Path, http: str) -> None:
    """Write the file. A directory that is missing or cannot be written is no error: `serve` needs none."""
    with contextlib.suppress(OSError):
        json_file.write(data / FILE_NAME, Listening(http, socket.gethostname()))


def read(data: Path) -> str:
    """Where it listens, or did when it ran last; empty: none has run here, on this machine or in this container."""
    found = json_file.read(data / FILE_NAME, Listening)
    return found.http if found is not None and found.host == socket.gethostname() else ""
