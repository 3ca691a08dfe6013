"""Model versions from the artifact store, each verified by the hash in its pointer."""

from typing import TYPE_CHECKING

from model.errors import ArtifactError
from stream.config import Config
from stream.kafka.messages import Pointer

if TYPE_CHECKING:
    from model.learning.versions import Version


def fetch_version(pointer: Pointer, config: Config) -> "Version":
    """Load and verify the version a pointer names. Raises ArtifactError.

    If the pointer's artifact store is gone (after a restore on another machine), the version is looked up in the
    configured one. Its hash proves that it is the same.
    """
    from model.learning.versions import load

    try:
        return load(pointer.url, pointer.name, pointer.version, pointer.sha256)
    except ArtifactError:
        if pointer.url == config.artifacts_url:
            raise
        return load(config.artifacts_url, pointer.name, pointer.version, pointer.sha256)
