"""From a pointer to a version ready to serve: fetched, verified, warmed up."""

from model.ranking import Ranking
from model.versions import load
from stream.config import Config
from stream.messages import Pointer
from stream.ranker import Serving


def load_serving(pointer: Pointer, config: Config) -> Serving:
    """Load and verify the version a pointer names. Raises ArtifactError."""
    version = load(pointer.url, pointer.version, expected_sha256=pointer.sha256)
    return Serving(pointer.version, version.manifest.created_ts, Ranking(version, config.ranking))
