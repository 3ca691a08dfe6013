"""Checkpoints: a partition's store, copied to the artifact store while the worker writes it, and restored.

    <store>/state/<cluster>/<topic>-<partition>/files/<sha256>              the content of a file
                                               /00000000000000123456.json   a checkpoint: its files; written last

RocksDB's table files never change, so a file is uploaded once, even if many checkpoints name it. Checkpoints are
ordered by their offset: an older one never replaces a newer one, even when it is written later or by another worker.
The artifact store is a path or an fsspec URL (s3://, gs://, memory://).
"""

import hashlib
import logging
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import msgspec
from rocksdict import AccessType, Checkpoint

from state.errors import StateError
from state.identity import Identity, check_identity
from state.partition import Partition
from state.progress import Progress
from state.rocksdb import state_errors
from state.settings import StateSettings

log = logging.getLogger("anabranch.checkpoint")

NO_STATE_PREFIXES = ("LOG", "LOCK")
"""Files of RocksDB that hold no state."""
HASH_CHUNK_BYTES = 1 << 20
MAX_UPLOAD_ROUNDS = 3
"""How often missing files are uploaded before a checkpoint fails."""


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

    def __init__(self, url: str, identity: Identity) -> None:
        try:
            self._fs, root = fsspec.core.url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise CheckpointError(
                f"the artifact store {url} cannot be used: {error}; it must be a path, or an fsspec URL "
                f"whose package is installed"
            ) from None
        self._identity = identity
        self._url = url
        self._root = f"{root.rstrip('/')}/state/{identity.cluster}/{identity.topic}-{identity.partition}"
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
        try:
            self._fs.makedirs(f"{self._root}/files", exist_ok=True)
            # Another worker may prune files that it does not know this checkpoint needs: look again at the end.
            for _ in range(MAX_UPLOAD_ROUNDS):
                for file in (missing := self._missing(files)):
                    if not may_continue():
                        return None
                    self._fs.put_file(str(folder / file.name), f"{self._root}/files/{file.sha256}")
                if not missing:
                    break
            else:
                raise CheckpointError(
                    f"files written to {self._url} are missing there, or have another size: check the artifact store"
                )
            if not may_continue():
                return None
            self._fs.pipe_file(f"{self._root}/{_name(manifest)}", msgspec.json.encode(manifest))
        except OSError as error:
            raise CheckpointError(f"cannot write a checkpoint to {self._url}: {error}") from None
        return manifest

    def usable(self) -> list[Manifest]:
        """The complete checkpoints of this log's partition, newest first. Raises CheckpointError."""
        found: list[Manifest] = []
        for name in reversed(self._names()):
            try:
                manifest = msgspec.json.decode(self._fs.cat_file(f"{self._root}/{name}"), type=Manifest)
                check_identity(manifest.identity, self._identity, Path(self._root) / name)
            except (OSError, msgspec.MsgspecError, StateError) as error:
                log.warning("checkpoint %s/%s is not used: %s", self._root, name, error)
                continue
            found.append(manifest)
        return found

    def newest_identity(self) -> Identity | None:
        """The identity in the newest readable checkpoint, of whatever layout or key. Raises CheckpointError."""
        for name in reversed(self._names()):
            try:
                return msgspec.json.decode(self._fs.cat_file(f"{self._root}/{name}"), type=Manifest).identity
            except (OSError, msgspec.MsgspecError) as error:
                log.warning("checkpoint %s/%s is not used: %s", self._root, name, error)
        return None

    def restore(self, manifest: Manifest, path: Path) -> None:
        """Download a checkpoint to `path`, which must not exist yet, and verify every file by its hash.

        Raises CheckpointError; nothing is at `path` then. A file with a wrong hash is removed from the artifact store,
        so that the next checkpoint uploads it again.
        """
        partial = path.with_name(f"restoring-{path.name}")
        shutil.rmtree(partial, ignore_errors=True)
        try:
            partial.mkdir(parents=True)
            for file in manifest.files:
                target = partial / file.name
                if target.parent != partial:
                    raise CheckpointError(
                        f"the checkpoint at offset {manifest.progress.next_offset} in {self._url} names a file outside "
                        f"its folder, {file.name!r}: its manifest is damaged"
                    )
                self._fs.get_file(f"{self._root}/files/{file.sha256}", str(target))
                if (found := _sha256(target)) != file.sha256:
                    self._fs.rm_file(f"{self._root}/files/{file.sha256}")
                    raise CheckpointError(
                        f"{file.name} of the checkpoint at offset {manifest.progress.next_offset} in {self._url} has "
                        f"sha256 {found[:12]}…, its manifest names {file.sha256[:12]}…"
                    )
            partial.rename(path)
        except OSError as error:
            raise CheckpointError(
                f"cannot restore the checkpoint at offset {manifest.progress.next_offset} from {self._url}: {error}"
            ) from None
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def prune(self, keep: int) -> int:
        """Remove all but the newest `keep` checkpoints, then the unused files; return how many checkpoints were
        removed.

        Checkpoints of another log or layout are removed once there are `keep` of this one.
        """
        mine = {_name(m) for m in self.usable()[:keep]}
        names = self._names()
        gone = [n for n in names if n not in mine] if len(mine) == keep else []
        for name in gone:
            self._fs.rm_file(f"{self._root}/{name}")
        left = [n for n in names if n not in gone]
        kept = [msgspec.json.decode(self._fs.cat_file(f"{self._root}/{n}"), type=_Named) for n in left]
        named = {file.sha256 for manifest in kept for file in manifest.files}
        for sha256 in self._sizes().keys() - named:
            self._fs.rm_file(f"{self._root}/files/{sha256}")
        return len(gone)

    def remove(self, manifest: Manifest) -> None:
        """Remove one checkpoint; the next `prune` removes its files."""
        self._fs.rm_file(f"{self._root}/{_name(manifest)}")

    def _newest_offset(self) -> int:
        mine = (m.progress.next_offset for m in self.usable())
        return next(mine, -1)

    def _missing(self, files: list[CheckpointFile]) -> list[CheckpointFile]:
        sizes = self._sizes()
        return [f for f in files if sizes.get(f.sha256) != f.size]

    def _sizes(self) -> dict[str, int]:
        return {_last(e["name"]): e["size"] for e in self._list(f"{self._root}/files")}

    def _names(self) -> list[str]:
        return sorted(n for n in (_last(e["name"]) for e in self._list(self._root)) if n.endswith(".json"))

    def _list(self, folder: str) -> list[dict[str, Any]]:
        self._fs.invalidate_cache()
        try:
            entries: list[dict[str, Any]] = self._fs.ls(folder, detail=True)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise CheckpointError(f"cannot list the checkpoints in {self._url}: {error}") from None
        return entries

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


def _last(name: str) -> str:
    return name.rstrip("/").rsplit("/", 1)[-1]
