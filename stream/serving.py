"""From a pointer to a version ready to serve: fetched, verified, warmed up."""

from model.fusion import as_set
from model.ranking import Ranking
from model.versions import load
from stream.config import Config
from stream.messages import Pointer
from stream.ranker import Serving


def load_serving(pointer: Pointer, config: Config) -> Serving:
    """Load and verify the version a pointer names. Raises ArtifactError."""
    version = load(pointer.url, pointer.name, pointer.version, pointer.sha256)
    trained = version.trained
    ranking = Ranking(trained.model, trained.vocabulary, as_set(trained.fusion, config.ranking), config.ranking)
    return Serving(pointer.version, version.manifest.created_ts, ranking)
