"""Manifests of the versions in the artifact store. Reading them needs no torch.

`model.learning.versions` reads and writes what they describe.
"""

import hashlib
import re

import msgspec

from model.errors import ArtifactError, NoSuchVersion
from model.learning.gate import Verdict
from model.ranking.fusion import Fusion
from model.settings import ModelSettings
from state.artifact_store import MAX_MANIFEST_BYTES, ArtifactStore
from state.signing import Keys

MANIFEST = "manifest.json"
VERSION = re.compile(r"[0-9]{6,18}")
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
    sizes: dict[str, int] = {}
    """Bytes of each file; manifests of older versions have none."""
    ranker_ts: int = 0
    """Event time, ms, of the newest example that the version's ranker has learned; 0 without a ranker."""


def list_versions(url: str, name: str, keys: Keys = ()) -> list[Manifest]:
    """Manifests of all complete versions, oldest first; damaged or unsigned ones are left out.

    Raises ArtifactError where the store does not answer.
    """
    store = ArtifactStore(url, ArtifactError, keys)
    found = []
    for version in version_names(url, name):
        encoded = store.read(f"{name}/{version}/{MANIFEST}", MAX_MANIFEST_BYTES)
        try:
            if encoded is not None:
                store.check_signature(f"{name}/{version}/{MANIFEST}", encoded)
                found.append(_decode(store, name, version, encoded))
        except ArtifactError:
            continue
    return found


def manifest_sha256(url: str, name: str, version: str, keys: Keys = ()) -> str:
    """Hash of the manifest, for a pointer to this version. Raises ArtifactError if there is no such version."""
    return sha256(read_manifest(url, name, version, keys)[0])


def sha256(data: bytes) -> str:
    """SHA-256 as a hex digest."""
    return hashlib.sha256(data).hexdigest()


def version_names(url: str, name: str) -> list[str]:
    """Names of the directories of versions, complete or not, oldest first. Raises ArtifactError."""
    return sorted((v for v in ArtifactStore(url, ArtifactError).list(name) if VERSION.fullmatch(v)), key=int)


def read_manifest(
    url: str, name: str, version: str, keys: Keys, expected_sha256: str | None = None
) -> tuple[bytes, Manifest]:
    """The bytes of a manifest, and what they say. Raises ArtifactError."""
    store = ArtifactStore(url, ArtifactError, keys)
    if not VERSION.fullmatch(version):
        raise ArtifactError(f"{version[:80]!r} is not a version: `anabranch models` lists all versions")
    encoded = store.read_manifest(f"{name}/{version}/{MANIFEST}")
    if encoded is None:
        raise NoSuchVersion(
            f"{store.shown} has no {MANIFEST} of version {version}: `anabranch models` lists what it has"
        )
    if expected_sha256 is not None and sha256(encoded) != expected_sha256:
        raise ArtifactError(wrong_hash(store, version, MANIFEST, expected_sha256, sha256(encoded)))
    return encoded, _decode(store, name, version, encoded)


def wrong_hash(store: ArtifactStore, version: str, file: str, expected: str | None, got: str) -> str:
    """The sentence about a file that is not the one that was published."""
    return f"{store.shown}: version {version}: {file} has sha256 {got[:12]}…, {str(expected)[:12]}… is expected"


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
    if not 0 <= manifest.ranker_ts < 1 << 62:
        raise ArtifactError(f"{store.shown}: version {version}: {MANIFEST}: ranker_ts is {manifest.ranker_ts}")
    return manifest
