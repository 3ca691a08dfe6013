"""Errors of versions and of evaluations."""


class ArtifactError(Exception):
    """A version is missing or incomplete, differs from its manifest, or its store does not answer."""


class NoSuchVersion(ArtifactError):
    """The store answers, and does not have the version."""


class NothingToTest(Exception):
    """No event can be tested: none has both a history and a known item."""
