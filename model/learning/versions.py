"""Versions in the artifact store: one directory each, verified file by file, never pickled.

    <store>/<name>/000001/weights.safetensors   item table and sequence encoder
                          items.msgpack         item hashes and ids, in index order
                          ranker.safetensors    the ranker; not there where the fusion ranks
                          graph_table.safetensors   rows of items from the graph alone, which the ranker reads
                          manifest.json         everything else, with the sha256 of each file; written last
                          manifest.json.sig     its signature, where kafka.signing_key is set

A directory without a manifest is not a version.
"""

import time
from collections.abc import Collection

import msgspec
from safetensors.torch import save as save_tensors

from model.errors import ArtifactError
from model.learning.manifests import (
    MANIFEST,
    VERSION,
    Manifest,
    list_versions,
    read_manifest,
    sha256,
    version_names,
    wrong_hash,
)
from model.learning.trained import Trained
from model.learning.version_content import GRAPH_TABLE, read_graph_table, read_items, read_model
from model.ranker.stored import decode as decode_ranker
from model.ranker.stored import encode as encode_ranker
from model.ranking.features import NAMES, SCHEMA
from model.settings import GateSettings
from state.artifact_store import ArtifactStore
from state.signing import Keys

WEIGHTS, ITEMS, RANKER = "weights.safetensors", "items.msgpack", "ranker.safetensors"
GRAPH_FILE = "graph_table.safetensors"
MAX_BYTES = GateSettings().max_version_bytes


class Version(msgspec.Struct, frozen=True):
    """A published version, loaded into memory."""

    manifest: Manifest
    manifest_sha256: str
    trained: Trained


def publish(
    url: str, name: str, trained: Trained, offsets: dict[int, int], keys: Keys = (), above: str = ""
) -> Version:
    """Write a candidate as the next version, also above the version `above`. Raises ArtifactError."""
    version = next_version(url, name, above)
    files = {
        WEIGHTS: save_tensors({key: value.contiguous() for key, value in trained.model.state_dict().items()}),
        ITEMS: msgspec.msgpack.encode([trained.vocabulary.hashes.tolist(), trained.vocabulary.ids]),
    }
    if trained.model.graph_table is not None:
        files[GRAPH_FILE] = save_tensors({GRAPH_TABLE: trained.model.graph_table})
    if trained.ranker is not None:
        files[RANKER] = encode_ranker(trained.ranker, SCHEMA, version)
    manifest = Manifest(
        name=name,
        version=version,
        parent=trained.parent,
        created_ts=time.time_ns() // 1_000_000,
        offsets=offsets,
        metrics={key: round(value, 6) for key, value in trained.metrics.items()},
        fusion=trained.fusion,
        model=trained.model.settings,
        sha256={file: sha256(content) for file, content in files.items()},
        verdict=trained.verdict,
        sizes={file: len(content) for file, content in files.items()},
        ranker_ts=trained.ranker_ts,
    )
    encoded = msgspec.json.encode(manifest)
    store = ArtifactStore(url, ArtifactError, keys)
    for file, content in files.items():
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
    encoded, manifest = read_manifest(url, name, version, keys, expected_sha256)
    store = ArtifactStore(url, ArtifactError, keys)
    content = _read_files(store, manifest, max_bytes)
    try:
        vocabulary = read_items(content[ITEMS])
        model = read_model(content[WEIGHTS], len(vocabulary), manifest.model)
        if GRAPH_FILE in content:
            model.graph_table = read_graph_table(content[GRAPH_FILE], len(vocabulary))
        ranker = decode_ranker(content[RANKER], len(NAMES), SCHEMA).ranker if RANKER in content else None
    except ValueError as error:
        raise ArtifactError(f"{store.shown}: version {version} cannot be read: {error}") from None
    trained = Trained(
        model, vocabulary, manifest.fusion, manifest.metrics, manifest.parent, manifest.verdict,
        ranker, manifest.ranker_ts if ranker is not None else 0,
    )  # fmt: skip
    return Version(manifest, sha256(encoded), trained)


def read_files(url: str, name: str, version: str, keys: Keys = (), *, max_bytes: int = MAX_BYTES) -> dict[str, bytes]:
    """The verified files of a version by name, its manifest last. Raises ArtifactError."""
    encoded, manifest = read_manifest(url, name, version, keys)
    store = ArtifactStore(url, ArtifactError, keys)
    return _read_files(store, manifest, max_bytes) | {MANIFEST: encoded}


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
    versions = sorted(version_names(url, name), key=lambda v: (v in promoted, int(v)))
    removed = [v for v in versions[:-keep] if v not in needed]
    for version in removed:
        store.remove_folder(f"{name}/{version}", MANIFEST)
    return removed


def next_version(url: str, name: str, above: str = "") -> str:
    """The name of the next version. Incomplete versions count too, and so does `above`."""
    known = [*version_names(url, name), above if VERSION.fullmatch(above) else "0"]
    return f"{max(map(int, known)) + 1:06d}"


def _read_files(store: ArtifactStore, manifest: Manifest, max_bytes: int) -> dict[str, bytes]:
    """The verified files that the manifest names; a ranker is one of them or not. Raises ArtifactError."""
    names = [WEIGHTS, ITEMS, *(file for file in (GRAPH_FILE, RANKER) if file in manifest.sha256)]
    return {file: _read_file(store, manifest, file, max_bytes) for file in names}


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
        raise ArtifactError(wrong_hash(store, manifest.version, file, manifest.sha256.get(file), sha256(content)))
    return content
