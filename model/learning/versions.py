"""Versions in the artifact store: one directory each, verified file by file, never pickled.

    <store>/<name>/000001/weights.safetensors   item table and sequence encoder
                          items.msgpack         item hashes and ids, in index order
                          manifest.json         everything else, with the sha256 of each file; written last
                          manifest.json.sig     its signature, where kafka.signing_key is set

A directory without a manifest is not a version.
"""

import hashlib
import re
import time
from collections.abc import Collection

import msgspec
from safetensors.torch import save as save_tensors

from model.errors import ArtifactError, NoSuchVersion
from model.learning.gate import Verdict
from model.learning.trained import Trained
from model.learning.version_content import read_items, read_model
from model.ranking.fusion import Fusion
from model.settings import GateSettings, ModelSettings
from state.artifact_store import MAX_MANIFEST_BYTES, ArtifactStore
from state.signing import Keys

WEIGHTS, ITEMS, MANIFEST = "weights.safetensors", "items.msgpack", "manifest.json"
VERSION = re.compile(r"[0-9]{6,18}")
"""The name of a version: a number, as `next_version` writes it."""
MAX_BYTES = GateSettings().max_version_bytes


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
    sizes: dict[str, int] = {}
    """Bytes of each file; manifests of older versions have none."""


class Version(msgspec.Struct, frozen=True):
    """A published version, loaded into memory."""

    manifest: Manifest
    manifest_sha256: str
    trained: Trained


def publish(
    url: str, name: str, trained: Trained, offsets: dict[int, int], keys: Keys = (), above: str = ""
) -> Version:
    """Write a candidate as the next version, also above the version `above`. Raises ArtifactError."""
    weights = save_tensors({key: value.contiguous() for key, value in trained.model.state_dict().items()})
    items = msgspec.msgpack.encode([trained.vocabulary.hashes.tolist(), trained.vocabulary.ids])
    version = next_version(url, name, above)
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
        sizes={WEIGHTS: len(weights), ITEMS: len(items)},
    )
    encoded = msgspec.json.encode(manifest)
    store = ArtifactStore(url, ArtifactError, keys)
    for file, content in ((WEIGHTS, weights), (ITEMS, items)):
        store.write(f"{name}/{version}/{file}", content)
    store.write_manifest(f"{name}/{version}/{MANIFEST}", encoded)
    return Version(manifest, sha256(encoded), trained)


def load(
    url: str,
    name: str,
    version: str,
    expected_sha256: str | None = None,
    keys: Keys = (),
    *,
    max_bytes: int = MAX_BYTES,
) -> Version:
    """Read and verify a version. `expected_sha256` is the hash of its manifest in the pointer.

    Raises ArtifactError, also where the files have their right hashes and are no version. At most `max_bytes` are
    read of each file.
    """
    encoded, manifest = _read_manifest(url, name, version, keys, expected_sha256)
    store = ArtifactStore(url, ArtifactError, keys)
    content = {file: _read_file(store, manifest, file, max_bytes) for file in (WEIGHTS, ITEMS)}
    try:
        vocabulary = read_items(content[ITEMS])
        model = read_model(content[WEIGHTS], len(vocabulary), manifest.model)
    except ValueError as error:
        raise ArtifactError(f"{store.shown}: version {version} cannot be read: {error}") from None
    trained = Trained(model, vocabulary, manifest.fusion, manifest.metrics, manifest.parent, manifest.verdict)
    return Version(manifest, sha256(encoded), trained)


def list_versions(url: str, name: str, keys: Keys = ()) -> list[Manifest]:
    """Manifests of all complete versions, oldest first; damaged or unsigned ones are left out.

    Raises ArtifactError where the store does not answer.
    """
    store = ArtifactStore(url, ArtifactError, keys)
    found = []
    for version in _directories(url, name):
        encoded = store.read(f"{name}/{version}/{MANIFEST}", MAX_MANIFEST_BYTES)
        try:
            if encoded is not None:
                store.check_signature(f"{name}/{version}/{MANIFEST}", encoded)
                found.append(_decode(store, name, version, encoded))
        except ArtifactError:
            continue
    return found


def read_files(url: str, name: str, version: str, keys: Keys = (), *, max_bytes: int = MAX_BYTES) -> dict[str, bytes]:
    """The verified files of a version by name, its manifest last. Raises ArtifactError."""
    encoded, manifest = _read_manifest(url, name, version, keys)
    store = ArtifactStore(url, ArtifactError, keys)
    content = {file: _read_file(store, manifest, file, max_bytes) for file in (WEIGHTS, ITEMS)}
    return content | {MANIFEST: encoded}


def manifest_sha256(url: str, name: str, version: str, keys: Keys = ()) -> str:
    """Hash of the manifest, for a pointer to this version. Raises ArtifactError if there is no such version."""
    return sha256(_read_manifest(url, name, version, keys)[0])


def sign_version(url: str, name: str, version: str, keys: Keys) -> None:
    """Sign a version as it is in the store, after a look at its files. Raises ArtifactError."""
    files = read_files(url, name, version)
    ArtifactStore(url, ArtifactError, keys).write_manifest(f"{name}/{version}/{MANIFEST}", files[MANIFEST])


def prune(url: str, name: str, keep: int, needed: Collection[str], keys: Keys = ()) -> list[str]:
    """Remove versions until `keep` are left, but none in `needed`. Returns the names of the removed versions.

    Versions that were not promoted are removed first, so that promoted ones stay for a rollback. Then the oldest go.
    """
    store = ArtifactStore(url, ArtifactError)
    promoted = {m.version for m in list_versions(url, name, keys) if m.verdict.promoted}
    versions = sorted(_directories(url, name), key=lambda v: (v in promoted, int(v)))
    removed = [v for v in versions[:-keep] if v not in needed]
    for version in removed:
        store.remove_folder(f"{name}/{version}", MANIFEST)
    return removed


def next_version(url: str, name: str, above: str = "") -> str:
    """The name of the next version. Incomplete versions count too, and so does `above`."""
    known = [*_directories(url, name), above if VERSION.fullmatch(above) else "0"]
    return f"{max(map(int, known)) + 1:06d}"


def sha256(data: bytes) -> str:
    """SHA-256 as a hex digest."""
    return hashlib.sha256(data).hexdigest()


def _directories(url: str, name: str) -> list[str]:
    return sorted((v for v in ArtifactStore(url, ArtifactError).list(name) if VERSION.fullmatch(v)), key=int)


def _read_manifest(
    url: str, name: str, version: str, keys: Keys, expected_sha256: str | None = None
) -> tuple[bytes, Manifest]:
    store = ArtifactStore(url, ArtifactError, keys)
    if not VERSION.fullmatch(version):
        raise ArtifactError(f"{version[:80]!r} is not a version: `anabranch models` lists all versions")
    encoded = store.read_manifest(f"{name}/{version}/{MANIFEST}")
    if encoded is None:
        raise NoSuchVersion(
            f"{store.shown} has no {MANIFEST} of version {version}: `anabranch models` lists what it has"
        )
    if expected_sha256 is not None and sha256(encoded) != expected_sha256:
        raise ArtifactError(_wrong(store, version, MANIFEST, expected_sha256, sha256(encoded)))
    return encoded, _decode(store, name, version, encoded)


def _decode(store: ArtifactStore, name: str, version: str, encoded: bytes) -> Manifest:
    try:
        manifest = msgspec.json.decode(encoded, type=Manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ArtifactError(f"{store.shown}: version {version}: {MANIFEST} cannot be read: {error}") from None
    if (manifest.name, manifest.version) != (name, version):
        raise ArtifactError(
            f"{store.shown}: version {version}: {MANIFEST} is of version {manifest.version[:80]!r} of "
            f"{manifest.name[:80]!r}"
        )
    if min(manifest.offsets.values(), default=0) < 0:
        raise ArtifactError(f"{store.shown}: version {version}: {MANIFEST} names an offset below 0")
    return manifest


def _read_file(store: ArtifactStore, manifest: Manifest, file: str, max_bytes: int) -> bytes:
    """A file with the size and the hash that its manifest names. Raises ArtifactError."""
    folder = f"{manifest.name}/{manifest.version}"
    size = manifest.sizes.get(file)
    if size is None:
        size = store.list(folder).get(file)
    content = store.read(f"{folder}/{file}", max_bytes, size)
    if content is None or size is None:
        raise ArtifactError(
            f"{store.shown} has no {file} of version {manifest.version}: `anabranch models` lists what it has"
        )
    if sha256(content) != manifest.sha256.get(file):
        raise ArtifactError(_wrong(store, manifest.version, file, manifest.sha256.get(file), sha256(content)))
    return content


def _wrong(store: ArtifactStore, version: str, file: str, expected: str | None, got: str) -> str:
    return f"{store.shown}: version {version}: {file} has sha256 {got[:12]}…, {str(expected)[:12]}… is expected"
