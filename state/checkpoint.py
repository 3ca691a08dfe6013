"""Checkpoints: a partition's store, copied to the artifact store while the worker writes it, and restored.

    <store>/state/<cluster>/<topic>-<partition>/files/<sha256>              the content of a file
                                               /00000000000000123456.json   a checkpoint: its files; written last

RocksDB's table files never change, so a file is uploaded once, even if many checkpoints name it. Checkpoints are
ordered by their offset: an older one never replaces a newer one, even when it is written later or by another worker.
A file that was read with a wrong hash is marked by `<sha256>.damaged`, and uploaded again with the next checkpoint.
"""

import hashlib
import logging
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
from rocksdict import AccessType, Checkpoint

from state.artifact_store import MAX_MANIFEST_BYTES, NAME, SHA256, SIGNATURE, ArtifactStore
from state.errors import StateError
from state.identity import Identity, check_identity
from state.partition import Partition
from state.progress import Progress
from state.rocksdb import state_errors
from state.settings import StateSettings
from state.signing import Keys

log = logging.getLogger("anabranch.checkpoint")

NO_STATE_PREFIXES = ("LOG", "LOCK")
"""Files of RocksDB that hold no state."""
HASH_CHUNK_BYTES = 1 << 20
MAX_UPLOAD_ROUNDS = 3
"""How often missing files are uploaded before a checkpoint fails."""
MAX_FILE_BYTES = 1 << 40
DAMAGED = ".damaged"
MANIFEST = re.compile(r"[0-9]{20}\.json")


class CheckpointError(StateError):
    """A checkpoint cannot be written, is missing, or differs from its manifest."""


class CheckpointFile(msgspec.Struct, frozen=True):
    """One file of a checkpoint."""

    name: str
    size: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True):
    """The content of a checkpoint."""

    identity: Identity
    """The log of the store."""
    progress: Progress = msgspec.field(name="marks")
    created_ts: int
    """Milliseconds since 1970."""
    files: list[CheckpointFile]


def take(store: Partition, folder: Path) -> None:
    """Make a consistent copy of an open store in `folder`, by hard links, while the worker writes it.

    Safe in a thread beside the writer. The memtables are flushed first, while other threads run. RocksDB's checkpoint
    would flush them too, but would make the writer wait. Raises a StateError.
    """
    store.database.flush()
    with state_errors("copy", store.path):
        Checkpoint(store.database.default).create_checkpoint(str(folder))


class CheckpointStore:
    """The checkpoints of one partition in the artifact store."""

    def __init__(self, url: str, identity: Identity, keys: Keys = (), *, read_only: bool = False) -> None:
        self._store = ArtifactStore(url, CheckpointError, keys)
        self._identity, self._read_only = identity, read_only
        self._root = f"state/{identity.cluster}/{identity.topic}-{identity.partition}"
        self._uploaded: Manifest | None = None
        self.hashed: dict[tuple[str, int, int], str] = {}
        """The last upload's hashes by name, inode and time of change: unchanged files are not read again."""

    def upload(
        self, folder: Path, settings: StateSettings, *, may_continue: Callable[[], bool] = lambda: True
    ) -> Manifest | None:
        """Publish the copy that `take` made in `folder`.

        Returns None when nothing is new, or when `may_continue` returns False during the upload. Raises
        CheckpointError.
        """
        identity, progress = read_copy(folder, settings)
        if identity is None or self._newest_offset() >= progress.next_offset:
            return None
        before, self.hashed = self.hashed, {}
        files = [self._hash(f, before) for f in sorted(folder.iterdir()) if not f.name.startswith(NO_STATE_PREFIXES)]
        manifest = Manifest(identity, progress, time.time_ns() // 1_000_000, files)
        # Another worker may prune files that it does not know this checkpoint needs: look again at the end.
        for _ in range(MAX_UPLOAD_ROUNDS):
            for file in (missing := self._missing(files)):
                if not may_continue():
                    return None
                self._store.upload(folder / file.name, self._file(file.sha256))
                self._store.remove(self._file(file.sha256) + DAMAGED)
            if not missing:
                break
        else:
            raise CheckpointError(
                f"files written to {self._store.shown} are missing there, or have another size: check the artifact "
                f"store"
            )
        if not may_continue():
            return None
        self._store.write_manifest(f"{self._root}/{_name(manifest)}", msgspec.json.encode(manifest))
        self._uploaded = manifest
        return manifest

    def usable(self) -> list[Manifest]:
        """The complete checkpoints of this log's partition, newest first. Raises CheckpointError.

        A damaged manifest, an unsigned one, or one of another log is logged and left out.
        """
        found: list[Manifest] = []
        for name, manifest in self._readable():
            try:
                check_identity(manifest.identity, self._identity, Path(self._root) / name)
                self._check(manifest, name)
            except StateError as error:
                self._log_unused(name, error)
            else:
                found.append(manifest)
        return found

    def newest_identity(self) -> Identity | None:
        """The identity in the newest readable checkpoint, of whatever layout or key. Raises CheckpointError."""
        return next((manifest.identity for _, manifest in self._readable()), None)

    def _readable(self) -> Iterator[tuple[str, Manifest]]:
        """Names and manifests of the checkpoints of any log, newest first; damaged and unsigned ones are logged."""
        for name in reversed(self._names()):
            encoded = self._store.read(f"{self._root}/{name}", MAX_MANIFEST_BYTES)
            if encoded is None:  # pruned in the meantime
                continue
            try:
                self._store.check_signature(f"{self._root}/{name}", encoded)
                manifest = msgspec.json.decode(encoded, type=Manifest)
            except (msgspec.MsgspecError, StateError) as error:
                self._log_unused(name, error)
            else:
                yield name, manifest

    def _log_unused(self, name: str, error: Exception) -> None:
        log.warning("checkpoint %s/%s is not used: %s", self._root, name, error)

    def restore(self, manifest: Manifest, path: Path) -> None:
        """Download a checkpoint to `path`, which must not exist yet, and verify every file by its hash.

        Raises CheckpointError; nothing is at `path` then. Nothing is removed from the artifact store: a file with a
        wrong hash is marked there. With `read_only` nothing is marked, and an interrupted restore is continued by the
        next one: files that it left are used if their hash is right.
        """
        partial = path.with_name(f"restoring-{path.name}")
        at = f"the checkpoint at offset {manifest.progress.next_offset} in {self._store.shown}"
        try:
            partial.mkdir(parents=True, exist_ok=True)
            for left in [f for f in partial.iterdir() if f.name not in {file.name for file in manifest.files}]:
                left.unlink()
            needed, free = sum(f.size for f in manifest.files), shutil.disk_usage(partial).free
            if needed > free:
                raise CheckpointError(f"{at} needs {needed:,} bytes, and {free:,} are free in {partial}: make room")
            for file in manifest.files:
                self._restore(file, partial / file.name, at)
            partial.rename(path)
        except OSError as error:
            raise CheckpointError(f"cannot restore {at} to {path}: {error.strerror or error}") from None
        finally:
            if not self._read_only:  # a worker goes on without the checkpoint
                shutil.rmtree(partial, ignore_errors=True)

    def _restore(self, file: CheckpointFile, target: Path, at: str) -> None:
        """Download one file, unless it is there already."""
        if target.is_symlink():
            target.unlink()
        if target.exists() and target.stat().st_size == file.size and _sha256(target) == file.sha256:
            return
        found = self._store.download(self._file(file.sha256), file.size, target)
        if found == file.sha256:
            return
        target.unlink()
        if not self._read_only:
            self._store.write(self._file(file.sha256) + DAMAGED, b"")
        raise CheckpointError(f"{file.name} of {at} has sha256 {found[:12]}…, its manifest names {file.sha256[:12]}…")

    def prune(self, keep: int) -> int:
        """Remove all but the newest `keep` checkpoints, then the unused files; return how many checkpoints were
        removed.

        Checkpoints of another log or layout are removed once there are `keep` of this one. Only files whose name is a
        hash are removed, and none while a manifest that stays cannot be read.
        """
        mine = {_name(m) for m in self.usable()[:keep]}
        names = self._names()
        gone = [n for n in names if n not in mine] if len(mine) == keep else []
        for name in gone:
            self._remove(name)
        # A listing may still lack what was just uploaded.
        kept = [_Named(self._uploaded.files)] if self._uploaded is not None else []
        for name in names:
            if name not in gone:
                encoded = self._store.read(f"{self._root}/{name}", MAX_MANIFEST_BYTES)
                try:
                    kept += [msgspec.json.decode(encoded, type=_Named)] if encoded is not None else []
                except msgspec.MsgspecError as error:
                    log.warning("no files are removed from %s: %s cannot be read: %s", self._root, name, error)
                    return len(gone)
        named = {file.sha256 for manifest in kept for file in manifest.files}
        for sha256 in self._sizes().keys() - named:
            self._store.remove(self._file(sha256))
            self._store.remove(self._file(sha256) + DAMAGED)
        return len(gone)

    def remove(self, manifest: Manifest) -> None:
        """Remove one checkpoint; the next `prune` removes its files."""
        self._remove(_name(manifest))

    def _remove(self, name: str) -> None:
        self._store.remove(f"{self._root}/{name}")
        self._store.remove(f"{self._root}/{name}{SIGNATURE}")

    def _check(self, manifest: Manifest, name: str) -> None:
        """Raise CheckpointError where a manifest names what no checkpoint has."""
        if name != _name(manifest):
            raise CheckpointError(f"it is of offset {manifest.progress.next_offset}, its name is of another one")
        names = [file.name for file in manifest.files]
        for file in manifest.files:
            if not NAME.fullmatch(file.name) or names.count(file.name) > 1:
                raise CheckpointError(f"it names a file {file.name!r}, which no checkpoint has")
            if not SHA256.fullmatch(file.sha256):
                raise CheckpointError(f"the hash of {file.name} is {file.sha256[:80]!r}, which is no SHA-256")
            if not 0 <= file.size <= MAX_FILE_BYTES:
                raise CheckpointError(f"the size of {file.name} is {file.size:,} bytes")

    def _file(self, sha256: str) -> str:
        return f"{self._root}/files/{sha256}"

    def _newest_offset(self) -> int:
        mine = (m.progress.next_offset for m in self.usable())
        return next(mine, -1)

    def _missing(self, files: list[CheckpointFile]) -> list[CheckpointFile]:
        """The files that are not there, have another size, or are marked as damaged."""
        sizes = self._sizes()
        return [f for f in files if sizes.get(f.sha256) != f.size]

    def _sizes(self) -> dict[str, int]:
        found = self._store.list(f"{self._root}/files")
        return {
            name: -1 if name + DAMAGED in found else size
            for name, size in found.items()
            if SHA256.fullmatch(name) and size is not None
        }

    def _names(self) -> list[str]:
        return sorted(name for name in self._store.list(self._root) if MANIFEST.fullmatch(name))

    def _hash(self, file: Path, before: dict[tuple[str, int, int], str]) -> CheckpointFile:
        """A file with its hash. Its inode identifies a file that was hashed for the last checkpoint."""
        about = file.stat()
        key = file.name, about.st_ino, about.st_mtime_ns
        known = self.hashed[key] = before.get(key) or _sha256(file)
        return CheckpointFile(file.name, about.st_size, known)


class _Named(msgspec.Struct):
    """The files that a checkpoint of any layout names."""

    files: list[CheckpointFile]


def read_copy(folder: Path, settings: StateSettings) -> tuple[Identity | None, Progress]:
    """Identity and progress of a copied store. The copy may be newer than the store was when copying began."""
    copied = Partition(folder, settings, AccessType.read_only(False))
    try:
        return copied.identity, copied.read_progress()
    finally:
        copied.close()


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as content:
        while chunk := content.read(HASH_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _name(manifest: Manifest) -> str:
    return f"{manifest.progress.next_offset:020d}.json"
