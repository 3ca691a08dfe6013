"""From a pointer to a version ready to serve: fetched, verified, warmed up.

Here a worker meets torch, some 190 MB of memory: one that has no version to serve yet never imports it.
"""

from typing import TYPE_CHECKING

from model.errors import ArtifactError
from stream.config import Config
from stream.kafka.messages import Pointer
from stream.worker.recommender import ServedVersion

if TYPE_CHECKING:
    from model.learning.versions import Version


def fetch(pointer: Pointer, config: Config) -> "Version":
    """Load and verify the version a pointer names. Raises ArtifactError.

    Where the pointer's artifact store is no more (a restore on another machine), the version may lie in ours: its hash
    says that it is the same.
    """
    from model.learning.versions import load

    try:
        return load(pointer.url, pointer.name, pointer.version, pointer.sha256)
    except ArtifactError:
        if pointer.url == config.artifacts_url:
            raise
        return load(config.artifacts_url, pointer.name, pointer.version, pointer.sha256)


def load_serving(pointer: Pointer, config: Config) -> ServedVersion:
    """The version a pointer names, ready to rank. Raises ArtifactError."""
    import torch

    from model.ranking.fusion import with_set_weights
    from model.ranking.ranker import Ranker

    torch.set_num_threads(config.worker.rank_threads)
    version = fetch(pointer, config)
    trained = version.trained
    ranking = Ranker(
        trained.model, trained.vocabulary, with_set_weights(trained.fusion, config.ranking), config.ranking
    )
    return ServedVersion(pointer.version, version.manifest.created_ts, ranking)
