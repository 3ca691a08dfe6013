"""The data directory of one machine: created writable, and used by one worker and one trainer at a time.

A process holds a lock on `<data>/<role>.lock` as long as it runs; the file has its process id.
"""

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from stream.errors import DataDirectoryError
from stream.files.permissions import warn_about_directory

Role = Literal["worker", "trainer", "replay"]


def create_data_directory(data: Path) -> None:
    """Create the data directory if it is missing. Raises DataDirectoryError if it cannot be written."""
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        # No name: containers that share a volume have the same process ids.
        with tempfile.TemporaryFile(dir=data):
            pass
    except OSError as error:
        raise DataDirectoryError(
            f"the data directory {data} cannot be written ({error.strerror}): state lives there; "
            f"name another with --data DIR"
        ) from None
    warn_about_directory(data)


@contextlib.contextmanager
def data_directory_lock(data: Path, role: Role) -> Iterator[None]:
    """Hold the data directory for this role: two workers would write to the same stores.

    Raises DataDirectoryError if another process holds it.
    """
    create_data_directory(data)
    with _lock_file(data, role).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise DataDirectoryError(
                f"{data} is in use by another {role} (process {file.read().strip() or 'unknown'}): "
                f"give this one a directory of its own with --data DIR"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def refuse_if_in_use(data: Path) -> None:
    """Raise DataDirectoryError if a worker or trainer runs on the data directory."""
    for role in ("worker", "trainer"):
        lock = _lock_file(data, role)
        if not lock.exists():
            continue
        with lock.open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise DataDirectoryError(
                    f"{data} is in use by a {role} (process {file.read().strip() or 'unknown'}): stop it, "
                    f"or name another directory with --data DIR"
                ) from None


def _lock_file(data: Path, role: str) -> Path:
    return data / f"{role}.lock"
