"""Versions in the artifact store: one directory each, verified file by file, never pickled.

    <store>/<name>/000001/weights.safetensors   item table and sequence encoder
                          items.msgpack         item hashes and ids, in index order
                          manifest.json         everything else, with the sha256 of each file; written last

A directory without a manifest is not a version. The store is a path or an fsspec URL (s3://, gs://, memory://).
"""

import hashlib
import re
import time
from collections.abc import Collection
from typing import Any

import fsspec
import msgspec
import numpy as np
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from model.encoders.create import Create
from model.encoders.vocabulary import Vocabulary
from model.errors import ArtifactError
from model.learning.gate import Verdict
from model.learning.trained import Trained
from model.ranking.fusion import Fusion
from model.settings import ModelSettings

WEIGHTS, ITEMS, MANIFEST = "weights.safetensors", "items.msgpack", "manifest.json"
VERSION = re.compile(r"[0-9]{6,}")
"""The name of a version: a number, as `next_version` writes it."""


class Manifest(msgspec.Struct, frozen=True):
    """Everything about a version except its weights and items."""

    name: str
    version: str
    parent: str | None
    created_ts: int
    offsets: dict[int, int]
    """First offset of each partition that the version has not learned."""
    metrics: dict[str, float]
    fusion: Fusion
    model: ModelSettings
    sha256: dict[str, str]
    verdict: Verdict = Verdict()
    """The verdict of the gate. Its outcome also contains the operator's pin or shadow."""


class Version(msgspec.Struct, frozen=True):
    """A published version, loaded into memory."""

    manifest: Manifest
    manifest_sha256: str
    trained: Trained


def publish(url: str, name: str, trained: Trained, offsets: dict[int, int]) -> Version:
    """Write a candidate as the next version. Raises ArtifactError if the store cannot be written."""
    weights = save_tensors({key: value.contiguous() for key, value in trained.model.state_dict().items()})
    items = msgspec.msgpack.encode([trained.vocabulary.hashes.tolist(), trained.vocabulary.ids])
    version = next_version(url, name)
    manifest = Manifest(
        name=name,
        version=version,
        parent=trained.parent,
        created_ts=time.time_ns() // 1_000_000,
        offsets=offsets,
        metrics={key: round(value, 6) for key, value in trained.metrics.items()},
        fusion=trained.fusion,
        model=trained.model.settings,
        sha256={WEIGHTS: sha256(weights), ITEMS: sha256(items)},
        verdict=trained.verdict,
    )
    encoded = msgspec.json.encode(manifest)
    fs, root = _store(url)
    folder = f"{root}/{name}/{version}"
    try:
        fs.makedirs(folder, exist_ok=True)
        for file, content in ((WEIGHTS, weights), (ITEMS, items), (MANIFEST, encoded)):
            fs.pipe_file(f"{folder}/{file}", content)
    except OSError as error:
        raise ArtifactError(f"cannot write version {version} to {url}: {error}") from None
    return Version(manifest, sha256(encoded), trained)


def load(url: str, name: str, version: str, expected_sha256: str | None = None) -> Version:
    """Read and verify a version. `expected_sha256` is the hash of its manifest in the pointer. Raises ArtifactError."""
    encoded = _read(url, name, version, MANIFEST)
    if expected_sha256 is not None and sha256(encoded) != expected_sha256:
        raise ArtifactError(_wrong(url, version, MANIFEST, expected_sha256, sha256(encoded)))
    try:
        manifest = msgspec.json.decode(encoded, type=Manifest)
    except msgspec.MsgspecError as error:
        raise ArtifactError(f"{url}: version {version}: {MANIFEST} cannot be read: {error}") from None
    content = {file: _read(url, name, version, file) for file in (WEIGHTS, ITEMS)}
    for file, data in content.items():
        if sha256(data) != manifest.sha256.get(file):
            raise ArtifactError(_wrong(url, version, file, manifest.sha256.get(file), sha256(data)))
    try:
        hashes, ids = msgspec.msgpack.decode(content[ITEMS], type=tuple[list[int], list[str]])
        vocabulary = Vocabulary(np.array(hashes, np.uint64), ids)
        model = Create(len(vocabulary), manifest.model)
        model.load_state_dict(load_tensors(content[WEIGHTS]))
    except (msgspec.MsgspecError, SafetensorError, RuntimeError, ValueError) as error:
        raise ArtifactError(f"{url}: version {version} cannot be read: {error}") from None
    trained = Trained(model.eval(), vocabulary, manifest.fusion, manifest.metrics, manifest.parent, manifest.verdict)
    return Version(manifest, sha256(encoded), trained)


def list_versions(url: str, name: str) -> list[Manifest]:
    """Manifests of all complete versions, oldest first."""
    found = []
    for version in _directories(url, name):
        try:
            found.append(msgspec.json.decode(_read(url, name, version, MANIFEST), type=Manifest))
        except (ArtifactError, msgspec.MsgspecError):
            continue
    return found


def manifest_sha256(url: str, name: str, version: str) -> str:
    """Hash of the manifest, for a pointer to this version. Raises ArtifactError if there is no such version."""
    return sha256(_read(url, name, version, MANIFEST))


def prune(url: str, name: str, keep: int, needed: Collection[str]) -> list[str]:
    """Remove versions until `keep` are left, but none in `needed`. Returns the names of the removed versions.

    Versions that were not promoted are removed first, so that promoted ones stay for a rollback. Then the oldest go.
    """
    fs, root = _store(url)
    promoted = {m.version for m in list_versions(url, name) if m.verdict.promoted}
    versions = sorted(_directories(url, name), key=lambda v: (v in promoted, v))
    removed = [v for v in versions[:-keep] if v not in needed]
    for version in removed:
        fs.rm(f"{root}/{name}/{version}", recursive=True)
    return removed


def next_version(url: str, name: str) -> str:
    """The name of the next version. Incomplete versions count too."""
    return f"{int((_directories(url, name) or ['0'])[-1]) + 1:06d}"


def sha256(data: bytes) -> str:
    """SHA-256 as a hex digest."""
    return hashlib.sha256(data).hexdigest()


def _store(url: str) -> tuple[Any, str]:
    try:
        fs, root = fsspec.core.url_to_fs(url)
    except (OSError, ValueError, ImportError) as error:
        raise ArtifactError(f"cannot use the artifact store {url}: {error}") from None
    return fs, root.rstrip("/")


def _directories(url: str, name: str) -> list[str]:
    fs, root = _store(url)
    fs.invalidate_cache()
    try:
        entries = fs.ls(f"{root}/{name}", detail=False)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ArtifactError(f"the artifact store {url} does not answer: {error}") from None
    names = (entry.rstrip("/").rsplit("/", 1)[-1] for entry in entries)
    return sorted(version for version in names if VERSION.fullmatch(version))


def _read(url: str, name: str, version: str, file: str) -> bytes:
    fs, root = _store(url)
    try:
        content: bytes = fs.cat_file(f"{root}/{name}/{version}/{file}")
    except FileNotFoundError:
        raise ArtifactError(f"{url} has no {file} of version {version}: `anabranch models` lists what it has") from None
    except OSError as error:
        raise ArtifactError(f"cannot read {file} of version {version} from {url}: {error}") from None
    return content


def _wrong(url: str, version: str, file: str, expected: str | None, got: str) -> str:
    return f"{url}: version {version}: {file} has sha256 {got[:12]}…, its manifest has {str(expected)[:12]}…"
