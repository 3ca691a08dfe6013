"""A backup is an artifact store of its own: checkpoints of the partitions, the versions, and what names them all.

DIR/backup.json      the champion, the partitions and how far each had come; written last
    state/…          as `state/checkpoint.py` has it
    create/…         the versions, as `model/learning/versions.py` has them
"""

import shutil
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import fsspec
import msgspec

from state.checkpoint import CheckpointStore, inside
from state.identity import Identity
from state.progress import Progress
from state.view import partition_path
from stream.config import Config
from stream.errors import AnabranchError, ConfigError, DataDirectoryError
from stream.kafka.messages import Pointer
from stream.kafka.pointers import MODEL_NAME, Pointers, write_last_pointers

MANIFEST = "backup.json"


class Kept(msgspec.Struct, frozen=True):
    """One partition in a backup."""

    identity: Identity
    next_offset: int
    base: int

    @property
    def log_offset(self) -> int:
        """Offset in the log of the first event that is not in the backup."""
        return Progress(next_offset=self.next_offset, base=self.base).log_offset


class Backup(msgspec.Struct, frozen=True):
    """What a backup holds."""

    created_ts: int
    champion: Pointer | None
    partitions: list[Kept]


def write(config: Config, url: str, copies: Iterable[Path], champion: Pointer | None) -> Backup:
    """Write copies of the stores, and all versions, to an empty place. Raises AnabranchError or StateError."""
    fs, root = _place(url)
    partitions = []
    for folder in sorted(copies):
        identity, marks = inside(folder, config.state)
        if identity is None:  # assigned, and nothing read yet
            continue
        CheckpointStore(url, identity).upload(folder, config.state)
        partitions.append(Kept(identity, marks.next_offset, marks.base))
    _copy_versions(config.artifacts_url, url)
    backup = Backup(time.time_ns() // 1_000_000, champion, partitions)
    fs.makedirs(root, exist_ok=True)
    fs.pipe_file(f"{root}/{MANIFEST}", msgspec.json.encode(backup))
    return backup


def need_empty(url: str) -> None:
    """Raise AnabranchError unless nothing lies there: a backup is one moment, not a mixture of two."""
    fs, root = _place(url)
    try:
        found = fs.ls(root, detail=False)
    except (FileNotFoundError, NotADirectoryError):
        return
    if found:
        raise AnabranchError(f"{url} is not empty: give each backup a place of its own, for example {url}/$(date +%F)")


def read(url: str) -> Backup:
    """What a backup holds. Raises AnabranchError where there is none."""
    fs, root = _place(url)
    try:
        return msgspec.json.decode(fs.cat_file(f"{root}/{MANIFEST}"), type=Backup)
    except FileNotFoundError:
        raise AnabranchError(
            f"{url} has no {MANIFEST}: it is no backup, or one that was cut off; `anabranch backup DIR` writes one"
        ) from None
    except (OSError, msgspec.MsgspecError) as error:
        raise AnabranchError(f"{url}/{MANIFEST} cannot be read: {error}") from None


def restore(config: Config, url: str, backup: Backup) -> None:
    """Make a data directory, which does not exist or is empty, what it was when the backup was written.

    Every file is verified by its hash; nothing appears in the data directory before all are. Raises AnabranchError or
    StateError.
    """
    for kept in backup.partitions:
        if kept.identity.topic != config.topics.clicks:
            raise ConfigError(
                f"the backup is of the topic {kept.identity.topic!r}, the configuration reads "
                f"{config.topics.clicks!r}: set topics.clicks to {kept.identity.topic!r}"
            )
    if config.data.exists() and any(config.data.iterdir()):
        raise DataDirectoryError(
            f"the data directory {config.data} is not empty: a restore replaces nothing. Move it away "
            f"(mv {config.data} {config.data}.before), or name another with --data DIR"
        )
    # Beside the data directory, in it its own versions: all of it appears at once.
    partial = config.data.with_name(f"{config.data.name}.restoring")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        for kept in backup.partitions:
            checkpoints = CheckpointStore(url, kept.identity)
            manifest = next((m for m in checkpoints.usable() if m.progress.next_offset == kept.next_offset), None)
            if manifest is None:
                raise AnabranchError(f"{url} lacks partition {kept.identity.partition} of {kept.identity.topic!r}")
            checkpoints.restore(manifest, partition_path(partial, kept.identity.topic, kept.identity.partition))
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
    """Copy versions that are not there yet; a version's manifest comes last, so that a version is whole or none."""
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
        except FileNotFoundError:  # pruned at this moment
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
