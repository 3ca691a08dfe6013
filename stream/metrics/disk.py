"""How much of the disk the data directory takes. A thread of its own looks: a disk that hangs stops nothing else."""

import contextlib
import os
import re
import threading
import time
from pathlib import Path
from typing import NamedTuple

from stream.metrics.catalogue import DATA_KINDS

LOOK_EVERY_S = 15.0
OLD_AFTER_S = 60.0
"""A measurement that is older is not shown: the disk does not answer."""

STORE = re.compile(r"(restored-|rebuilt-)?.+-\d+")
"""The folder of a partition's store, of one that is being restored, or of its rebuild."""


class DiskUse(NamedTuple):
    """One measurement, bytes."""

    free: int
    by_kind: dict[str, int]


class Disk:
    """Measures a data directory, again and again."""

    def __init__(self, data: Path, *, contents: bool = True) -> None:
        """`contents`: whether the files of the directory are measured too; else only the room on the disk."""
        self._data, self._contents = data, contents
        self._measured: tuple[float, DiskUse] | None = None
        self._stopping = threading.Event()

    def start(self) -> None:
        """Begin. The thread ends with the process at the latest, wherever it is."""
        threading.Thread(target=self._run, name="disk", daemon=True).start()

    def stop(self) -> None:
        """Measure no more."""
        self._stopping.set()

    @property
    def use(self) -> DiskUse | None:
        """The newest measurement; None before the first, and while the disk does not answer."""
        if self._measured is None or time.monotonic() - self._measured[0] > OLD_AFTER_S:
            return None
        return self._measured[1]

    def measure(self) -> None:
        """Measure once. Raises OSError."""
        room = os.statvfs(self._data)
        found = DiskUse(room.f_bavail * room.f_frsize, bytes_by_kind(self._data) if self._contents else {})
        self._measured = time.monotonic(), found

    def _run(self) -> None:
        while not self._stopping.is_set():
            with contextlib.suppress(OSError):  # the directory is away: the last measurement gets old
                self.measure()
            self._stopping.wait(LOOK_EVERY_S)


def bytes_by_kind(data: Path) -> dict[str, int]:
    """Bytes on the disk by kind (`DATA_KINDS`). Files that vanish meanwhile count as nothing."""
    found = dict.fromkeys(DATA_KINDS, 0)
    linked: set[int] = set()
    for folder, folders, files in os.walk(data):
        folders.sort(key="copies".__eq__)  # the last one: a copy's hard links are the bytes of its store
        parts = Path(folder).relative_to(data).parts
        for name in files:
            try:
                file = os.lstat(os.path.join(folder, name))
            except OSError:
                continue
            if file.st_nlink == 1 or file.st_ino not in linked:
                linked.add(file.st_ino)
                found[_kind_of(parts, name)] += file.st_blocks * 512
    return found


def _kind_of(parts: tuple[str, ...], name: str) -> str:
    """The kind of a file by its folder's path in the data directory."""
    if not parts:
        return "logs" if ".log" in name else "other"
    if parts[0] in DATA_KINDS:
        return parts[0]
    if parts[0].startswith("aside-"):
        return "aside"
    return "state" if STORE.fullmatch(parts[0]) else "other"
