"""What this process writes is for its own user; what others can read is reported with the command that closes it.

The data directory holds users' histories in plain text, and the configuration file may hold a password.
"""

import logging
import os
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

SECRET = re.compile(r"(^|_)(password|secret|key|token)$")
"""Names of settings that hold one."""
FOR_GROUP, FOR_OTHERS = stat.S_IRWXG, stat.S_IRWXO
log = logging.getLogger("anabranch")


def create_private_files() -> None:
    """From now on, this process and its children create files of mode 600 and directories of mode 700."""
    os.umask(FOR_GROUP | FOR_OTHERS)


def warn_about_directory(directory: Path) -> None:
    """Log a warning if other users of the machine can read the directory. One that another user owns may be shared
    with our group: a volume in Kubernetes is."""
    found = directory.stat()
    closed = FOR_OTHERS | (FOR_GROUP if found.st_uid == os.geteuid() else 0)
    if found.st_mode & closed:
        log.warning(
            "the data directory %s is open to other users of this machine (mode %o), and it holds users' histories: "
            "run `chmod -R go-rwx %s`", directory, stat.S_IMODE(found.st_mode), directory,
        )  # fmt: skip


def warn_about_secrets(file: Path, settings: Mapping[str, Any]) -> None:
    """Log a warning if the configuration file holds a password, key or token and every user can read it."""
    for name in _secrets(settings, ""):
        _warn_about_file(file, f"it holds {name}")


def warn_about_private_key(file: str) -> None:
    """Log a warning if every user of the machine can read the private key; there is none if `file` is empty."""
    if file:
        _warn_about_file(Path(file), "it is the private key of a client")


def _secrets(settings: Mapping[str, Any], section: str) -> Iterator[str]:
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from _secrets(value, f"{section}{key}.")
        elif value and SECRET.search(key):
            yield f"{section}{key}"


def _warn_about_file(file: Path, why: str) -> None:
    mode = file.stat().st_mode
    if mode & FOR_OTHERS:
        log.warning(
            "%s can be read by every user of this machine (mode %o), and %s: run `chmod o-rwx %s`",
            file, stat.S_IMODE(mode), why, file,
        )  # fmt: skip
