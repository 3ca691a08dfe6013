"""Model versions from the configured artifact store, each verified by the hash in its pointer."""

from typing import TYPE_CHECKING

import msgspec

from model.errors import ArtifactError
from state.artifact_store import shown
from stream.config import Config
from stream.kafka.messages import Pointer
from stream.kafka.pointers import MODEL_NAME

if TYPE_CHECKING:
    from model.learning.versions import Version


def fetch_version(pointer: Pointer, config: Config) -> "Version":
    """Load and verify the version a pointer names. Raises ArtifactError.

    It comes from the configured artifact store, wherever the pointer says that it was published: who can write to
    the topic must not make a worker read any address.
    """
    from model.learning.versions import load

    try:
        return load(
            config.artifacts_url,
            MODEL_NAME,
            pointer.version,
            pointer.sha256,
            config.kafka.signing_keys,
            max_bytes=config.gate.max_version_bytes,
        )
    except ArtifactError as error:
        if pointer.url == shown(config.artifacts_url):
            raise
        raise type(error)(
            f"{error} (it was published to {pointer.url[:200]!r}: set `artifacts` to one store for all processes)"
        ) from None


def versions_before(pointer: Pointer, config: Config) -> list[Pointer]:
    """Pointers to the promoted versions before the one a pointer names, newest first.

    Newer ones are left out: an operator who rolled back has rejected them. Raises ArtifactError.
    """
    from model.learning.manifests import list_versions, manifest_sha256

    url, keys = config.artifacts_url, config.kafka.signing_keys
    before = [
        m.version
        for m in list_versions(url, MODEL_NAME, keys)
        if m.verdict.promoted and int(m.version) < int(pointer.version or "0")
    ]
    return [
        msgspec.structs.replace(pointer, version=v, sha256=manifest_sha256(url, MODEL_NAME, v, keys))
        for v in reversed(before)
    ]
