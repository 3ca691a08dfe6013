"""Whether a process holds a lock file. The lock ends with its process, however that ended."""

import fcntl
from pathlib import Path


def is_held(lock: Path) -> bool:
    """Whether a process holds the lock."""
    try:
        with lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return False
    except BlockingIOError:
        return True
    except OSError:
        return False
