"""What can be wrong with a version."""


class ArtifactError(Exception):
    """A version is missing, incomplete or not what its manifest says, or its store does not answer."""
