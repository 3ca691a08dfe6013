"""From a pointer to a version ready to serve: fetched, verified, warmed up."""

from model.fusion import as_set
from model.ranking import Ranking
from model.versions import ArtifactError, load
from stream.config import Config
from stream.messages import Pointer
from stream.ranker import Serving


def load_serving(pointer: Pointer, config: Config) -> Serving:
    """Load and verify the version a pointer names. Raises ArtifactError.

    Where the pointer's artifact store is no more (a restore on another machine), the version may lie in ours: its hash
    says that it is the same.
    """
    try:
        version = load(pointer.url, pointer.name, pointer.version, pointer.sha256)
    except ArtifactError:
        if pointer.url == config.artifacts_url:
            raise
        version = load(config.artifacts_url, pointer.name, pointer.version, pointer.sha256)
    trained = version.trained
    ranking = Ranking(trained.model, trained.vocabulary, as_set(trained.fusion, config.ranking), config.ranking)
    return Serving(pointer.version, version.manifest.created_ts, ranking)
