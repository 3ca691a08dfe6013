"""A backup is a separate artifact store: checkpoints of the partitions, the versions, and a manifest.

DIR/backup.json      the champion, the partitions and the offset of each; written last
    state/…          checkpoints: see `state/checkpoint.py`
    create/…         versions: see `model/learning/versions.py`

A backup is only read from: what is damaged in it is reported and left as it is.
"""

import logging
import shutil
from collections.abc import Iterable
from pathlib import Path

import msgspec

from model.errors import ArtifactError
from state.artifact_store import MAX_MANIFEST_BYTES, ArtifactStore, shown
from state.checkpoint import CheckpointStore, read_copy
from state.identity import Identity
from state.progress import Progress
from state.view import partition_path
from stream.config import Config
from stream.errors import AnabranchError, ConfigError, DataDirectoryError
from stream.files import json_file
from stream.kafka.messages import Pointer
from stream.kafka.pointers import LAST_POINTERS, MODEL_NAME
from stream.times import now_ms

log = logging.getLogger("anabranch.backup")

MANIFEST_NAME = "backup.json"
MAX_PARTITIONS = 1 << 31
RESTORED_FROM = "restored-from"
"""File of an unfinished restore that names its backup."""


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
    keys, partitions = config.kafka.signing_keys, []
    for folder in sorted(copies):
        identity, progress = read_copy(folder, config.state)
        if identity is None:  # nothing was read yet
            continue
        CheckpointStore(url, identity, keys).upload(folder, config.state)
        partitions.append(BackedUp(identity, progress.next_offset, progress.base))
    _copy_versions(config.artifacts_url, url, config)
    backup = Backup(now_ms(), champion, partitions)
    ArtifactStore(url, AnabranchError, keys).write_manifest(MANIFEST_NAME, msgspec.json.encode(backup))
    return backup


def check_empty(url: str) -> None:
    """Raise AnabranchError unless the folder is empty: a backup is of one moment."""
    if ArtifactStore(url, AnabranchError).list():
        raise AnabranchError(
            f"{shown(url)} is not empty: give each backup a folder of its own, for example {shown(url)}/$(date +%F)"
        )


def read(url: str, config: Config) -> Backup:
    """The manifest of a backup. Raises AnabranchError if there is none, or it names what no backup has."""
    encoded = ArtifactStore(url, AnabranchError, config.kafka.signing_keys).read_manifest(MANIFEST_NAME)
    if encoded is None:
        raise AnabranchError(
            f"{shown(url)} has no {MANIFEST_NAME}: it is not a complete backup; `anabranch backup DIR` writes one"
        )
    try:
        backup = msgspec.json.decode(encoded, type=Backup)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise AnabranchError(f"{shown(url)}/{MANIFEST_NAME} cannot be read: {error}") from None
    numbers = [p.identity.partition for p in backup.partitions]
    if not all(0 <= number < MAX_PARTITIONS for number in numbers) or len(set(numbers)) < len(numbers):
        raise AnabranchError(f"{shown(url)}/{MANIFEST_NAME} is damaged: its partitions are {numbers[:20]}")
    return backup


def restore(config: Config, url: str, backup: Backup) -> None:
    """Restore the backup into a data directory that does not exist or is empty.

    Every file is verified by its hash before anything appears in the data directory. A restore that was interrupted is
    continued by the next one. Raises AnabranchError, ArtifactError or StateError.
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
    if config.data.is_mount():
        raise DataDirectoryError(
            f"the data directory {config.data} is the root of a volume, and a restore is written beside the data "
            f"directory and renamed: name a folder in it with --data {config.data / 'anabranch'}, here and for the "
            f"worker and the trainer"
        )
    # It is written beside the data directory and renamed, so that all of it appears at once.
    partial = config.data.with_name(f"{config.data.name}.restoring")
    try:
        _begin(partial, url, backup)
        for backed_up in backup.partitions:
            _restore_partition(config, url, backed_up, partial)
        _copy_versions(url, config.artifacts or str(partial / "models"), config)
        if backup.champion is not None:
            champion = msgspec.structs.replace(backup.champion, url=shown(config.artifacts_url))
            json_file.write(partial / LAST_POINTERS, [champion])
        if config.data.exists():
            config.data.rmdir()
        partial.rename(config.data)
        (config.data / RESTORED_FROM).unlink()
    except OSError as error:
        raise DataDirectoryError(f"cannot write the data directory {config.data}: {error.strerror or error}") from None


def _begin(partial: Path, url: str, backup: Backup) -> None:
    """Begin a restore, or continue one of the same backup. A folder that no restore has made is left alone."""
    source = f"{shown(url)} {backup.created_ts}"
    marker = partial / RESTORED_FROM
    if partial.is_symlink() or (partial.exists() and any(partial.iterdir()) and not marker.is_file()):
        raise DataDirectoryError(f"{partial} is where a restore is written, and is in the way: move it away")
    if marker.is_file() and marker.read_text() != source:
        shutil.rmtree(partial)
    partial.mkdir(parents=True, exist_ok=True)
    marker.write_text(source)


def _restore_partition(config: Config, url: str, backed_up: BackedUp, partial: Path) -> None:
    identity = backed_up.identity
    path = partition_path(partial, identity.topic, identity.partition)
    if path.exists():  # complete: the interrupted restore has verified and renamed it
        return
    checkpoints = CheckpointStore(url, identity, config.kafka.signing_keys, read_only=True)
    manifest = next((m for m in checkpoints.usable() if m.progress.next_offset == backed_up.next_offset), None)
    if manifest is None:
        raise AnabranchError(
            f"{shown(url)} lacks partition {identity.partition} of {identity.topic!r}, or its manifest is damaged: "
            f"restore another backup"
        )
    checkpoints.restore(manifest, path)


def _copy_versions(source: str, target: str, config: Config) -> None:
    """Copy the versions that the target lacks, each verified. A damaged one is reported and left out."""
    if not (names := ArtifactStore(source, ArtifactError).list(MODEL_NAME)):
        return
    from model.learning.manifests import MANIFEST, VERSION
    from model.learning.versions import read_files  # imports torch

    keys = config.kafka.signing_keys
    to = ArtifactStore(target, ArtifactError, keys)
    for version in sorted(name for name in names if VERSION.fullmatch(name)):
        folder = f"{MODEL_NAME}/{version}"
        if ArtifactStore(source, ArtifactError).read(f"{folder}/{MANIFEST}", MAX_MANIFEST_BYTES) is None:
            continue  # incomplete, or pruned in the meantime
        try:
            files = read_files(source, MODEL_NAME, version, keys, max_bytes=config.gate.max_version_bytes)
        except ArtifactError as error:
            log.error("a version is not copied: %s", error)
            continue
        there = to.read(f"{folder}/{MANIFEST}", MAX_MANIFEST_BYTES)
        if there is not None and there != files[MANIFEST]:
            log.warning("version %s in %s is another one than that in %s: it stays", version, to.shown, shown(source))
            continue
        for file, content in files.items():
            if file != MANIFEST:
                to.write(f"{folder}/{file}", content)
        to.write_manifest(f"{folder}/{MANIFEST}", files[MANIFEST])
