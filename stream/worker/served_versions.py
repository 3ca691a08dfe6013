"""From a pointer to a version ready to serve: fetched, verified, warmed up.

Here a worker meets torch, some 190 MB of memory: one that has no version to serve yet never imports it.
"""

from stream.config import Config
from stream.kafka.messages import Pointer
from stream.stores.artifacts import fetch_version
from stream.worker.recommender import ServedVersion


def load_serving(pointer: Pointer, config: Config) -> ServedVersion:
    """The version a pointer names, ready to rank. Raises ArtifactError."""
    import torch

    from model.ranking.fusion import with_set_weights
    from model.ranking.ranker import Ranker

    torch.set_num_threads(config.worker.rank_threads)
    version = fetch_version(pointer, config)
    trained = version.trained
    ranking = Ranker(
        trained.model, trained.vocabulary, with_set_weights(trained.fusion, config.ranking), config.ranking
    )
    return ServedVersion(pointer.version, version.manifest.created_ts, ranking)
