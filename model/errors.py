"""What can be wrong with a version, and with what one is measured on."""


class ArtifactError(Exception):
    """A version is missing, incomplete or not what its manifest says, or its store does not answer."""


class NothingToTest(Exception):
    """No event of what was to be measured on has a history and a known item."""
