"""A backup is a separate artifact store: checkpoints of the partitions, the versions, and a manifest.

DIR/backup.json      the champion, the partitions and the offset of each; written last
    state/…          checkpoints: see `state/checkpoint.py`
    create/…         versions: see `model/learning/versions.py`
"""

import shutil
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import fsspec
import msgspec

from state.checkpoint import CheckpointStore, read_copy
from state.identity import Identity
from state.progress import Progress
from state.view import partition_path
from stream.config import Config
from stream.errors import AnabranchError, ConfigError, DataDirectoryError
from stream.kafka.messages import Pointer
from stream.kafka.pointers import MODEL_NAME, Pointers, write_last_pointers

MANIFEST_NAME = "backup.json"


class BackedUp(msgspec.Struct, frozen=True):
    """One partition in a backup."""

    identity: Identity
    next_offset: int
    base: int

    @property
    def log_offset(self) -> int:
        """Offset in the log of the first event that is not in the backup."""
        return Progress(next_offset=self.next_offset, base=self.base).log_offset


class Backup(msgspec.Struct, frozen=True):
    """The manifest of a backup."""

    created_ts: int
    champion: Pointer | None
    partitions: list[BackedUp]


def write(config: Config, url: str, copies: Iterable[Path], champion: Pointer | None) -> Backup:
    """Write copies of the stores and all versions to an empty folder. Raises AnabranchError or StateError."""
    fs, root = _place(url)
    partitions = []
    for folder in sorted(copies):
        identity, progress = read_copy(folder, config.state)
        if identity is None:  # nothing was read yet
            continue
        CheckpointStore(url, identity).upload(folder, config.state)
        partitions.append(BackedUp(identity, progress.next_offset, progress.base))
    _copy_versions(config.artifacts_url, url)
    backup = Backup(time.time_ns() // 1_000_000, champion, partitions)
    fs.makedirs(root, exist_ok=True)
    fs.pipe_file(f"{root}/{MANIFEST_NAME}", msgspec.json.encode(backup))
    return backup


def check_empty(url: str) -> None:
    """Raise AnabranchError unless the folder is empty: a backup is of one moment."""
    fs, root = _place(url)
    try:
        found = fs.ls(root, detail=False)
    except (FileNotFoundError, NotADirectoryError):
        return
    if found:
        raise AnabranchError(f"{url} is not empty: give each backup a folder of its own, for example {url}/$(date +%F)")


def read(url: str) -> Backup:
    """The manifest of a backup. Raises AnabranchError if there is none."""
    fs, root = _place(url)
    try:
        return msgspec.json.decode(fs.cat_file(f"{root}/{MANIFEST_NAME}"), type=Backup)
    except FileNotFoundError:
        raise AnabranchError(
            f"{url} has no {MANIFEST_NAME}: it is not a complete backup; `anabranch backup DIR` writes one"
        ) from None
    except (OSError, msgspec.MsgspecError) as error:
        raise AnabranchError(f"{url}/{MANIFEST_NAME} cannot be read: {error}") from None


def restore(config: Config, url: str, backup: Backup) -> None:
    """Restore the backup into a data directory that does not exist or is empty.

    Every file is verified by its hash before anything appears in the data directory. Raises AnabranchError or
    StateError.
    """
    for backed_up in backup.partitions:
        if backed_up.identity.topic != config.topics.clicks:
            raise ConfigError(
                f"the backup is of the topic {backed_up.identity.topic!r}, the configuration reads "
                f"{config.topics.clicks!r}: set topics.clicks to {backed_up.identity.topic!r}"
            )
    if config.data.exists() and any(config.data.iterdir()):
        raise DataDirectoryError(
            f"the data directory {config.data} is not empty: a restore replaces nothing. Move it away "
            f"(mv {config.data} {config.data}.before), or name another with --data DIR"
        )
    # It is written beside the data directory and renamed, so that all of it appears at once.
    partial = config.data.with_name(f"{config.data.name}.restoring")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        for backed_up in backup.partitions:
            identity = backed_up.identity
            checkpoints = CheckpointStore(url, identity)
            manifest = next((m for m in checkpoints.usable() if m.progress.next_offset == backed_up.next_offset), None)
            if manifest is None:
                raise AnabranchError(f"{url} lacks partition {identity.partition} of {identity.topic!r}")
            checkpoints.restore(manifest, partition_path(partial, identity.topic, identity.partition))
        _copy_versions(url, config.artifacts or str(partial / "models"))
        if backup.champion is not None:
            write_last_pointers(partial, Pointers(msgspec.structs.replace(backup.champion, url=config.artifacts_url)))
        if config.data.exists():
            config.data.rmdir()
        partial.rename(config.data)
    except OSError as error:
        raise DataDirectoryError(f"cannot write the data directory {config.data}: {error.strerror or error}") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _copy_versions(source: str, target: str) -> None:
    """Copy the versions that are missing. The manifest of each comes last: without it there is no version."""
    from_fs, from_root = _place(source)
    to_fs, to_root = _place(target)
    try:
        files = from_fs.find(f"{from_root}/{MODEL_NAME}")
    except FileNotFoundError:
        return
    for file in sorted(files, key=lambda name: (name.endswith("/manifest.json"), name)):
        there = f"{to_root}/{file.removeprefix(f'{from_root}/')}"
        if to_fs.exists(there):
            continue
        try:
            content = from_fs.cat_file(file)
        except FileNotFoundError:  # pruned in the meantime
            continue
        to_fs.makedirs(there.rsplit("/", 1)[0], exist_ok=True)
        to_fs.pipe_file(there, content)


def _place(url: str) -> tuple[Any, str]:
    try:
        fs, root = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise AnabranchError(f"{url} cannot be used: {error}") from None
    fs.invalidate_cache()
    return fs, root.rstrip("/")
