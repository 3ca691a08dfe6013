"""A file that grows up to a size and then begins again: FILE, and before it FILE.1 (the newest of the rest), FILE.2, …

`python rotated_log.py FILE MAX_BYTES KEEP` copies standard input there, until the input ends. It is a program of its
own, which needs nothing but Python's library, because it must outlive the process that it writes for: however that one
or its parent ends, its last lines are still in the pipe. For the same reason only SIGKILL ends it. It never lets that
process wait for a full disk: what cannot be written is counted, and the count is written when there is room again.
"""

import contextlib
import os
import signal
import sys
from pathlib import Path

CHUNK_BYTES = 65_536


class RotatedLog:
    """The file. Every write appends to what is there now, also after somebody has cut, moved or removed it."""

    def __init__(self, path: Path, max_bytes: int, keep: int) -> None:
        """`keep` is how many parts are kept beside the file. Raises OSError."""
        self._path, self._max_bytes, self._keep = path, max_bytes, keep
        self._lost_bytes, self._inside_a_line = 0, False
        self._file = self._open()

    def write(self, chunk: bytes) -> None:
        """Append. Where the file would be too large, begin a new one, between two lines."""
        if self._lost_bytes and not self._append(b"[%d bytes could not be written here]\n" % self._lost_bytes):
            self._lost_bytes = 0
        self._lost_bytes += len(chunk) if self._lost_bytes else self._append(chunk)

    def end(self) -> None:
        """End the last line: what is appended later begins one."""
        if self._inside_a_line:
            self.write(b"\n")

    def _append(self, chunk: bytes) -> int:
        """Append; return how many bytes were not written."""
        try:
            while chunk:
                part = chunk[: self._fitting(chunk, self._size())]
                if not part:
                    self._rotate()
                    continue
                written = os.write(self._file, part)
                self._inside_a_line = not chunk[:written].endswith(b"\n")
                chunk = chunk[written:]
        except OSError:
            return len(chunk)
        return 0

    def _fitting(self, chunk: bytes, size: int) -> int:
        """How many bytes go into a file of this size; 0: none before it is rotated."""
        room = max(self._max_bytes - size, 0)
        if len(chunk) <= room:
            return len(chunk)
        if end := chunk.rfind(b"\n", 0, room) + 1:
            return end
        if not size or (self._inside_a_line and size < 2 * self._max_bytes):  # a line is cut only if it has no end
            return chunk.find(b"\n") + 1 or len(chunk)
        return 0

    def _size(self) -> int:
        """Bytes in the file; a new one is opened where it is no longer at its path."""
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.stat(self._path), now := os.fstat(self._file)):
                return now.st_size
        self._reopen()
        return os.fstat(self._file).st_size

    def _rotate(self) -> None:
        """Rename the parts, the oldest first: a crash between two renames leaves a number out, and loses nothing."""
        if not self._keep:
            os.truncate(self._path, 0)
            return
        names = [self._path, *(self._path.with_name(f"{self._path.name}.{n}") for n in range(1, self._keep + 1))]
        for number in reversed(range(self._keep)):
            with contextlib.suppress(FileNotFoundError):
                names[number].rename(names[number + 1])
        self._reopen()

    def _reopen(self) -> None:
        new = self._open()
        os.close(self._file)
        self._file, self._inside_a_line = new, False

    def _open(self) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)


def main() -> None:
    """Copy standard input until it ends."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    path, max_bytes, keep = sys.argv[1:]
    log = RotatedLog(Path(path), int(max_bytes), int(keep))
    while chunk := os.read(0, CHUNK_BYTES):
        log.write(chunk)
    log.end()


if __name__ == "__main__":
    main()
